"""The numbers of one evaluation."""

from dataclasses import dataclass
from pathlib import Path

from bevrepro.probe.paths import Place, probe_place


@dataclass(frozen=True)
class Metrics:
    """The numbers of one evaluation."""

    place: Place


def probe_metrics(path: Path, deep: bool = False) -> Metrics:
    """Reads only; never raises for what it finds."""
    return Metrics(probe_place(path))
