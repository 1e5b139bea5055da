"""nuScenes as it lies on disk: folders, archives, prepared files."""

from pathlib import Path

from bevrepro.core.finding import Finding
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.readable import readable_check
from bevrepro.probe.nuscenes import probe_data

CHECKS = (readable_check("data", "the data"),)


def examine_data(path: Path, deep: bool = False) -> tuple[Finding, ...]:
    """All findings about `path`; `deep` takes the time that whole files need."""
    return judge_all(probe_data(path, deep), CHECKS)
