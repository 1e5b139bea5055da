"""gpu_warm compiles what benchmarks and training steps launch: seen without a GPU by what Triton is asked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="no Triton here: make test-ops")
CHILD = Path(__file__).with_name("launches_child.py")


@pytest.fixture(scope="module")
def launches():
    paths = [str(Path(__file__).parents[3] / "model"), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, CHILD], capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr
    return {key: set(found) for key, found in json.loads(done.stdout).items()}


@pytest.mark.slow
@pytest.mark.parametrize("which", ["benchmarked", "trained"])
def test_nothing_is_launched_that_was_not_compiled_beforehand(launches, which):
    assert len(launches[which]) >= 8
    assert not launches[which] - launches["warmed"]


@pytest.mark.slow
def test_nothing_is_compiled_beforehand_that_nobody_launches(launches):
    """But what pytest -m gpu needs: spatial attention at the sizes of small."""
    idle = launches["warmed"] - launches["benchmarked"] - launches["trained"]
    assert all("(23, 40)" in each or "(23, 40, 0)" in each for each in idle)
