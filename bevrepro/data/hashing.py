"""md5 of whole archives, a few at a time, and what is remembered of archives that were read before.

hashlib cannot save a half-made md5, so an interrupted run goes on archive by archive: those that were
finished are not read again while path, size, time of change and both ends of the file stay the same.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bevrepro.core import paths
from bevrepro.probe.files import read_int

CHUNK = 4 << 20
END_B = 64  # of each end; a gzip's last eight bytes are a checksum of everything in it
Event = dict[str, Any]
OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Stamp:
    """Which file this was. `ends`: its first and last bytes, in hex."""

    path: str
    size_b: int
    mtime_ns: int
    ends: str

    def stem(self) -> Path:
        """Where what was found of it is kept, without the ending. The ends are not part of the name, so that
        a file that was exchanged under the same size and time is noticed."""
        text = f"{self.path}|{self.size_b}|{self.mtime_ns}"
        return paths.cache_dir() / "verify" / hashlib.sha256(os.fsencode(text)).hexdigest()[:32]


def stamp(path: Path) -> Stamp:
    """OSError where it cannot be read."""
    real = Path(os.path.realpath(path))
    with real.open("rb") as file:
        found = os.fstat(file.fileno())
        head = file.read(END_B)
        file.seek(max(0, found.st_size - END_B))
        return Stamp(str(real), found.st_size, found.st_mtime_ns, (head + file.read()).hex())


def recall(of: Stamp, ending: str) -> tuple[Event | None, bool]:
    """(what was kept under this ending or None, whether the file was exchanged since)."""
    try:
        kept = json.loads(Path(f"{of.stem()}.{ending}").read_text())
        same = all(kept[key] == value for key, value in asdict(of).items())
    except (OSError, ValueError, KeyError, TypeError):  # none, or not whole: read again
        return None, False
    return (kept, False) if same else (None, True)


def remember(of: Stamp, ending: str, found: Event) -> None:
    """DiskError where the cache cannot be written."""
    paths.atomic_write_text(Path(f"{of.stem()}.{ending}"), json.dumps({**asdict(of), **found}) + "\n")


def md5_all(stamps: Sequence[Stamp], jobs: int, on_event: OnEvent) -> dict[str, str | OSError]:
    """By path: the md5, or why it cannot be had. Each is remembered as soon as it is known.

    Ctrl-C ends all threads within a few megabytes and is raised again.
    """
    meter = _Meter(sum(each.size_b for each in stamps), on_event)
    pool = ThreadPoolExecutor(max(1, jobs))
    results: dict[str, str | OSError] = {}
    try:
        tasks = {pool.submit(_md5, each, meter): each for each in stamps}
        for task in as_completed(tasks):
            each = tasks[task]
            error = task.exception()
            if isinstance(error, OSError):
                results[each.path] = error
                continue
            results[each.path] = task.result()
            remember(each, "md5.json", {"md5": task.result()})
    except BaseException:
        meter.stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return results


class _Meter:
    """Bytes of all threads as one bar."""

    def __init__(self, total_b: int, on_event: OnEvent) -> None:
        self.total_b, self.on_event = total_b, on_event
        self.done_b = 0
        self.stop = threading.Event()
        self._lock = threading.Lock()

    def add(self, count_b: int, name: str) -> None:
        if self.stop.is_set():
            raise OSError("stopped")
        with self._lock:
            self.done_b += count_b
            done, total = self.done_b // 10**6, -(-self.total_b // 10**6)
            self.on_event(
                {
                    "event": "progress",
                    "task": "md5 (MB)",
                    "done": min(done, total),
                    "total": total,
                    "text": name,
                }
            )


def _md5(one: Stamp, meter: _Meter) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(one.path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while piece := file.read(CHUNK):
            digest.update(piece)
            meter.add(len(piece), Path(one.path).name)
    if stamp(Path(one.path)) != one:
        raise OSError(None, "it changed while it was read")
    return digest.hexdigest()


def jobs_for(path: Path) -> int:
    """One for a turning disk, where two readers get less than one; else one per core, four at most."""
    try:
        device = path.stat().st_dev
    except OSError:
        return 1
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    turning = any(read_int(block / name) == 1 for name in ("queue/rotational", "../queue/rotational"))
    return 1 if turning else min(4, os.cpu_count() or 1)
