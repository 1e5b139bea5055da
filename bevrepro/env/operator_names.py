"""The names that --operators and a target's `operators` take, checked before anything is installed."""

from collections.abc import Iterable
from difflib import get_close_matches

from bevrepro import facts
from bevrepro.core.errors import ConfigError


def known(package: str, version: str) -> tuple[str, ...] | None:
    """The operators of that mmcv; None for one that nobody has looked into (operator_facts.py)."""
    rows = [row for row in facts.table("mmcv_operators") if row["id"] == f"{package} {version}"]
    return tuple(rows[0]["operators"]) if rows else None


def refuse_unknown(wanted: Iterable[str], known: Iterable[str], package: str) -> None:
    """ConfigError with the near names for the first that is none of the known."""
    names = sorted(known)
    for name in sorted(set(wanted) - set(names)):
        near = get_close_matches(name, names, n=3, cutoff=0.5)
        raise ConfigError(
            f"{package} has no operator {name!r}"
            + (f"; is {' or '.join(map(repr, near))} meant?" if near else ""),
            f"It has: {', '.join(names)}",
            "Correct --operators, or `operators` in the target.",
        )
