"""Everything an environment is built from in one file, and that file opened again where there is no network.

bevrepro-bundle.json   target, Python, and the sha256 of every file
targets/ locks/ patches/   as this bevrepro ships them; another version's pack is refused
packages/              wheels and sdists, each with a hash of the lock
cuda/                  the packed files of the toolkit and of its g++, by the recipe's hashes
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

from bevrepro import __version__
from bevrepro.core.errors import ConfigError, DataError, DiskError
from bevrepro.core.paths import cache_dir, envs_dir, patches_dir
from bevrepro.core.units import size
from bevrepro.env import patchset
from bevrepro.env.bundle import Manifest, Packed, read_files, read_manifest, write_bundle
from bevrepro.env.downloads import Located, download_all, locate
from bevrepro.env.fetch import Event, OnEvent, silent
from bevrepro.env.index import Index
from bevrepro.env.interpreter import Interpreter
from bevrepro.env.pack_cuda import recipe_files
from bevrepro.env.plan import Locks, inputs_digest, read_locks
from bevrepro.env.target import Target
from bevrepro.env.tree import sha256_of

PACKAGES, CUDA = "packages", "cuda"
LOCKED = ("locks/", "patches/")
PYTHON = re.compile(r"3\.\d+\.\d+\w*")
ROOM_B = 64 << 20  # kept free beside what is written


@dataclass(frozen=True)
class Bundle:
    """An opened pack. `wheels` holds wheels and sdists; `cuda` the toolkit's packed files, if any."""

    root: Path
    wheels: Path
    cuda: Path | None
    manifest: Manifest


@dataclass(frozen=True)
class Planned:
    """What a pack will hold: packages to fetch, and what lies here by its place in the pack."""

    target: Target
    interpreter: Interpreter
    packages: tuple[Located, ...]
    shipped: Mapping[str, Path]


@dataclass(frozen=True)
class Done:
    """A pack that was written."""

    path: Path
    sha256: str
    size_b: int
    manifest: Manifest


def plan(target: Target, interpreter: Interpreter, index: Index) -> Planned:
    """What a pack will hold. The index is asked where each file lies, and nothing is fetched."""
    locks, unhashed = read_locks(target, interpreter)
    also = target.torch.index if target.torch else None
    main = locate(locks.pins.values(), target.build.sdists, interpreter, index, also, unhashed)
    build = locate(locks.build.values(), (), interpreter, index, also)
    return Planned(target, interpreter, tuple(dict.fromkeys([*main, *build])), shipped(target))


def pack(
    planned: Planned, out: Path, cuda: Mapping[str, Path] | None = None, on_event: OnEvent = silent
) -> Done:
    """Fetch what is not in the cache and write `out`, whole or not at all. `cuda`: files by their names.

    Raises what downloads raise; DiskError where `out` cannot be written.
    """
    target, python = planned.target, planned.interpreter
    try:
        fetched = download_all(planned.packages, on_event)
    except OSError as error:
        raise _disk_error(cache_dir(), error) from error
    files = {**planned.shipped, **{f"{PACKAGES}/{path.name}": path for path in fetched}}
    files.update({f"{CUDA}/{name}": path for name, path in (cuda or {}).items()})
    manifest = Manifest(
        target=target.name,
        python=python.version,
        platform=python.platform,
        cuda=target.cuda.version if target.cuda and cuda else None,
        inputs=_inputs(target, python),
        bevrepro=__version__,
        files=tuple(_packed(path, files[path]) for path in sorted(files)),
    )
    check(manifest, target)
    return Done(out, _write(manifest, files, out, on_event), out.stat().st_size, manifest)


def shipped(target: Target) -> dict[str, Path]:
    """Target, locks and patches as they lie here, by their place in a pack."""
    locks = envs_dir() / "locks"
    found = {f"targets/{target.path.name}": target.path}
    for part in ("", ".torch", ".build"):
        path = locks / f"{target.name}{part}.txt"
        if path.is_file():
            found[f"locks/{path.name}"] = path
    for name in target.patches:
        own = [patchset.SERIES, *(patch.file for patch in patchset.load(name).patches)]
        found.update({f"patches/{name}/{file}": patches_dir() / name / file for file in own})
    return found


@contextmanager
def unpacked(
    bundle: Path, target: Target, near: Path | None = None, on_event: OnEvent = silent
) -> Iterator[Bundle]:
    """The pack's files in a folder of their own beside `near` (the cache), removed again afterwards."""
    place = near or cache_dir()
    try:
        place.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix=".bundle-", dir=place)
    except OSError as error:
        raise _disk_error(place, error) from error
    try:
        yield unpack(bundle, Path(scratch), target, on_event)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def unpack(bundle: Path, into: Path, target: Target, on_event: OnEvent = silent) -> Bundle:
    """Every file of a pack into the empty folder `into`, compared with its manifest, the locks, the recipe.

    Raises DataError for a pack that is damaged, cut or of other content, ConfigError for one of another
    target or another bevrepro, DiskError.
    """
    with _opened(bundle) as file:
        manifest = read_manifest(file)
        check(manifest, target)
        _room(manifest, into)
        done = 0
        total = sum(each.size_b for each in manifest.files)

        def count(more: int) -> None:
            nonlocal done
            done += more
            on_event(_step("unpacking", done, total))

        try:
            read_files(manifest, file, lambda each: _create(into, each), count)
        except OSError as error:
            raise _disk_error(into, error) from error
    cuda = into / CUDA if manifest.cuda else None
    (into / PACKAGES).mkdir(exist_ok=True)
    return Bundle(into, into / PACKAGES, cuda, manifest)


def manifest_of(bundle: Path, target: Target) -> Manifest:
    """A pack's manifest, checked as `check` does; its files are not read."""
    with _opened(bundle) as file:
        manifest = read_manifest(file)
    check(manifest, target)
    return manifest


def check(manifest: Manifest, target: Target) -> None:
    """Whether a pack holds what this bevrepro builds the target from, and nothing else, by its manifest.

    Raises DataError, and ConfigError for a pack of another target or another bevrepro.
    """
    if manifest.target != target.name:
        raise ConfigError(
            f"the pack is of the target {manifest.target}, not {target.name}",
            do=f"bevrepro env build --target {manifest.target} --offline FILE",
        )
    by_path = {each.path: each for each in manifest.files}
    if not PYTHON.fullmatch(str(manifest.python)):
        raise _refused(f"it is for Python {manifest.python!r}")
    python = Interpreter("", manifest.python, "CPython", manifest.platform, "")
    _check_shipped(manifest, by_path, target)
    if manifest.inputs != _inputs(target, python):
        raise _of_another(manifest, f"targets/{target.name}.toml")
    locks, unhashed = read_locks(target, python)
    _check_packages(by_path, locks, unhashed)
    _check_cuda(by_path, target)
    known = (f"targets/{target.name}.toml", *LOCKED, f"{PACKAGES}/", f"{CUDA}/")
    strange = [path for path in by_path if not path.startswith(known) or path.count("/") > 2]
    if strange:
        raise _refused(f"it holds {strange[0]}, which no pack does")


def _check_shipped(manifest: Manifest, by_path: Mapping[str, Packed], target: Target) -> None:
    """Locks and patches byte for byte; what a target merely says of itself may have changed."""
    wanted = {path: sha256_of(file) for path, file in shipped(target).items() if path.startswith(LOCKED)}
    there = {path: each.sha256 for path, each in by_path.items() if path.startswith(LOCKED)}
    differ = sorted(path for path in {*wanted, *there} if wanted.get(path) != there.get(path))
    if differ:
        raise _of_another(manifest, differ[0])


def _of_another(manifest: Manifest, path: str) -> ConfigError:
    return ConfigError(
        f"the pack was made from another {path} than this bevrepro has",
        f"It is of bevrepro {manifest.bevrepro}, this is {__version__}: they would build differently.",
        f"Make it again with this bevrepro: bevrepro env pack --target {manifest.target} FILE",
    )


def _inputs(target: Target, python: Interpreter) -> str:
    locks, _ = read_locks(target, python)
    patches = tuple(patchset.load(name) for name in target.patches)
    return inputs_digest(target, locks, python, patches)


def _check_packages(by_path: Mapping[str, Packed], locks: Locks, unhashed: Iterable[str]) -> None:
    """Each file has a hash of the lock; each pin has a file."""
    wanted = {**locks.build, **locks.pins}
    both = (*locks.build.values(), *locks.pins.values())
    owner = {digest: pin.name for pin in both for digest in pin.hashes}
    free = {str(canonicalize_name(Requirement(line).name)) for line in unhashed}
    have = set()
    for path, each in by_path.items():
        if path.startswith(f"{PACKAGES}/"):
            name = owner.get(each.sha256) or name_of(path)
            if name is None or (each.sha256 not in owner and name not in free):
                raise _refused(f"{path} is not a file of the lock")
            have.add(name)
    missing = sorted({*wanted, *free} - have)
    if missing:
        raise _refused(f"it lacks {missing[0]}, which the lock has")


def name_of(path: str) -> str | None:
    """The package of a wheel's or sdist's file name, normalised; None for any other name."""
    file = path.rpartition("/")[2]
    try:
        return str((parse_wheel_filename if file.endswith(".whl") else parse_sdist_filename)(file)[0])
    except ValueError:
        return None


def _check_cuda(by_path: Mapping[str, Packed], target: Target) -> None:
    """Each file is one of the recipe's. What is only the members of a wheel is checked where it is used."""
    there = {path.partition("/")[2]: each for path, each in by_path.items() if path.startswith(f"{CUDA}/")}
    if there and target.cuda is None:
        raise _refused("it holds a CUDA toolkit, and the target has none")
    allowed = recipe_files(target.cuda.version) if target.cuda else {}
    for name, each in there.items():
        if name not in allowed or allowed[name] not in (None, each.sha256):
            raise _refused(f"cuda/{name} is not a file of the recipe")


def _write(manifest: Manifest, files: Mapping[str, Path], out: Path, on_event: OnEvent) -> str:
    out = out.expanduser().absolute()
    temporary = out.with_name(f".{out.name}.{os.getpid()}.new")
    sizes, done = {each.path: each.size_b for each in manifest.files}, 0

    def opened(path: str) -> BinaryIO:
        nonlocal done
        done += sizes[path]
        on_event(_step("packing", done, sum(sizes.values())))
        return open(files[path], "rb")

    try:
        with open(temporary, "wb") as file:
            digest = write_bundle(manifest, opened, file)
            file.flush()
        temporary.replace(out)
        return digest
    except OSError as error:
        raise _disk_error(out, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _step(task: str, done_b: int, total_b: int) -> Event:
    return {"event": "progress", "task": task, "done": -(-done_b // 1_000_000),
            "total": -(-total_b // 1_000_000), "text": "MB"}  # fmt: skip


def _packed(path: str, file: Path) -> Packed:
    digest = sha256_of(file)
    if digest is None:
        raise DataError(f"{file} cannot be read", do="Run the same command again.")
    return Packed(path, file.stat().st_size, digest)


@contextmanager
def _opened(bundle: Path) -> Iterator[BinaryIO]:
    try:
        file = open(bundle, "rb")
    except OSError as error:
        raise DataError(
            f"the pack {bundle} cannot be read: {error.strerror}",
            do="bevrepro env pack --target NAME FILE makes one.",
        ) from error
    with file:
        if not file.seekable():
            raise DataError(f"{bundle} is no file on a disk", do="Copy the pack to a file first.")
        yield file


def _create(into: Path, each: Packed) -> BinaryIO:
    path = into / each.path
    path.parent.mkdir(parents=True, exist_ok=True)
    return open(path, "xb")


def _room(manifest: Manifest, into: Path) -> None:
    needed_b = sum(each.size_b for each in manifest.files)
    free_b = shutil.disk_usage(into).free
    if needed_b + ROOM_B > free_b:
        raise DiskError(
            f"the pack unpacks to {size(needed_b)}, and {into} has {size(free_b)} free",
            "Nothing was unpacked.",
            "Free some space, or name another folder: export BEVREPRO_CACHE=...",
        )


def _refused(what: str) -> DataError:
    return DataError(
        f"the pack cannot be used: {what}",
        "Nothing of it was installed.",
        "Make it again: bevrepro env pack --target NAME FILE",
    )


def _disk_error(place: Path, error: OSError) -> DiskError:
    return DiskError(
        f"could not write {error.filename or place}: {error.strerror}",
        "No half pack and no half environment is left behind.",
        "Free some space or name another folder, then run the same command again.",
    )
