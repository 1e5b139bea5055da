"""A configuration as far as it is literal."""

from dataclasses import dataclass
from pathlib import Path

from bevrepro.probe.paths import Place, probe_place


@dataclass(frozen=True)
class Config:
    """A configuration as far as it is literal."""

    place: Place


def probe_config(path: Path, deep: bool = False) -> Config:
    """Reads only; never raises for what it finds."""
    return Config(probe_place(path))
