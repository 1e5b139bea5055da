"""What installed distributions ask for against what is there, as `pip check` does; overrides are declared."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from bevrepro.core.finding import Finding, Severity
from bevrepro.env.verify_packages import Dist, some
from bevrepro.probe.files import read_text

FIELD = "Requires-Dist:"


@dataclass(frozen=True)
class Unmet:
    """A requirement of `owner` that does not hold; `found` is the installed version, None where none is."""

    owner: str
    requirement: Requirement
    found: str | None

    @property
    def name(self) -> str:
        return str(canonicalize_name(self.requirement.name))

    def __str__(self) -> str:
        plain = f"{self.requirement.name}{self.requirement.specifier}"
        return f"{self.owner} asks for {plain} ({self.found or 'not installed'})"


def read_requires(root: Path, dists: Iterable[Dist]) -> dict[str, tuple[str, ...]]:
    """The lines of every distribution's metadata that name a requirement, by distribution."""
    return {each.name: requires_of(read_text(root / each.path / "METADATA") or "") for each in dists}


def requires_of(metadata: str) -> tuple[str, ...]:
    """The requirements of one METADATA text; what comes after its head is description. Pure."""
    head = metadata.partition("\n\n")[0]
    return tuple(line[len(FIELD) :].strip() for line in head.splitlines() if line.startswith(FIELD))


def unmet(
    dists: Iterable[Dist], requires: Mapping[str, tuple[str, ...]], markers: Mapping[str, str]
) -> tuple[Unmet, ...]:
    """Requirements that do not hold under these markers, extras left out. Pure."""
    versions = {each.name: each.version for each in dists}
    found = []
    for owner, lines in sorted(requires.items()):
        for line in lines:
            wanted = _parsed(line)
            if wanted is None or (wanted.marker and not wanted.marker.evaluate({**markers, "extra": ""})):
                continue
            version = versions.get(str(canonicalize_name(wanted.name)))
            if version is None or not wanted.specifier.contains(version, prereleases=True):
                found.append(Unmet(owner, wanted, version))
    return tuple(found)


def judge_requires(
    missed: Iterable[Unmet], overrides: Iterable[str], target: str | None
) -> Iterator[Finding]:
    """A note for what the target's overrides declare, a finding for the rest. Pure."""
    rules: dict[str, list[Requirement]] = {}
    for rule in filter(None, map(_parsed, overrides)):
        rules.setdefault(str(canonicalize_name(rule.name)), []).append(rule)
    declared: list[str] = []
    other: list[str] = []
    for each in missed:
        known = any(_declares(rule, each.found) for rule in rules.get(each.name, ()))
        (declared if known else other).append(str(each))
    if declared:
        yield Finding(
            "verify-override", "verify", Severity.INFO,
            f"{len(declared)} requirement(s) are not met, as the overrides of {target} say: {some(declared)}",
            "The target says what stands in their place.",
            "",
        )  # fmt: skip
    if other:
        yield Finding(
            "verify-requires", "verify", Severity.FAIL,
            f"{len(other)} requirement(s) are not met: {some(other)}",
            "What asks for them may stop at an import.",
            "Build the environment again.",
        )  # fmt: skip


def _declares(rule: Requirement, version: str | None) -> bool:
    """Whether the override allows that version; one with a marker that never holds allows its absence."""
    if version is None:
        return rule.marker is not None
    return rule.marker is not None or rule.specifier.contains(version, prereleases=True)


def _parsed(line: str) -> Requirement | None:
    # Old metadata holds lines that never were requirements; installers pass over them as well.
    try:
        return Requirement(line)
    except InvalidRequirement:
        return None
