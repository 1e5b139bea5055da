"""What a log says broke: the root first, each with cause and fix, and whether this host would do it again."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bevrepro.core.errors import DataError
from bevrepro.core.finding import Severity
from bevrepro.core.machine import Machine
from bevrepro.doctor.diagnose import diagnose
from bevrepro.doctor.explain import MACHINE, by_command
from bevrepro.doctor.logs.failures import Tier, known_failures
from bevrepro.doctor.logs.known import lacks_facts
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
    fires_here: bool | None  # None: no check foresees it, or what they look at is not known of this machine
    checks: tuple[str, ...]  # of the machine: those that fire where any does, else those that pass
    unknown: tuple[str, ...]  # checks of the machine that lack facts to say anything
    foreseen: Mapping[str, tuple[str, ...]]  # "bevrepro doctor data PATH" -> its checks that foresee it


@dataclass(frozen=True)
class _Here:
    """What the checks say of this machine."""

    firing: frozenset[str]
    unknown: frozenset[str]


def explain_stream(stream: BinaryIO, machine: Machine) -> tuple[Explanation, ...]:
    """Explanations of the log, the root cause first; empty where nothing known went wrong."""
    ranked = rank(scan(stream, known_failures()))
    here = _ask({check for each in ranked for check in each.hit.failure.preface}, machine)
    return tuple(_explanation(each, here) for each in ranked)


def _ask(ids: set[str], machine: Machine) -> _Here:
    asked = [check for check in CHECKS if check.id in ids]
    findings = diagnose(machine, asked)
    firing = frozenset(finding.id for finding in findings if finding.severity is not Severity.INFO)
    quiet = [check for check in asked if check.id not in firing]
    return _Here(firing, frozenset(check.id for check in quiet if lacks_facts(check, machine)))


def explain_file(path: Path, machine: Machine) -> tuple[Explanation, ...]:
    """The same for a file; DataError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return explain_stream(stream, machine)
    except OSError as error:
        raise DataError(f"could not read the log {path}: {error.strerror}", do=REMEDY) from error


def explain_piped(machine: Machine) -> tuple[Explanation, ...]:
    """The same for standard input; DataError when it is closed or cannot be read."""
    if sys.stdin is None:
        raise DataError("standard input is closed", do=REMEDY)
    try:
        return explain_stream(sys.stdin.buffer, machine)
    except OSError as error:
        raise DataError(f"could not read standard input: {error.strerror}", do=REMEDY) from error


def _explanation(ranked: Ranked, here: _Here) -> Explanation:
    failure = ranked.hit.failure
    commands = by_command(failure.preface)
    asked = commands.pop(MACHINE, ())
    fires = tuple(id for id in asked if id in here.firing)
    unknown = tuple(id for id in asked if id in here.unknown)
    passes = tuple(id for id in asked if id not in here.firing | here.unknown)
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
        fires_here=True if fires else None if unknown or not asked else False,
        checks=fires or passes,
        unknown=unknown,
        foreseen=commands,
    )
