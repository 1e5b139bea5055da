"""uv as the resolver: a target's requirements in, hashed pins out, and its refusals as sentences."""

import json
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from bevrepro.core import proc
from bevrepro.core.errors import ConfigError, DiskError, MachineError, UserError
from bevrepro.env.index import Index
from bevrepro.env.index import uv as find_uv
from bevrepro.env.locking import Asked

TIMEOUT_S = 900.0
UNREACHABLE = re.compile(
    r"dns error|error sending request|Connection refused|timed out|tunnel|Could not connect|"
    r"Failed to fetch|client error|Name or service not known|Network is unreachable",
    re.IGNORECASE,
)
# warning: `x==1.0` is yanked (reason: "...")
_YANKED = re.compile(r"`([^`=]+==[^`]+)` is yanked(?: \(reason: \"(.*?)\"\))?")


@dataclass(frozen=True)
class Resolved:
    """uv's lines, and the pins among them whose authors withdrew them: (pin, reason)."""

    pins: str
    yanked: tuple[tuple[str, str], ...]


def command(asked: Asked, index: Index, *, upgrade: bool, constraint: bool) -> list[str]:
    """uv's arguments; the files they name are those of `write_inputs`."""
    argv = ["pip", "compile", "requirements.in", "--output-file", "pins.txt", "--generate-hashes"]
    argv += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    argv += ["--python", sys.executable]  # nothing is built, so uv need not look for the target's own
    if len(asked.pythons) == 1:
        platform = f"{asked.architecture}-manylinux_{asked.glibc.replace('.', '_')}"
        argv += ["--python-version", asked.pythons[0], "--python-platform", platform]
    else:
        argv += ["--universal", "--python-version", min(asked.pythons, key=_minor)]
    if asked.cutoff:
        argv += ["--exclude-newer", asked.cutoff]
    for name, day in sorted((asked.cutoff_of or {}).items()):
        argv += ["--exclude-newer-package", f"{name}={day}"]
    if asked.overrides:
        argv += ["--override", "overrides.in"]
    if constraint:
        argv += ["--constraint", "constraints.in"]
    argv += ["--only-binary", ":all:"]
    for name in asked.sdists:
        argv += ["--no-binary", name]
    return [*argv, *(["--upgrade"] if upgrade else []), *index.arguments()]


def write_inputs(asked: Asked, folder: Path, old_pins: str | None, constraints: str | None) -> None:
    """The files that `command` names. Pins of an old lock are kept by uv where they still satisfy."""
    marker = None if len(asked.pythons) == 1 else below(max(asked.pythons, key=_minor))
    lines = [with_marker(each, marker) if marker else each for each in asked.requirements]
    _write(folder / "requirements.in", lines)
    _write(folder / "overrides.in", asked.overrides)
    if constraints is not None:
        (folder / "constraints.in").write_text(constraints, encoding="utf-8")
    if old_pins is not None:
        (folder / "pins.txt").write_text(old_pins, encoding="utf-8")
    # uv.toml here and not --config-file: that one would hide the user's own with the mirror in it.
    (folder / "uv.toml").write_text(_static_metadata(asked), encoding="utf-8")


def resolve(
    asked: Asked,
    index: Index,
    *,
    old: str | None = None,
    constraints: str | None = None,
    upgrade: bool = False,
) -> Resolved:
    """Hashed pins for all that is asked.

    `old`: the text of the lock so far; `constraints`: pins that must not be contradicted. ConfigError where
    nothing satisfies the requirements, MachineError where the index does not answer or uv is missing.
    """
    uv = find_uv()
    argv = [str(uv), *command(asked, index, upgrade=upgrade, constraint=constraints is not None)]
    with tempfile.TemporaryDirectory(prefix="bevrepro-lock-") as name:
        folder = Path(name)
        write_inputs(asked, folder, None if upgrade else old, constraints)
        environ = {**index.environment(), "UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"}
        done = proc.run(argv, env=environ, cwd=folder, timeout_s=TIMEOUT_S)
        if not done.ok:
            raise explain(asked, done.stderr, index, done.timed_out)
        pins = (folder / "pins.txt").read_text(encoding="utf-8")
    return Resolved(pins, tuple(sorted(set(_YANKED.findall(done.stderr)))))


def explain(asked: Asked, said: str, index: Index, timed_out: bool = False) -> UserError:
    """uv's refusal as what was seen, why and what to do."""
    again = f"bevrepro env lock {asked.target} --index-url URL"
    text = " ".join(line.strip() for line in said.splitlines() if not line.startswith("warning"))
    reason = _shortened(re.sub(r"\s+", " ", text))
    if timed_out or (UNREACHABLE.search(text) and "No solution found" not in text):
        package = _package_in(text)
        asking = f"while asking for {package}" if package else f"while locking {asked.target}"
        return MachineError(
            f"the package index did not answer {asking} ({index.said()})",
            reason,
            f"Connect to the network, or name a mirror of the index: {again}",
        )
    undated = "filtered by `exclude-newer`" in text and "published at" not in text
    if "no publish time" in text or undated:
        return ConfigError(
            f"{index.said()} does not say when packages were uploaded, and target {asked.target} takes "
            f"nothing later than {asked.cutoff}",
            reason,
            f"Lock against an index that says so, which not every mirror does: {again}",
        )
    if "No solution found" in text:
        return ConfigError(
            f"the requirements of target {asked.target} cannot all be met",
            reason,
            f"Change a pin named above in envs/targets/{asked.target}.toml: another version, a later "
            "`cutoff_of`, or an entry of `overrides`.",
        )
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return DiskError(
            f"the disk became full while locking {asked.target}",
            f"{reason} The lock is as it was before.",
            "Free some space (TMPDIR and uv's cache count too), then run the same command again.",
        )
    return ConfigError(f"uv could not resolve target {asked.target}", reason)


def _package_in(text: str) -> str | None:
    """The package of uv's `Failed to fetch: .../simple/numpy/`."""
    found = re.search(r"/simple/([A-Za-z0-9._-]+)/", text) or re.search(r"`([A-Za-z0-9._-]+==[^`]+)`", text)
    return found.group(1) if found else None


def _shortened(text: str, length: int = 900) -> str:
    start = text.find("Because ")
    text = text[max(start, 0) :] if start >= 0 else text.removeprefix("error: ")
    return text if len(text) <= length else text[: length - 3] + "..."


def below(highest: str) -> str:
    """`python_full_version < '3.13'` for 3.12: it keeps later Pythons out of a lock with markers."""
    return f"python_full_version < '3.{_minor(highest) + 1}'"


def with_marker(requirement: str, marker: str) -> str:
    """The requirement with that marker beside its own."""
    name, _, own = requirement.partition(";")
    return f"{name.strip()}; {f'({own.strip()}) and {marker}' if own else marker}"


def _static_metadata(asked: Asked) -> str:
    """uv.toml. JSON's strings and arrays are TOML's as well."""
    blocks = []
    for name, version, requires in asked.metadata:
        rows = [f"name = {json.dumps(name)}", f"version = {json.dumps(version)}"]
        wanted = [str(Requirement(each)) for each in requires]
        blocks.append("\n".join(["[[dependency-metadata]]", *rows, f"requires-dist = {json.dumps(wanted)}"]))
    return "\n\n".join(blocks) + "\n"


def _write(path: Path, lines: tuple[str, ...] | list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _minor(version: str) -> int:
    return int(version.split(".")[1])
