"""The kernel that finishes images, compiled for GPUs that are not there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="no Triton here: make test-ops")
pytestmark = pytest.mark.slow
MOST_REGISTERS = 80  # six blocks of 128 threads live in a multiprocessor


def test_it_fits_into_registers_and_writes_in_vectors(tmp_path):
    paths = [str(Path(__file__).parents[3] / "model"), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TRITON_CACHE_DIR": str(tmp_path)}
    child = Path(__file__).with_name("cubin_pixels.py")
    done = subprocess.run(
        [sys.executable, child, "80", "90", "120"], capture_output=True, text=True, env=variables
    )
    assert done.returncode == 0, done.stderr
    kernels = json.loads(done.stdout)
    assert len(kernels) == 6
    for kernel in kernels:
        assert kernel["stack"] == 0 and kernel["registers"] <= MOST_REGISTERS, kernel
        assert kernel["sass"]["STG.E.128"] == 3, kernel  # four pixels of a plane at a time
