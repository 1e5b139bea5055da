"""What a wrong metric says: fingerprints of known mistakes."""

from pathlib import Path

from bevrepro.core.finding import Finding
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.readable import readable_check
from bevrepro.probe.metrics import probe_metrics

CHECKS = (readable_check("metrics", "the metrics"),)


def examine_metrics(path: Path, deep: bool = False) -> tuple[Finding, ...]:
    """All findings about `path`; `deep` takes the time that whole files need."""
    return judge_all(probe_metrics(path, deep), CHECKS)
