"""Peak memory is this program's own."""

import subprocess
import sys

import pytest

from bevformer import usage

TAKE = "import sys; held = b'a' * (600 << 20); import subprocess; sys.exit(subprocess.call(sys.argv[1:]))"
TELL = """
import sys, types
sys.modules["torch"] = types.SimpleNamespace(device=None)  # six seconds less, and it is not asked
sys.path.insert(0, "model")
from bevformer import usage
print(usage.peak_rss_gib())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the mark is Linux's")
def test_the_peak_of_the_process_that_started_this_one_is_not_in_it():
    """A trainer that a shell of 2 GiB starts; getrusage says 2 GiB from its first step on."""
    alone, below = (
        float(subprocess.run([sys.executable, *front, "-c", TELL], stdout=subprocess.PIPE, check=True).stdout)
        for front in ([], ["-c", TAKE, sys.executable])
    )
    assert 0 < alone < 0.2 and abs(below - alone) < 0.05


def test_without_a_mark_the_process_is_asked(tmp_path):
    assert usage._high_water_b(str(tmp_path / "none")) is None
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\n")
    assert usage._high_water_b(str(tmp_path / "status")) is None
    assert usage._rusage_b() > 1 << 20
