"""`data index` ended at any moment, politely or not: what was finished stays, the rest is made afterwards."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bevrepro.drive import indexing

from .conftest import write_tar

ROOT = Path(__file__).parents[2]


@pytest.fixture
def large(tmp_path):
    pytest.importorskip("rapidgzip", reason="the reader's pass over a .tgz needs rapidgzip")
    rng = random.Random(0)
    files = {f"samples/CAM_FRONT/{number:02}.jpg": rng.randbytes(400_000) for number in range(60)}
    return write_tar(tmp_path / "large.tgz", files)


@pytest.mark.parametrize("tries", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_it_goes_on_afterwards(large, home, tries):
    """SIGINT and SIGKILL to the whole group in turn, between 0.3 and 1.2 s after the start."""
    command = [sys.executable, "-m", "bevrepro", "data", "index", str(large), "--for", "reader"]
    for number in range(tries):
        child = subprocess.Popen(command, stdout=-1, stderr=-1, cwd=ROOT, start_new_session=True)
        time.sleep(0.3 + 0.9 * ((number * 7) % 10) / 10)
        killed = signal.SIGKILL if number % 2 else signal.SIGINT
        if child.poll() is None:
            os.killpg(child.pid, killed)
        said = child.communicate(timeout=60)[1].decode()
        assert child.returncode in (0, 130, -killed), said
        assert child.returncode < 0 or "Traceback" not in said, said  # < 0: Python was starting
    indexing.carry_out(indexing.plan([large], ("reader",)), lambda event: None)
    assert indexing.plan([large], ("reader",)).tasks == ()
    assert not [path for path in (home / "cache").rglob("*") if "part" in path.name]
