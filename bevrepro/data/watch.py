"""How far programs started from here have come with a file: what they have read, by the kernel's count."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

EVERY_S = 0.5

Tell = Callable[[int], None]


@contextmanager
def watched(tell: Tell) -> Iterator[None]:
    """Inside the block `tell` hears, twice a second, how many bytes were read by what runs below us."""
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(os.getpid(), tell, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _follow(pid: int, tell: Tell, stop: threading.Event) -> None:
    most_b = 0
    while not stop.wait(EVERY_S):
        most_b = max(most_b, read_below(pid))
        tell(most_b)


def read_below(pid: int, proc: Path = Path("/proc")) -> int:
    """Bytes that the running descendants of a process have read through system calls (`rchar`, proc(5))."""
    return sum(_read_by(child, proc) + read_below(child, proc) for child in _children(pid, proc))


def _children(pid: int, proc: Path) -> list[int]:
    found = []
    for listed in proc.glob(f"{pid}/task/*/children"):
        try:
            found += [int(word) for word in listed.read_text().split()]
        except OSError:  # that thread has ended
            continue
    return found


def _read_by(pid: int, proc: Path) -> int:
    try:
        lines = (proc / str(pid) / "io").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("rchar:")), 0)
