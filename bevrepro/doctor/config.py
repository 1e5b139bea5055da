"""A configuration: batch, learning rate, sampler, video mode."""

from pathlib import Path

from bevrepro.core.finding import Finding
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.readable import readable_check
from bevrepro.probe.config import probe_config

CHECKS = (readable_check("config", "the configuration"),)


def examine_config(path: Path, deep: bool = False) -> tuple[Finding, ...]:
    """All findings about `path`; `deep` takes the time that whole files need."""
    return judge_all(probe_config(path, deep), CHECKS)
