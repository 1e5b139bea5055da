"""What a log says broke: the root first, each with cause and fix, and whether this host would do it again."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bevrepro.core.errors import DataError
from bevrepro.core.finding import Severity
from bevrepro.core.machine import Machine
from bevrepro.doctor.diagnose import diagnose
from bevrepro.doctor.logs.failures import Tier, known_failures
from bevrepro.doctor.logs.rank import Ranked, rank
from bevrepro.doctor.logs.scan import scan
from bevrepro.doctor.registry import CHECKS

_SEVERITIES = {Tier.CAUSE: Severity.FAIL, Tier.SYMPTOM: Severity.FAIL, Tier.WRAPPER: Severity.WARN}
REMEDY = "Give a text file, or - for what is piped in."


@dataclass(frozen=True)
class Explanation:
    """One failure found in a log."""

    id: str
    title: str
    severity: Severity
    lines: tuple[int, ...]  # of the log, 1-based
    quoted: tuple[str, ...]
    because: str  # why it stands where it stands
    explained_by: str | None  # the failure that it is a consequence of
    cause: str
    fix: str
    commands: tuple[str, ...]
    links: tuple[str, ...]
    fires_here: bool | None  # None: no check of the doctor foresees it
    checks: tuple[str, ...]  # the checks that were asked, those that fire where any does


def explain_stream(stream: BinaryIO, machine: Machine) -> tuple[Explanation, ...]:
    """Explanations of the log, the root cause first; empty where nothing known went wrong."""
    ranked = rank(scan(stream, known_failures()))
    asked = {check for each in ranked for check in each.hit.failure.preface}
    findings = diagnose(machine, [each for each in CHECKS if each.id in asked])
    firing = {finding.id for finding in findings if finding.severity is not Severity.INFO}
    return tuple(_explanation(each, firing) for each in ranked)


def explain_file(path: Path, machine: Machine) -> tuple[Explanation, ...]:
    """The same for a file; DataError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return explain_stream(stream, machine)
    except OSError as error:
        raise DataError(f"could not read the log {path}: {error.strerror}", do=REMEDY) from error


def _explanation(ranked: Ranked, firing: Iterable[str]) -> Explanation:
    failure = ranked.hit.failure
    known = tuple(check.id for check in CHECKS if check.id in failure.preface)
    fires = tuple(id for id in known if id in firing)
    return Explanation(
        id=failure.id,
        title=failure.title,
        severity=_SEVERITIES.get(failure.tier, Severity.INFO),
        lines=ranked.hit.numbers,
        quoted=ranked.hit.quoted,
        because=ranked.because,
        explained_by=ranked.explained_by,
        cause=failure.cause,
        fix=failure.fix,
        commands=failure.commands,
        links=failure.links,
        fires_here=bool(fires) if known else None,
        checks=fires or known,
    )
