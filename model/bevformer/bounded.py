"""So much memory and no more, for reading what somebody else wrote."""

import os
from contextlib import contextmanager
from typing import Iterator

try:
    import resource
except ImportError:  # no Unix
    resource = None  # type: ignore[assignment]

# A pickle of 20 bytes can ask for a table of gigabytes.  Plain ones take some 6 times their size.
ROOM_B, ROOM_TIMES = 2 << 30, 24


@contextmanager
def bounded(size_b: int) -> Iterator[None]:
    """Inside, what reads `size_b` bytes gets MemoryError where it asks for far more memory than they need."""
    taken_b = _taken_b()
    if not taken_b or resource is None:
        yield
        return
    old, highest = resource.getrlimit(resource.RLIMIT_AS)
    wanted = taken_b + ROOM_B + ROOM_TIMES * size_b
    known = [each for each in (old, highest, wanted) if each != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(known), highest))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (old, highest))


def _taken_b() -> int:
    """The address space of this process; 0 where the system does not tell it as Linux does."""
    try:
        with open("/proc/self/statm") as stream:
            return int(stream.read().split()[0]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0
