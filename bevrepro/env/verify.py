"""Is an environment still what was installed? Reads it anew each time and judges every file.

Versions against the lock, files against RECORD, RECORD against the receipt's digest, links, bytecode, the
interpreter beneath. Nothing of what the environment holds is imported: its interpreter is started without
site-packages, and only to say its version.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bevrepro.core import proc
from bevrepro.core.errors import ChildError, ConfigError, MachineError, UserError
from bevrepro.core.finding import Finding, Severity
from bevrepro.core.paths import envs_dir
from bevrepro.env import locking, patching, patchset, toolkit_tree
from bevrepro.env.bytecode import loadable, read_headers, source_of
from bevrepro.env.digest import digest_of
from bevrepro.env.interpreter import Interpreter
from bevrepro.env.layout import CUDA, RECEIPT, STEPS
from bevrepro.env.lockfile import Pin, read_lock
from bevrepro.env.record_file import Record, read_record
from bevrepro.env.target import load
from bevrepro.env.tree import Entry, hash_tree, sha256_of
from bevrepro.env.verify_files import Files, FileSeen, Patched, judge_files
from bevrepro.env.verify_links import judge_links
from bevrepro.env.verify_packages import Dist, Locked, installed, judge_packages, some
from bevrepro.env.verify_receipt import Now, judge_receipt, no_receipt, parse
from bevrepro.env.verify_requires import judge_requires, read_requires, unmet
from bevrepro.probe.files import globbed, key_values, read_text

ASK = "import json, platform; print(json.dumps(platform.python_version()))"
ASK_S, DEEP_S = 30.0, 1800.0
WHOLE_B = 64 << 20  # of the child's list: 300,000 forged files
CHILD = Path(__file__).with_name("_bytecode_child.py")
MEANING = {
    "edited": ("were edited", "Nobody else has these changes."),
    "gone": ("are gone", "Imports stop at the gap."),
    "unreadable": ("cannot be read", "Nobody can tell what they hold."),
    "extra": ("belong to no package", "Python imports them all the same."),
    "bytecode": ("are bytecode that Python does not compare with a source", "It runs unseen code."),
    "forged": ("are bytecode that is not what its source compiles to", "Python runs it, not the source."),
    "clash": ("were installed by two packages, unlike", "Which one came last is chance."),
    "odd": ("are neither files nor links", "No package installs such."),
    "patched": ("are patched", "As the target wants it."),
    "patch-edited": ("are not what their patch makes of them", "Somebody edited them after the patch."),
    "slip": ("differ from RECORD since they were installed", "Their makers' slip, or two packages' file."),
    "unpatched": ("lack their patch", "The patch was reverted."),
}
HARMLESS = ("patched", "slip")


@dataclass(frozen=True)
class Report:
    """What was found. `clean` where nothing but notes was."""

    path: str
    target: str | None
    python: str | None
    digest: str
    packages: int
    files: int
    size_b: int
    findings: tuple[Finding, ...]
    seen: tuple[FileSeen, ...]

    @property
    def clean(self) -> bool:
        return all(each.severity is Severity.INFO for each in self.findings)


def verify(prefix: Path, target: str | None = None, deep: bool = False) -> Report:
    """Compare the environment at `prefix` with its records. `target` where the receipt does not say it.
    `deep` compiles every source anew, for its bytecode: a minute.

    Raises ConfigError where there is no environment or a part of it cannot be read.
    """
    root = _root(prefix)
    told, why = parse(read_text(root / RECEIPT))
    entries = _hashed(root)
    sites = tuple(str(site.relative_to(root)) for site in globbed(root, "lib/python3*/site-packages"))
    if not sites:
        raise ConfigError(
            f"{root} is no Python environment: it has no lib/python3*/site-packages",
            do="bevrepro env build makes one.",
        )
    target = target or (str(told["target"]) if told else None)
    python, trouble = _python(root)
    files = _files(root, entries, sites, told)
    seen = judge_files(files) + (forged(root, files) if deep and python else ())
    locked, lock_findings = _locked(target, python)
    dists = installed(entries, sites)
    digest = digest_of(entries)
    findings = [
        *trouble,
        *lock_findings,
        *judge_packages(dists, locked, told["packages"] if told else None),
        *(_requirements(root, dists, target, python) if python else ()),
        *_broken_records(files.records),
        *file_findings(seen),
        *judge_links(entries, root),
        *(judge_receipt(told, _now(root, told, entries, digest, python)) if told else [no_receipt(why)]),
    ]
    size_b = sum(each.size_b for each in entries.values() if each.sha256)
    hashed = sum(1 for each in entries.values() if each.sha256)
    return Report(str(root), target, python, digest, len(dists), hashed, size_b, tuple(findings), seen)


def _root(prefix: Path) -> Path:
    try:
        return prefix.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"there is no environment at {prefix}", do="bevrepro env build makes one, env list shows which."
        ) from error


def _hashed(root: Path) -> dict[str, Entry]:
    try:
        return hash_tree(root)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or root} cannot be read: {error.strerror}",
            "What cannot be read cannot be verified.",
            f"chmod -R u+rX {root}",
        ) from error


def _files(
    root: Path, entries: Mapping[str, Entry], sites: tuple[str, ...], told: Mapping[str, Any] | None
) -> Files:
    records = tuple(
        read_record(root, path)
        for path, entry in entries.items()
        if path.endswith(".dist-info/RECORD") and path.rsplit("/", 2)[0] in sites and entry.sha256
    )
    rare = {
        (row.path, row.algorithm): _other(root, row.path, row.algorithm)
        for record in records
        for row in record.rows
        if row.algorithm not in (None, "sha256")
    }
    compiled = (path for path, entry in entries.items() if entry.compiled)
    return Files(
        entries,
        records,
        sites,
        read_headers(root, compiled),
        patched_files(told, sites),
        dict(rare),
        dict((told or {}).get("slips") or {}),
    )


def _other(root: Path, path: str, algorithm: str) -> str | None:
    return sha256_of(root / path, algorithm)


def patched_files(told: Mapping[str, Any] | None, sites: tuple[str, ...]) -> dict[str, Patched]:
    """Files that the receipt's patch sets change after installation, relative to the environment."""
    found = {}
    for each in told["patches"] if told else ():
        try:
            wanted = patchset.load(str(each.get("set")))
        except UserError:
            continue  # judge_receipt says that the set is not there
        if wanted.stage == "installed":
            for path, digest in patching.patched_files(wanted).items():
                found.update({f"{site}/{path}": Patched(wanted.name, digest) for site in sites})
    return found


def forged(root: Path, files: Files) -> tuple[FileSeen, ...]:
    """Bytecode that Python would run and that is not what its source compiles to, by its own compiler.

    ChildError where that interpreter dies of it.
    """
    pairs = [
        [f"{root}/{path}", f"{root}/{source_of(path)}"]
        for path, header in files.headers.items()
        if "-pytest-" not in path and loadable(path, header, files.entries)
    ]
    argv: list[str | Path] = [root / "bin/python", "-I", "-S", CHILD]
    done = proc.run(argv, input_text=json.dumps(pairs), timeout_s=DEEP_S, whole_b=WHOLE_B)
    if not done.ok:
        raise ChildError(
            f"the interpreter of {root} stopped while it compared bytecode: {done.stderr[-300:] or done.rc}",
            "Bytecode that crashes the reader was not made by Python.",
            f"find {root} -name '*.pyc' -delete",
        )
    found = ((path.removeprefix(f"{root}/"), why) for path, why in json.loads(done.stdout))
    return tuple(FileSeen("forged", path, "", why) for path, why in found)


def _broken_records(records: Iterable[Record]) -> Iterator[Finding]:
    for record in records:
        if record.wrong:
            yield _fail("record", f"the RECORD of {record.name} is damaged: {some(list(record.wrong))}",
                        "It was edited, or written by a broken installer.")  # fmt: skip


def file_findings(seen: Iterable[FileSeen]) -> Iterator[Finding]:
    """One finding for each kind and package."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for each in seen:
        said = each.said if each.kind == "patched" else ""
        groups.setdefault((each.kind, each.owner, said), []).append(each.path)
    for (kind, owner, said), paths in sorted(groups.items()):
        what, why = MEANING[kind]
        of = f" of {owner.removesuffix('.dist-info')}" if owner else ""
        finding = _fail(kind, f"{len(paths)} file(s){of} {said or what}: {some(paths)}", why)
        yield replace(finding, severity=Severity.INFO, remedy="") if kind in HARMLESS else finding


def _locked(target: str | None, python: str | None) -> tuple[Locked | None, list[Finding]]:
    """The target's lock as it holds for this Python; a finding where it cannot be compared."""
    if target is None or python is None:
        return None, []
    folder = envs_dir() / "locks"
    paths = [folder / f"{target}{part}.txt" for part in ("", ".torch", ".build")]
    try:
        pins = [_pins(path, python) if path.exists() else {} for path in paths]
    except UserError as error:
        return None, [_fail("lock", error.seen, error.why)]
    if not pins[0]:
        return None, [_fail("lock", f"there is no lock of {target}", "Versions were compared with nothing.")]
    return Locked(target, {**pins[0], **pins[1]}, pins[2]), []


def _requirements(root: Path, dists: tuple[Dist, ...], target: str | None, python: str) -> Iterator[Finding]:
    """What packages ask of each other, but for what the target overrides."""
    try:
        asked = locking.asked_of(load(target))[0] if target else None
    except UserError:
        asked = None  # no such target any more, or no checkout: then nothing is declared
    missed = unmet(dists, read_requires(root, dists), Interpreter("", python, "CPython", "", "").markers())
    yield from judge_requires(missed, asked.overrides if asked else (), target)


def _pins(path: Path, python: str) -> dict[str, Pin]:
    return read_lock(path).for_environment(Interpreter("", python, "CPython", "", "").markers())


def _python(root: Path) -> tuple[str | None, list[Finding]]:
    """What the environment's interpreter says of itself, against pyvenv.cfg."""
    noted = key_values(read_text(root / "pyvenv.cfg"), "=")
    wanted = noted.get("version_info") or noted.get("version") or ""
    try:
        done = proc.run([root / "bin/python", "-I", "-S", "-c", ASK], timeout_s=ASK_S)
        version = str(json.loads(done.stdout)) if done.ok else None
    except (MachineError, ValueError):
        version = None
    if version is None:
        why = f"It was built on {noted.get('home', 'an interpreter')} {wanted}, which was moved or removed."
        return None, [_fail("python", f"{root}/bin/python does not start", why)]
    if wanted and ".".join(wanted.split(".")[:3]) != version:
        seen = f"its interpreter is Python {version}, pyvenv.cfg says {wanted}"
        return version, [_fail("python", seen, "It was replaced beneath: compiled packages may crash.")]
    return version, []


def _now(
    root: Path, told: Mapping[str, Any], entries: Mapping[str, Entry], digest: str, python: str | None
) -> Now:
    """Everything the receipt speaks of, found out anew."""
    return Now(
        path=str(root),
        folder=root.name,
        digest=digest,
        locks={name: sha256_of(envs_dir() / name) for name in map(str, told["locks"])},
        patches={name: _patch_digest(name) for name in _sets(told)},
        steps=_steps(root),
        python=python,
        cuda=toolkit_digest(entries) if told.get("cuda") else None,
    )


def _sets(told: Mapping[str, Any]) -> list[str]:
    return [str(each.get("set")) for each in told["patches"]]


def _patch_digest(name: str) -> str | None:
    try:
        return patchset.digest(patchset.load(name))
    except UserError:
        return None


def _steps(root: Path) -> dict[str, str | None]:
    found = {}
    for path in globbed(root / STEPS, "*.json"):
        try:
            told = json.loads(read_text(path) or "")
            found[str(told["name"])] = told.get("digest")
        except (ValueError, KeyError, TypeError):
            found[path.stem.partition("-")[2]] = None
    return found


def toolkit_digest(entries: Mapping[str, Entry]) -> str | None:
    """The digest of the CUDA toolkit in the environment, as its builder counts; None where there is none."""
    inside = {path[len(CUDA) + 1 :]: entry for path, entry in entries.items() if path.startswith(f"{CUDA}/")}
    return toolkit_tree.digest_of(inside) if inside else None


def _fail(kind: str, seen: str, why: str) -> Finding:
    return Finding(f"verify-{kind}", "verify", Severity.FAIL, seen, why, "Build the environment again.")
