"""What was really done with a target, as words: nothing is claimed that was not done."""

from bevrepro.core.errors import ConfigError
from bevrepro.env.target import LEVELS, Evidence, Target, load

MEANING = {
    "resolved": "a lock was made of it",
    "installed": "every locked package was installed",
    "compiled": "its operators were compiled",
    "ran-on-cpu": "its self-test ran on a CPU",
    "ran-on-gpu": "its self-test ran on the accelerator it is for",
}


def badge(target: Target) -> str:
    """One cell: `compiled 2026-11-21`, or `unverified` where nothing was done yet."""
    best = strongest(target)
    return f"{best.level} {best.date}" if best else "unverified"


def named(target: Target) -> str:
    """How a target is called wherever it is named to a user: `a100 (resolved 2026-11-21)`."""
    return f"{target.name} ({badge(target)})"


def named_by(name: str) -> str:
    """As `named`; the bare name, said to be unknown, where there is no such target here any more."""
    try:
        return named(load(name))
    except ConfigError:
        return f"{name} (no target of this bevrepro)"


def strongest(target: Target) -> Evidence | None:
    """The latest of the highest level; None where nothing was done yet."""
    ordered = in_order(target)
    return ordered[-1] if ordered else None


def in_order(target: Target) -> tuple[Evidence, ...]:
    """From the weakest level to the strongest, and by date within a level."""
    return tuple(sorted(target.evidence, key=lambda each: (LEVELS.index(each.level), each.date)))


def missing(target: Target) -> tuple[str, ...]:
    """Levels above the highest that was reached, which nobody has shown; a CPU target has no GPU level."""
    wanted = [level for level in LEVELS if level != "ran-on-gpu" or target.hardware.kind != "cpu"]
    wanted = [level for level in wanted if level != "compiled" or target.build.sdists]
    done = {each.level for each in target.evidence}
    highest = max((LEVELS.index(level) for level in done), default=-1)
    return tuple(level for level in wanted if LEVELS.index(level) > highest)
