"""What every family that looks at a path says first: it is not there, or may not be read."""

from collections.abc import Iterator
from typing import Protocol

from bevrepro.doctor.check import Check, Verdict, fail
from bevrepro.probe.paths import Place

REMEDIES = {
    "absent": "Check the path.",
    "forbidden": "Have its owner let you read it, or copy it to a folder of your own.",
    "dead": "Its mount is gone or its disk does not answer: clean it up and mount it again.",
    "other": "Name a file or a folder.",
}


class Placed(Protocol):
    """A record that knows where it comes from."""

    @property
    def place(self) -> Place: ...


def unreadable(record: Placed) -> Iterator[Verdict]:
    place = record.place
    if place.kind in REMEDIES:
        seen = f"{place.path}: {place.said or 'neither a file nor a folder'}"
        commands = (f"fusermount -u {place.path}",) if place.kind == "dead" else ()
        yield fail(seen, REMEDIES[place.kind], *commands)


def readable_check(family: str, what: str) -> Check:
    """The family's first check."""
    return Check(f"{family}-unreadable", family, f"whether {what} can be read",
                 "What cannot be read cannot be used, and was not judged.", unreadable)  # fmt: skip
