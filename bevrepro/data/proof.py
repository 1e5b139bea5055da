"""Proof that a mount is there and reads right, whatever ratarmount's exit code says (facts: mounting.md)."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bevrepro.core import proc
from bevrepro.core.errors import MountError
from bevrepro.data import index, mountinfo
from bevrepro.data.archives import Archive

APPEARS_WITHIN_S = 5.0
PROBE_TIMEOUT_S = 60.0
PROBE = "import sys; print(len(open(sys.argv[1], 'rb').read()))"
REFUSALS = ("not permitted", "Permission denied", "libfuse", "fusermount")


class Refused(MountError):
    """The system does not let us mount, whatever the archives are."""


def verify(place: Path, archives: Sequence[Archive], done: proc.Done) -> None:
    """Listed by the kernel once, read-only, and the last file of the last archive reads whole.

    Raises Refused where the system does not allow mounting, MountError for everything else.
    """
    said = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
    ended = f"ratarmount ended with exit code {done.rc}" + (f": {said[-1]}" if said else "")
    listed = _wait_for(place) if done.ok else None
    if listed is None:
        if any(refusal in line for line in said for refusal in REFUSALS):
            raise Refused(f"the system refused the mount: {_refusal(said)}")
        raise MountError(
            f"nothing is mounted at {place}: {ended}",
            "The archives are fine so far; they were read for their index.",
            "bevrepro data mount --in-process ... goes without a mount.",
        )
    if not listed.ours or not listed.read_only:
        raise MountError(f"{place} was mounted, but not as asked: {listed}")
    if sum(mount.mountpoint == str(place) for mount in mountinfo.read()) > 1:
        raise MountError(
            f"something else was mounted at {place} at the same moment",
            "One would hide the other.",
            f"bevrepro data status   shows what is there; umount {place}   takes the upper one away",
        )
    _probe(place, archives)


def _refusal(said: Sequence[str]) -> str:
    return next(line for line in said if any(refusal in line for refusal in REFUSALS))


def _wait_for(place: Path) -> mountinfo.Mount | None:
    """The daemon mounts after the program has returned."""
    until_s = time.monotonic() + APPEARS_WITHIN_S
    while True:
        listed = mountinfo.at(mountinfo.read(), place)
        if listed or time.monotonic() > until_s:
            return listed
        time.sleep(0.05)


def _probe(place: Path, archives: Sequence[Archive]) -> None:
    """In a child with a time limit, because a read from a stuck mount never returns."""
    sample = _sample(archives)
    if sample is None:
        return
    path, size = place / sample[0], sample[1]
    done = proc.run([sys.executable, "-I", "-S", "-c", PROBE, str(path)], timeout_s=PROBE_TIMEOUT_S)
    if done.ok and done.stdout.strip() == str(size):
        return
    lines = done.stderr.strip().splitlines()
    got = "no answer" if done.timed_out else done.stdout.strip() or (lines[-1] if lines else "nothing")
    raise MountError(
        f"the mount does not give what the archive holds: {path} should have {size} bytes, got {got}",
        "The archive may have changed after it was indexed.",
        "Check the archive and mount it again.",
    )


def _sample(archives: Sequence[Archive]) -> tuple[str, int] | None:
    """A file and its size as the union should show it: a folder given later may hold its own version."""
    over: list[Path] = []
    for archive in reversed(archives):
        found = index.sample(archive)
        if found:
            own = next((folder / found[0] for folder in over if (folder / found[0]).is_file()), None)
            return (found[0], own.stat().st_size) if own else found
        over.append(archive.path)
    return None
