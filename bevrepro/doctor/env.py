"""An installed environment against the lock of its target."""

from pathlib import Path

from bevrepro.core.finding import Finding
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.readable import readable_check
from bevrepro.probe.environment import probe_env

CHECKS = (readable_check("env", "the environment"),)


def examine_env(path: Path, deep: bool = False) -> tuple[Finding, ...]:
    """All findings about `path`; `deep` takes the time that whole files need."""
    return judge_all(probe_env(path, deep), CHECKS)
