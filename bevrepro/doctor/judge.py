"""Run checks over one record. A check that crashes becomes a finding; the others still run."""

from collections.abc import Iterable

from bevrepro.core.finding import Finding, Severity
from bevrepro.doctor.check import Check
from bevrepro.probe.files import printable


def judge_all(record: object, checks: Iterable[Check]) -> tuple[Finding, ...]:
    """All findings in the checks' order; `record` is what these checks are written for."""
    return tuple(finding for check in checks for finding in _run(check, record))


def _run(check: Check, record: object) -> tuple[Finding, ...]:
    try:
        verdicts = tuple(check.judge(record))
    except Exception as error:  # one wrong check must not cost the rest of the report
        return (_crashed(check, error),)
    return tuple(
        Finding(
            id=check.id,
            family=check.family,
            severity=verdict.severity,
            seen=printable(verdict.seen),  # names of files and programs may hold anything
            why=check.why,
            remedy=verdict.remedy,
            commands=tuple(map(printable, verdict.commands)),
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
        seen=printable(f"the check {check.id} stopped: {type(error).__name__}: {error}"),
        why="What it looks at was not judged; this is a mistake in bevrepro.",
        remedy="Report it with a record of this machine.",
        commands=("bevrepro doctor --record host.json",),
    )
