"""A checkpoint, read without torch: what it is, and whether it is whole."""

from pathlib import Path

from bevrepro.core.finding import Finding
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.readable import readable_check
from bevrepro.probe.ckpt import probe_ckpt

CHECKS = (readable_check("ckpt", "the checkpoint"),)


def examine_ckpt(path: Path, deep: bool = False) -> tuple[Finding, ...]:
    """All findings about `path`; `deep` takes the time that whole files need."""
    return judge_all(probe_ckpt(path, deep), CHECKS)
