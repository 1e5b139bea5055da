"""The known failures and how a log tells them: facts/failures.toml as values.

In a pattern a blank stands for any white space (a wrapped line too; " ?" for none as well) and an ellipsis
for up to 200 characters; case does not matter. `words` are lower-case words (letters and "_"
only; Chinese ones may be parts of words): a line without any of them is never looked at, which is what keeps
24 MB at a second.
"""

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any

from bevrepro import facts

GAP = r"[\s\S]{0,200}?"


class Tier(IntEnum):
    """How much a failure explains. The lower ones are told first."""

    CAUSE = 0
    SYMPTOM = 1  # often the consequence of something else, on another rank or in another process
    WRAPPER = 2  # only says that something failed
    REMARK = 3  # runs to its end; the numbers or the speed suffer
    HINT = 4  # the same, and often harmless
    EVIDENCE = 5  # no failure: what the rules of others ask for


@dataclass(frozen=True)
class Matcher:
    """One way to tell: any of `any`, all of `all`, none of `none`, within one stretch of the log."""

    any: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    none: tuple[str, ...] = ()
    having: tuple[str, ...] = ()  # evidence that must be somewhere in the log
    lacking: tuple[str, ...] = ()  # evidence that must be nowhere in it


@dataclass(frozen=True)
class Failure:
    """One row."""

    id: str
    title: str
    kind: str  # "crash", "silent" or "perf"
    tier: Tier
    cause: str
    precheck: str
    fix: str
    commands: tuple[str, ...]
    links: tuple[str, ...]
    words: tuple[str, ...]
    matchers: tuple[Matcher, ...]
    follows: tuple[str, ...]  # what this one explains, when both are there
    preface: tuple[str, ...]  # checks of the doctor that foresee it


@cache
def known_failures() -> tuple[Failure, ...]:
    """All rows, in the order of the table."""
    return tuple(_failure(row) for row in facts.table("failures"))


@cache
def compiled(pattern: str, joined: bool = False) -> re.Pattern[str]:
    """The pattern; `joined`: for text whose wrapped lines were put together without a blank."""
    blank = r"\s*" if joined else r"\s+"
    pattern = pattern.replace(" ?", r"\s*").replace(" ", blank).replace("…", GAP)
    return re.compile(pattern, re.IGNORECASE | re.MULTILINE)


def _failure(row: dict[str, Any]) -> Failure:
    return Failure(
        id=row["id"],
        title=row["title"],
        kind=row["kind"],
        tier=Tier[row["tier"].upper()],
        cause=row["cause"],
        precheck=row.get("precheck", ""),
        fix=row.get("fix", ""),
        commands=tuple(row.get("commands", ())),
        links=tuple(row.get("links", ())),
        words=tuple(row["words"]),
        matchers=tuple(
            Matcher(**{name: tuple(patterns) for name, patterns in each.items()}) for each in row["matcher"]
        ),
        follows=tuple(row.get("follows", ())),
        preface=tuple(row.get("preface", ())),
    )
