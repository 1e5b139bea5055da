"""A checkpoint's directory of weights."""

from dataclasses import dataclass
from pathlib import Path

from bevrepro.probe.paths import Place, probe_place


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's directory of weights."""

    place: Place


def probe_ckpt(path: Path, deep: bool = False) -> Checkpoint:
    """Reads only; never raises for what it finds."""
    return Checkpoint(probe_place(path))
