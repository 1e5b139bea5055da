"""Run the checks over one machine. A check that crashes becomes a finding; the others still run."""

from collections.abc import Iterable

from bevrepro.core.finding import Finding, Severity
from bevrepro.core.machine import Machine
from bevrepro.doctor.check import Check
from bevrepro.doctor.registry import CHECKS


def diagnose(machine: Machine, checks: Iterable[Check] = CHECKS) -> tuple[Finding, ...]:
    """All findings, in the registry's order."""
    return tuple(finding for check in checks for finding in _run(check, machine))


def failed(findings: Iterable[Finding]) -> bool:
    """Whether the doctor's exit code is 1."""
    return any(finding.severity is Severity.FAIL for finding in findings)


def _run(check: Check, machine: Machine) -> tuple[Finding, ...]:
    try:
        verdicts = tuple(check.judge(machine))
    except Exception as error:  # one wrong check must not cost the rest of the report
        return (_crashed(check, error),)
    return tuple(
        Finding(
            id=check.id,
            family=check.family,
            severity=verdict.severity,
            seen=verdict.seen,
            why=check.why,
            remedy=verdict.remedy,
            commands=verdict.commands,
            links=check.links,
            fixable=verdict.fixable,
        )
        for verdict in verdicts
    )


def _crashed(check: Check, error: Exception) -> Finding:
    return Finding(
        id="check-crashed",
        family=check.family,
        severity=Severity.WARN,
        seen=f"the check {check.id} stopped: {type(error).__name__}: {error}",
        why="What it looks at was not judged; this is a mistake in bevrepro.",
        remedy="Report it with a record of this machine.",
        commands=("bevrepro doctor --record host.json",),
    )
