"""A data root, an archive or an infos file."""

from dataclasses import dataclass
from pathlib import Path

from bevrepro.probe.paths import Place, probe_place


@dataclass(frozen=True)
class DataSet:
    """A data root, an archive or an infos file."""

    place: Place


def probe_data(path: Path, deep: bool = False) -> DataSet:
    """Reads only; never raises for what it finds."""
    return DataSet(probe_place(path))
