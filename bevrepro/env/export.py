"""A target for other tools: a pylock.toml (PEP 751), or an environment.yml of conda with a hashed pip part.

PEP 751 wants an address or a path for every file, and a lock of ours names neither, only hashes: so the index
that the user has set up is asked, or a pack gives the paths of its own files.
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from bevrepro import __version__
from bevrepro.core.errors import ConfigError, DataError
from bevrepro.core.paths import atomic_write_text, envs_dir
from bevrepro.env.bundle import Manifest
from bevrepro.env.downloads import ask
from bevrepro.env.evidence import badge
from bevrepro.env.index import Index
from bevrepro.env.interpreter import Interpreter, this_platform
from bevrepro.env.lockfile import Pin, read_lock
from bevrepro.env.pack import PACKAGES, name_of
from bevrepro.env.plan import read_locks
from bevrepro.env.target import Target
from bevrepro.env.wheels import requirement_lines
from bevrepro.probe.files import read_text

PYLOCK_NAME = re.compile(r"pylock(\.[^.]+)?\.toml")
MADE = "Made by bevrepro"
FILE_KEYS = ("name", "upload-time", "url", "path", "size", "hashes")


@dataclass(frozen=True)
class Exported:
    """Files to write, by their names: the main one first, then what it refers to."""

    files: Mapping[str, str]
    notes: tuple[str, ...]


def pylock(target: Target, index: Index, name: str | None = None) -> Exported:
    """pylock.<target>.toml with the addresses of the user's index, for every Python of the target here.

    Raises ConfigError for a file name that PEP 751 does not allow, DataError where the index has other
    files than the lock, MachineError where it cannot be asked.
    """
    file, pins = _pylock_name(target, name), _pins(target)
    packages: dict[tuple[str, str], dict[str, Any]] = {}
    pythons = _hashed_pythons(target)
    if not pythons:
        raise _unhashed(target, target.python[0])
    for minor in pythons:
        _add(packages, _asked(target, pins, minor, index), pins)
    rows = [packages[key] for key in sorted(packages)]
    urls = [str(each.get("url", "file:")) for row in rows for each in _files(row)]
    local = any(url.startswith("file:") for url in urls)
    notes = ["Some addresses are of this machine: the file is of use here only."] if local else []
    if pythons != target.python:
        notes.append(f"For Python {', '.join(pythons)} only: no hash of torch is known for others.")
    text = _text(target, rows, _python_range(pythons), [this_platform()])
    return Exported({file: text}, (*notes, *_not_carried(target)))


def _asked(target: Target, pins: Iterable[Pin], minor: str, index: Index) -> list[dict[str, Any]]:
    """Where the files for one Python lie. What the lock has no file of for it is left out."""
    markers = Interpreter("", f"{minor}.0", "CPython", "", "").markers()
    wanted = [pin for pin in pins if pin.wanted(markers)]
    lines = [f"{pin.name}=={pin.version}" for pin in wanted]
    also = target.torch.index if target.torch else None
    found = ask(
        lines, target.build.sdists, ["--python", sys.executable, "--python-version", minor], index, also
    )
    _complete(found, wanted)
    return found


def _hashed_pythons(target: Target) -> tuple[str, ...]:
    """Where torch has an index of its own, hashes are known for some Pythons only."""
    if target.torch is None:
        return target.python
    known = {wheel.python for wheel in target.torch.wheels}
    return tuple(minor for minor in target.python if minor in known)


def _add(
    packages: dict[tuple[str, str], dict[str, Any]], rows: Iterable[dict[str, Any]], pins: Sequence[Pin]
) -> None:
    """Files that are not there yet; the marker is the lock's."""
    for row in rows:
        key = (row["name"], row["version"])
        new, old = _only_locked(row, pins), packages.get(key)
        if old is None:
            packages[key] = new
        else:
            there = {each["hashes"]["sha256"] for each in old.get("wheels", ())}
            more = [each for each in new.get("wheels", ()) if each["hashes"]["sha256"] not in there]
            packages[key] = {**new, **old, **({"wheels": [*old["wheels"], *more]} if more else {})}


def pylock_of_pack(target: Target, manifest: Manifest, name: str | None = None) -> Exported:
    """The same with the paths of a pack that was unpacked beside it (`tar -xf`), for the pack's Python."""
    rows: dict[str, dict[str, Any]] = {}
    locks, _ = read_locks(target, Interpreter("", manifest.python, "CPython", manifest.platform, ""))
    for each in manifest.files:
        package = name_of(each.path) if each.path.startswith(f"{PACKAGES}/") else None
        pin = locks.pins.get(package or "")
        if pin is None or (pin.hashes and each.sha256 not in pin.hashes):
            continue  # what only builds sdists
        file = {"path": each.path, "size": each.size_b, "hashes": {"sha256": each.sha256}}
        kind = {"wheels": [file]} if each.path.endswith(".whl") else {"sdist": file}
        rows[pin.name] = {"name": pin.name, "version": pin.version, **kind}
    minor = _numbers(manifest.python)[:2]
    python = f"=={minor[0]}.{minor[1]}.*"
    text = _text(target, [rows[key] for key in sorted(rows)], python, [manifest.platform])
    notes = (f"Unpack the pack beside it first: tar -xf FILE {PACKAGES}", *_not_carried(target))
    return Exported({_pylock_name(target, name): text}, notes)


def conda(target: Target, name: str | None = None) -> Exported:
    """environment.yml with Python and pip, unlocked; the packages in a hashed requirements file beside it."""
    python = target.python[0]
    file = name or f"environment.{target.name}.yml"
    beside = f"{file.rpartition('.')[0] or file}.requirements.txt"
    locks, unhashed = read_locks(target, Interpreter("", f"{python}.0", "CPython", "linux-x86_64", ""))
    if unhashed:
        raise _unhashed(target, python)
    built = {str(canonicalize_name(each)) for each in target.build.sdists}
    pins = [locks.pins[key] for key in sorted(locks.pins) if key not in built]
    notes = _not_carried(target)
    lines = [
        f"# {target.title}",
        f"# {MADE} {__version__} from the target {target.name}.",
        "# UNLOCKED: which Python and pip conda takes is not decided here, for no channel was asked.",
        f"# The packages are locked: {beside} has their hashes, and has to lie beside this file.",
        *(f"# {note}" for note in notes),
        f"# PIP_NO_DEPS=1 conda env create -f {file}",
        f"name: bevrepro-{target.name}",
        "channels:",
        "  - conda-forge",
        "  - nodefaults",
        "dependencies:",
        f"  - python={python}",
        "  - pip",
        "  - pip:",
        f"      - -r {beside}",
    ]
    packages = f"# {MADE} {__version__} from the target {target.name}.\n" + requirement_lines(pins)
    return Exported({file: "\n".join(lines) + "\n", beside: packages}, notes)


def _unhashed(target: Target, python: str) -> ConfigError:
    return ConfigError(
        f"no hash of torch is known for Python {python}",
        "A lock without it would not install, or would install anything.",
        f"bevrepro env build --target {target.name} installs it and says so.",
    )


def _not_carried(target: Target) -> tuple[str, ...]:
    """How far the target was taken, and what the other tool will not do; `env build` does."""
    notes = [f"How far {target.name} was taken by bevrepro env build: {badge(target)}."]
    if target.build.sdists:
        notes.append(f"Built from source without isolation, in this order: {', '.join(target.build.sdists)}.")
    if target.patches:
        notes.append(f"To be patched: {', '.join(target.patches)} (bevrepro patch apply).")
    if target.cuda:
        notes.append(f"Needs nvcc of CUDA {target.cuda.version} (bevrepro env cuda {target.cuda.version}).")
    return tuple(notes)


def _pins(target: Target) -> list[Pin]:
    folder = envs_dir() / "locks"
    paths = [folder / f"{target.name}.txt", folder / f"{target.name}.torch.txt"]
    return [pin for path in paths if path.is_file() for pin in read_lock(path).pins]


def _only_locked(row: dict[str, Any], pins: Iterable[Pin]) -> dict[str, Any]:
    """A package of uv's with the files that the lock knows, and no others."""
    pin = next(pin for pin in pins if (pin.name, pin.version) == (row["name"], row["version"]))
    kept: dict[str, Any] = {"name": pin.name, "version": pin.version}
    if pin.marker:
        kept["marker"] = pin.marker
    files = [each for each in _files(row) if each.get("hashes", {}).get("sha256") in pin.hashes]
    wheels = [each for each in files if each is not row.get("sdist")]
    if not files:
        raise DataError(
            f"the index has {pin.name} {pin.version}, but no file of it that was locked",
            "A mirror or a proxy may serve another file under this name.",
            "Ask another one: --index-url URL",
        )
    if row.get("sdist") in files:
        kept["sdist"] = row["sdist"]
    return {**kept, "wheels": wheels} if wheels else kept


def _complete(packages: Iterable[Mapping[str, Any]], pins: Iterable[Pin]) -> None:
    there = {(row["name"], row["version"]) for row in packages}
    missing = [f"{pin.name} {pin.version}" for pin in pins if (pin.name, pin.version) not in there]
    if missing:
        raise DataError(f"uv left out {missing[0]}, which the lock has", do="bevrepro env lock --check")


def _files(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*row.get("wheels", ()), *([row["sdist"]] if "sdist" in row else [])]


def _pylock_name(target: Target, name: str | None) -> str:
    name = name or f"pylock.{target.name}.toml"
    if not PYLOCK_NAME.fullmatch(name):
        raise ConfigError(
            f"{name} is no name for a lock of PEP 751",
            "Installers read pylock.toml or pylock.NAME.toml, with no other dot.",
            f"--out pylock.{target.name.replace('.', '-')}.toml",
        )
    return name


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _python_range(pythons: Sequence[str]) -> str:
    lowest, highest = min(pythons, key=_numbers), max(pythons, key=_numbers)
    return f">={lowest},<{_numbers(highest)[0]}.{_numbers(highest)[1] + 1}"


def _platforms(platforms: Sequence[str]) -> list[str]:
    """Markers, of `linux-x86_64`."""
    pairs = (each.partition("-") for each in platforms)
    cpython = "implementation_name == 'cpython'"
    return [
        f"sys_platform == '{name}' and platform_machine == '{kind}' and {cpython}" for name, _, kind in pairs
    ]


def _text(
    target: Target, packages: Sequence[Mapping[str, Any]], python: str, platforms: Sequence[str]
) -> str:
    lines = [
        f"# {MADE} {__version__} from the target {target.name}.",
        'lock-version = "1.0"',
        f"environments = {_value(_platforms(platforms))}",
        f"requires-python = {_value(python)}",
        'created-by = "bevrepro"',
    ]
    for row in packages:
        lines += ["", "[[packages]]"]
        lines += [f"{key} = {_value(row[key])}" for key in ("name", "version", "marker") if key in row]
        if "sdist" in row:
            lines.append(f"sdist = {_value(_file(row['sdist']))}")
        if "wheels" in row:
            lines += ["wheels = [", *(f"    {_value(_file(each))}," for each in row["wheels"]), "]"]
    told: dict[str, Any] = {"version": __version__, "target": target.name, "evidence": badge(target)}
    told |= {"stack": target.stack}
    told |= {"build": list(target.build.sdists), "patches": list(target.patches)}
    told |= {"cuda": target.cuda.version} if target.cuda else {}
    lines += ["", "[tool.bevrepro]", *(f"{key} = {_value(value)}" for key, value in told.items())]
    return "\n".join(lines) + "\n"


def _file(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in FILE_KEYS if key in row}


def _value(value: Any) -> str:
    """As TOML writes it; everything that a pylock.toml holds."""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda hit: f"\\u{ord(hit[0]):04x}", escaped) + '"'
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(content)}" for key, content in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def write(exported: Exported, folder: Path) -> None:
    """Every file into `folder`, each whole. ConfigError where somebody's own file is there; DiskError."""
    for name in exported.files:
        path = folder / name
        if path.exists() and MADE not in (read_text(path) or ""):
            raise ConfigError(
                f"{path} is there, and bevrepro did not make it",
                "It is left alone.",
                "Name another file: --out FILE",
            )
    for name, text in exported.files.items():
        atomic_write_text(folder / name, text)
