"""The shape of a check. Judging and wording live in one file per family; `registry.py` lists them all."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bevrepro.core.finding import Severity


@dataclass(frozen=True)
class Verdict:
    """What one check says about one record."""

    severity: Severity
    seen: str
    remedy: str
    commands: tuple[str, ...] = ()
    fixable: bool = False


@dataclass(frozen=True)
class Check:
    """One thing to look at. `judge` yields nothing where all is well or where nothing is known.

    It takes the record of its family: a Machine, or what a probe made of a path (`registry.PATH_CHECKS`).
    """

    id: str  # stable
    family: str
    looks_at: str
    why: str  # what it leads to, the same everywhere
    judge: Callable[[Any], Iterator[Verdict]]
    links: tuple[str, ...] = ()


def fail(seen: str, remedy: str, *commands: str, fixable: bool = False) -> Verdict:
    """Commands of bevrepro will break here."""
    return Verdict(Severity.FAIL, seen, remedy, commands, fixable)


def warn(seen: str, remedy: str, *commands: str, fixable: bool = False) -> Verdict:
    """Something will break or crawl, but not the next command."""
    return Verdict(Severity.WARN, seen, remedy, commands, fixable)


def info(seen: str, remedy: str = "", *commands: str) -> Verdict:
    """Good to know; nothing has to be done."""
    return Verdict(Severity.INFO, seen, remedy, commands)


def issue(repository: str, number: int) -> str:
    """The address of a GitHub issue."""
    return f"https://github.com/{repository}/issues/{number}"
