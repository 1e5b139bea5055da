"""Whether archives can be mounted here: what FUSE needs (probe/fuse.py), and the program ratarmount."""

from bevrepro.core.machine import Fuse, Host
from bevrepro.data.index import find_ratarmount
from bevrepro.probe.fuse import lacks, probe_fuse
from bevrepro.probe.host import probe_host

PROGRAM = "the program ratarmount is not installed (python -m pip install ratarmount)"


def missing() -> tuple[str, ...]:
    """One sentence per thing that is missing here; empty where a mount can be tried."""
    return judge(probe_fuse(), probe_host(), find_ratarmount() is not None)


def judge(fuse: Fuse, host: Host, program: bool) -> tuple[str, ...]:
    """Pure."""
    sentences = tuple(lack.sentence for lack in lacks(fuse, host))
    return sentences if program else (PROGRAM, *sentences)
