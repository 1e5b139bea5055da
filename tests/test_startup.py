"""`bevrepro --help` is quick and takes nothing heavy with it."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT_S = 0.5
HEAVY = {
    "torch",
    "numpy",
    "cv2",
    "scipy",
    "matplotlib",
    "nuscenes",
    "PIL",
    "mmcv",
    "psutil",
    "ratarmountcore",
}


def cpu_seconds(argv: list[str]) -> float:
    """CPU time of one run: what a busy machine does not falsify (wall time is never less on an idle one)."""
    before = os.times()
    subprocess.run(argv, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_help_starts_within_half_a_second():
    end_s = time.monotonic() + 10
    best_s = cpu_seconds([sys.executable, "-m", "bevrepro", "--help"])
    while best_s >= LIMIT_S and time.monotonic() < end_s:
        best_s = min(best_s, cpu_seconds([sys.executable, "-m", "bevrepro", "--help"]))
    assert best_s < LIMIT_S


def test_the_command_line_imports_nothing_heavy():
    code = "import sys, bevrepro.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())
