"""The distributions of one environment."""

from dataclasses import dataclass
from pathlib import Path

from bevrepro.probe.paths import Place, probe_place


@dataclass(frozen=True)
class Environment:
    """The distributions of one environment."""

    place: Place


def probe_env(path: Path, deep: bool = False) -> Environment:
    """Reads only; never raises for what it finds."""
    return Environment(probe_place(path))
