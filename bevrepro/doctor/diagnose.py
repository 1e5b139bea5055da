"""Judge one machine by every check that is written for machines."""

from collections.abc import Iterable

from bevrepro.core.finding import Finding, Severity
from bevrepro.core.machine import Machine
from bevrepro.doctor.check import Check
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.registry import CHECKS


def diagnose(machine: Machine, checks: Iterable[Check] = CHECKS) -> tuple[Finding, ...]:
    """All findings, in the registry's order."""
    return judge_all(machine, checks)


def failed(findings: Iterable[Finding]) -> bool:
    """Whether the doctor's exit code is 1."""
    return any(finding.severity is Severity.FAIL for finding in findings)
