"""Making a target's locks again and comparing them with what is there; only `write` writes."""

from dataclasses import dataclass

from bevrepro.core.errors import ConfigError
from bevrepro.core.paths import atomic_write_text
from bevrepro.env.index import Index
from bevrepro.env.lockfile import Pin, parse_lock
from bevrepro.env.locking import Asked, Problem, asked_of, body_of, render, torch_pins
from bevrepro.env.resolver import resolve
from bevrepro.env.target import Target


@dataclass(frozen=True)
class Made:
    """A lock's new text beside its old one. `yanked`: pins whose authors withdrew them, and why."""

    asked: Asked
    text: str
    old: str | None
    yanked: tuple[tuple[str, str], ...] = ()

    @property
    def changed(self) -> bool:
        return self.text != self.old

    def changes(self) -> list[str]:
        """`numpy 1.26.3 -> 1.26.4`, `new: x 1.0`, `gone: y 2.0`, by name."""
        before, after = (_versions(self.asked, text) for text in (self.old, self.text))
        lines = [f"new: {name} {version}" for name, version in after.items() if name not in before]
        lines += [f"gone: {name} {version}" for name, version in before.items() if name not in after]
        both = sorted(set(before) & set(after))
        return lines + [
            f"{name} {before[name]} -> {after[name]}" for name in both if before[name] != after[name]
        ]


def relock(target: Target, index: Index, *, upgrade: bool = False) -> tuple[Made, ...]:
    """Every lock of the target, resolved. ConfigError and MachineError as `resolver.resolve` has them.

    A pin of the old lock is kept where it still satisfies, unless `upgrade`. The build lock never
    contradicts the first one, because both are installed in one environment.
    """
    made: list[Made] = []
    for asked in asked_of(target):
        old = _old_text(asked)
        if asked.kind == "torch":
            made.append(Made(asked, render(asked, torch_pins(target)), old))
            continue
        constraints = body_of(made[0].text) if asked.kind == "build" else None
        keep = None if old is None else body_of(old)
        result = resolve(asked, index, old=keep, constraints=constraints, upgrade=upgrade)
        made.append(Made(asked, render(asked, result.pins), old, result.yanked))
    return tuple(made)


def refuse_yanked(made: Made) -> None:
    """ConfigError for a pin that was withdrawn, unless the target says that it is kept all the same."""
    for pin, reason in made.yanked:
        if pin not in made.asked.yanked:
            raise ConfigError(
                f"{pin}, in the lock of target {made.asked.target}, was yanked"
                + (f": {reason}" if reason else " without a reason"),
                "Its authors withdrew it, and indexes may stop serving it.",
                f"Take another version in envs/targets/{made.asked.target}.toml, or name it there under "
                f'[lock]: yanked = ["{pin}"]',
            )


def problems(made: Made) -> list[Problem]:
    """What resolving again says about the lock that is there, for `env lock --check --resolve`."""
    name, again = made.asked.path.name, f"bevrepro env lock {made.asked.target}"
    found = [
        Problem(name, "yanked", f"{pin} was yanked: {reason or 'no reason is given'}", again)
        for pin, reason in made.yanked
        if pin not in made.asked.yanked
    ]
    if made.changed:
        told = "; ".join(made.changes()[:5]) or "other hashes or markers"
        found.append(Problem(name, "differs", f"resolved again, {name} is another one: {told}", again))
    return found


def write(made: Made) -> None:
    """The lock in its place, whole or not at all. DiskError where it cannot be written."""
    atomic_write_text(made.asked.path, made.text)


def _old_text(asked: Asked) -> str | None:
    try:
        return asked.path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _versions(asked: Asked, text: str | None) -> dict[str, str]:
    """name -> version, or several by a comma where markers choose; empty for what is no lock."""
    found: dict[str, list[str]] = {}
    try:
        pins: tuple[Pin, ...] = parse_lock(text or "", asked.path).pins
    except ConfigError:
        return {}
    for pin in pins:
        found.setdefault(pin.name, []).append(pin.version)
    return {name: ", ".join(versions) for name, versions in sorted(found.items())}
