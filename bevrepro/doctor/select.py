"""Which checks to run: `--only` and `--skip` take ids and families, and nothing that does not exist."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from bevrepro.core.errors import ConfigError
from bevrepro.core.finding import Finding
from bevrepro.doctor.check import Check

CRASHED = "check-crashed"  # the finding that stands for a check which stopped


def select(checks: Iterable[Check], only: Sequence[str] = (), skip: Sequence[str] = ()) -> tuple[Check, ...]:
    """Those in `only` (all where it is empty) without those in `skip`; ConfigError for unknown names."""
    checks = tuple(checks)
    known = known_names(checks)
    for name in (*only, *skip):
        require(name, known)
    return tuple(each for each in checks if _wanted(each.id, each.family, only, skip))


def keep(
    findings: Iterable[Finding], checks: Iterable[Check], only: Sequence[str] = (), skip: Sequence[str] = ()
) -> tuple[Finding, ...]:
    """As `select`, for findings that are there already; a crashed check is always told."""
    select(checks, only, skip)
    return tuple(each for each in findings if each.id == CRASHED or _wanted(each.id, each.family, only, skip))


def known_names(checks: Iterable[Check]) -> tuple[str, ...]:
    """Families and ids."""
    checks = tuple(checks)
    return tuple(dict.fromkeys((*(each.family for each in checks), *(each.id for each in checks))))


def require(name: str, known: Sequence[str]) -> None:
    """ConfigError with near matches where `name` is none of them."""
    if name in known:
        return
    lower = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
    inside = [each for each in lower if name and name.lower() in each]
    near = [lower[each] for each in dict.fromkeys((*close, *inside))][:5]
    raise ConfigError(
        f"there is no check or family {name!r} here",
        f"Near it: {', '.join(near)}." if near else "",
        "bevrepro doctor --list",
    )


def _wanted(id: str, family: str, only: Sequence[str], skip: Sequence[str]) -> bool:
    asked = not only or id in only or family in only
    return asked and id not in skip and family not in skip
