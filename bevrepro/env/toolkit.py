"""A CUDA toolkit without root: assembled from packages into the cache, then linked to where it is wanted.

    cache/cuda/files/      what was downloaded, kept until the tree is whole
    cache/cuda/trees/      one folder per recipe and source, never changed once it has its name
    INTO/                  hard links to a tree (a copy on another disk), `host/` with the g++, the receipt

A tree is built beside under another name and renamed, so a killed command leaves either a whole one or none.
"""

import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bevrepro.core.errors import ConfigError, DataError, DiskError, MachineError
from bevrepro.core.paths import atomic_write_text, cache_dir
from bevrepro.env import cuda_recipe, host_compiler, redist
from bevrepro.env.cuda_recipe import CompilerRecipe, Part, Recipe, Source
from bevrepro.env.fetch import NotFetched, OnEvent, silent
from bevrepro.env.host_compiler import HostCompiler
from bevrepro.env.obtain import Obtained, Sources, content_digest, obtain
from bevrepro.env.tree import hash_tree
from bevrepro.env.unpack import take, write_members

RECEIPT = "bevrepro-cuda.json"
UNPACKED = 4  # a tree takes about this many times its packed files
__all__ = ["RECEIPT", "Sources", "Toolkit", "make_toolkit", "read_toolkit", "recipe_digest"]


@dataclass(frozen=True)
class Toolkit:
    """`home` is CUDA_HOME. `digest` is of its files but `host/` and the receipt, wherever `home` is.

    `host_compiler` is the g++ that nvcc starts by itself, `host/bin/g++` below `home`; None where none was
    found that this nvcc takes.
    """

    home: Path
    version: str
    digest: str
    host_compiler: Path | None
    source: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables for building operators with it, as torch's build tools read them."""
        own = {"CUDA_HOME": str(self.home)}
        if self.host_compiler is not None:
            gcc = self.host_compiler.with_name("gcc")
            own |= {"CC": str(gcc), "CXX": str(self.host_compiler), "CUDAHOSTCXX": str(self.host_compiler)}
        return own


def recipe_digest(version: str) -> str:
    """sha256 over all that decides what the toolkit becomes. ConfigError for an unknown version."""
    return cuda_recipe.recipe_digest(version)


def make_toolkit(
    version: str, into: Path, sources: Sources | None = None, on_event: OnEvent = silent
) -> Toolkit:
    """The toolkit in `into`: at once where it is there and whole, else from the cache, else fetched.

    Raises ConfigError (unknown version, `into` taken), MachineError (no source reachable: which were tried
    and why each failed), DataError (what came is not what was measured), DiskError.
    """
    recipe = cuda_recipe.load(version)
    _fits_here(recipe)
    sources = sources or Sources()
    into = into.expanduser().absolute()
    _may_take(into)
    if (there := _whole_at(into, recipe)) is not None:
        return there
    try:
        with _cache_locked(on_event) as cache:
            tree = _tree(recipe, sources, cache, on_event)
            return _link(recipe, tree, into, _compiler(recipe, sources, cache, on_event), on_event)
    except OSError as error:
        raise _disk_error(error, into) from error


def read_toolkit(home: Path) -> Toolkit | None:
    """What lies in a folder by its receipt, unchecked; None where there is no toolkit of ours."""
    receipt = _receipt(home)
    if receipt is None:
        return None
    gxx = home / "host" / "bin" / "g++"
    return Toolkit(
        home, receipt["version"], receipt["digest"], gxx if gxx.exists() else None, receipt["source"]
    )


def tree_digest(home: Path) -> str:
    """sha256 over path, kind and content of every file but `host/` and the receipt. Raises OSError."""
    rows = []
    for path, entry in hash_tree(home).items():
        if path != RECEIPT and not path.startswith("host/"):
            rows.append(f"{entry.sha256 or '-> ' + str(entry.link)} {entry.mode & 0o111:o} {path}\n")
    return hashlib.sha256("".join(sorted(rows)).encode("utf-8", "surrogateescape")).hexdigest()


def _fits_here(recipe: Recipe) -> None:
    here = f"{platform.system().lower()}-{platform.machine()}"
    if here != recipe.platform:
        raise MachineError(
            f"the recipe of CUDA {recipe.version} is for {recipe.platform}; this is {here}",
            "Its packages hold programs of that platform.",
            "Use the CUDA toolkit of this system, if it has one: export CUDA_HOME=...",
        )


def _may_take(into: Path) -> None:
    """A folder of somebody else's is never touched."""
    if into.is_symlink() or (into.exists() and not into.is_dir()):
        raise ConfigError(f"{into} is there and is no folder", "It is left as it is.", "Name another --into.")
    if into.is_dir() and _receipt(into) is None and any(into.iterdir()):
        raise ConfigError(
            f"{into} is there, holds files, and is no toolkit that bevrepro made",
            "It is left as it is.",
            "Name another --into, or a folder that does not exist yet.",
        )


def _whole_at(home: Path, recipe: Recipe) -> Toolkit | None:
    """The toolkit there, if it is this recipe's, nothing in it was changed, and its g++ still exists."""
    receipt = _receipt(home)
    if receipt is None:
        return None
    if receipt["version"] != recipe.version:
        raise ConfigError(
            f"{home} holds CUDA {receipt['version']}, not {recipe.version}",
            "It may be in use and is left as it is.",
            "Name another --into, or remove it first.",
        )
    toolkit = read_toolkit(home)
    if toolkit is None or toolkit.host_compiler is None:
        return None
    same = receipt["recipe"] == recipe_digest(recipe.version) and tree_digest(home) == receipt["digest"]
    return toolkit if same else None


def _receipt(home: Path) -> dict[str, Any] | None:
    try:
        receipt = json.loads((home / RECEIPT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(receipt, dict) and {"version", "digest", "source", "recipe"} <= set(receipt)
    return receipt if known else None


def _tree(recipe: Recipe, sources: Sources, cache: Path, on_event: OnEvent) -> Path:
    """A whole tree in the cache, from the first source that gives one."""
    wanted = _wanted(recipe, sources)
    for source in wanted:
        tree = _tree_path(cache, recipe.version, source.parts, source.kind)
        if _unchanged(tree):
            return tree
    tried: list[str] = []
    altered = False
    for source in wanted:
        on_event({"event": "note", "text": f"CUDA {recipe.version} from {_SAID[source.kind]}."})
        try:
            return _assemble(recipe, source, sources, cache, on_event)
        except NotFetched as error:
            tried += [f"{source.kind}: {line}" for line in error.tried]
            altered = altered or error.altered
    raise _none_reachable(recipe, tried, altered)


_SAID = {
    "redist": "NVIDIA's redistributable archives",
    "deb": "Debian's package and wheels of the package index",
    "wheels": "wheels of the package index",
}


def _wanted(recipe: Recipe, sources: Sources) -> list[Source]:
    have = {source.kind: source for source in recipe.sources}
    for kind in sources.kinds or ():
        if kind not in have:
            raise ConfigError(
                f"CUDA {recipe.version} cannot be made from {kind!r}",
                f"Its sources are: {', '.join(have)}.",
                f"bevrepro env cuda {recipe.version} --source {next(iter(have))}",
            )
    return [have[kind] for kind in sources.kinds or have]


def _none_reachable(recipe: Recipe, tried: list[str], altered: bool) -> Exception:
    lines = "\n".join(f"- {line}" for line in tried)
    kind = DataError if altered else MachineError
    return kind(
        f"CUDA {recipe.version} could not be had from any source that was tried",
        lines,
        "Name a mirror that can be reached: --mirror URL (NVIDIA's compute/cuda/redist),\n"
        "--deb-mirror URL (Debian), or pip's own setting for the package index: pip config set "
        "global.index-url URL",
    )


def _assemble(recipe: Recipe, source: Source, sources: Sources, cache: Path, on_event: OnEvent) -> Path:
    _room(cache, source.size)
    if source.kind == "redist" and not sources.offline:
        redist.check_manifest(source, recipe.platform, sources.mirror)
    parts = _obtain_all(source.parts, source, sources, cache, on_event)
    with _beside(cache) as (tree, scratch):
        _unpack(parts, tree, scratch, on_event)
        for place, to in recipe.links:
            (tree / place).parent.mkdir(parents=True, exist_ok=True)
            if not (tree / place).is_symlink():
                os.symlink(to, tree / place)
        (tree / "bin" / "nvcc.profile").write_text(cuda_recipe.profile(), encoding="utf-8")
        target = _tree_path(cache, recipe.version, source.parts, source.kind)
        _finish(tree, target, recipe.version, source.kind, recipe_digest(recipe.version), source.parts)
    _forget(parts, cache)
    return target


def _compiler(recipe: Recipe, sources: Sources, cache: Path, on_event: OnEvent) -> HostCompiler | Path | None:
    """The machine's g++, a tree with one, or None where there is neither: said, and no failure yet."""
    machine, said = host_compiler.found(recipe.newest_gcc)
    on_event({"event": "note", "text": said + "."})
    if machine is not None:
        return machine
    own = cuda_recipe.load_compiler(recipe.compiler)
    tree = _tree_path(cache, own.name, own.parts, "deb")
    if _unchanged(tree):
        return tree
    try:
        return _assemble_compiler(own, sources, cache, on_event)
    except NotFetched as error:
        lines = "\n  ".join(error.tried)
        text = f"gcc {own.major} could not be fetched either; nothing compiles until one is there:\n  {lines}"
        on_event({"event": "note", "text": text})
        return None


def _assemble_compiler(own: CompilerRecipe, sources: Sources, cache: Path, on_event: OnEvent) -> Path:
    source = Source("deb", own.parts)
    _room(cache, source.size)
    parts = _obtain_all(own.parts, source, sources, cache, on_event)
    with _beside(cache) as (tree, scratch):
        _unpack(parts, tree, scratch, on_event)
        host_compiler.write_wrappers(tree, own)
        target = _tree_path(cache, own.name, own.parts, "deb")
        _finish(tree, target, own.name, "deb", content_digest(own.parts), own.parts)
    _forget(parts, cache)
    return target


def _obtain_all(
    parts: tuple[Part, ...], source: Source, sources: Sources, cache: Path, on_event: OnEvent
) -> list[Obtained]:
    return [obtain(part, source, sources, cache / "files", on_event) for part in parts]


def _unpack(parts: list[Obtained], tree: Path, scratch: Path, on_event: OnEvent) -> None:
    for number, each in enumerate(parts, 1):
        if each.file is None:
            write_members(tree, list(each.members), each.part)
        else:
            folder = Path(tempfile.mkdtemp(dir=scratch))
            take(each.part, each.file, tree, folder)
            shutil.rmtree(folder)
        on_event({"event": "progress", "task": "unpack", "done": number, "total": len(parts)})


def _tree_path(cache: Path, name: str, parts: tuple[Part, ...], kind: str) -> Path:
    own = hashlib.sha256((content_digest(parts) + cuda_recipe.profile()).encode()).hexdigest()
    return cache / "trees" / f"{name}-{kind}-{own[:16]}"


def _unchanged(tree: Path) -> bool:
    """Whether a cached tree is as it was made; removed if not: a hard link to it may have been edited."""
    receipt = _receipt(tree)
    if receipt is None:
        return False
    if tree_digest(tree) == receipt["digest"]:
        return True
    shutil.rmtree(tree)
    return False


@contextmanager
def _beside(cache: Path) -> Iterator[tuple[Path, Path]]:
    """(an empty tree, a folder for scratch) in the cache, removed again unless renamed."""
    (cache / "trees").mkdir(parents=True, exist_ok=True)
    for left in (cache / "trees").glob(".new-*"):  # of a killed command: the lock is ours
        shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=cache / "trees"))
    try:
        for name in ("tree", "scratch"):
            (folder / name).mkdir()
        yield folder / "tree", folder / "scratch"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _finish(tree: Path, target: Path, version: str, kind: str, recipe: str, parts: tuple[Part, ...]) -> None:
    """Write the receipt, make all of it durable, and give the tree its name."""
    rows = [{"name": part.name, "version": part.version, "sha256": part.sha256} for part in parts]
    receipt = {
        "schema": 1,
        "version": version,
        "source": kind,
        "recipe": recipe,
        "digest": tree_digest(tree),
        "parts": rows,
    }
    atomic_write_text(tree / RECEIPT, json.dumps(receipt, indent=1) + "\n")
    os.sync()  # thousands of small files: one call is faster than one for each
    if target.exists():
        shutil.rmtree(target)
    os.rename(tree, target)


def _forget(parts: list[Obtained], cache: Path) -> None:
    """The tree is whole: its packed files would only take up space."""
    shutil.rmtree(cache / "files", ignore_errors=True)


def _link(
    recipe: Recipe, tree: Path, into: Path, compiler: HostCompiler | Path | None, on_event: OnEvent
) -> Toolkit:
    into.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{into.name}.new-", dir=into.parent))
    try:
        _mirror(tree, new)
        if isinstance(compiler, HostCompiler):
            host_compiler.install_links(new, compiler)
        elif compiler is not None:
            _mirror(compiler, new / "host")
        receipt = {**(_receipt(tree) or {}), "recipe": recipe_digest(recipe.version)}
        atomic_write_text(new / RECEIPT, json.dumps(receipt, indent=1) + "\n")
        new.chmod(0o755)
        _switch(new, into)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    done = read_toolkit(into)
    assert done is not None
    return done


def _mirror(tree: Path, new: Path) -> None:
    """The same files again by hard links; copies where `new` is on another disk."""
    for folder, _, names in os.walk(tree):
        place = new / Path(folder).relative_to(tree)
        place.mkdir(parents=True, exist_ok=True)
        links = [name for name in os.listdir(folder) if (Path(folder) / name).is_symlink()]
        for name in {*names, *links} - {RECEIPT}:
            _same(Path(folder) / name, place / name)


def _same(file: Path, place: Path) -> None:
    if file.is_symlink():
        os.symlink(os.readlink(file), place)
        return
    try:
        os.link(file, place)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copy2(file, place)


def _switch(new: Path, into: Path) -> None:
    """`into` becomes `new`; a broken toolkit of ours that was there goes, an empty folder too."""
    if not into.exists():
        os.rename(new, into)
        return
    old = into.with_name(f".{into.name}.old-{os.getpid()}")
    os.rename(into, old)
    try:
        os.rename(new, into)
    except OSError:
        os.rename(old, into)
        raise
    shutil.rmtree(old)


@contextmanager
def _cache_locked(on_event: OnEvent) -> Iterator[Path]:
    cache = cache_dir() / "cuda"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        handle = os.open(cache / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise DiskError(
            f"the cache {cache} cannot be written: {error.strerror}",
            "A toolkit is assembled there first.",
            "Name another folder: export BEVREPRO_CACHE=...",
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_event({"event": "note", "text": "Another command assembles a toolkit; waiting for it."})
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield cache
    finally:
        os.close(handle)


def _room(cache: Path, packed_b: int) -> None:
    free_b = shutil.disk_usage(cache).free
    needed_b = packed_b * (1 + UNPACKED)
    if free_b < needed_b:
        raise DiskError(
            f"{cache} has {free_b / 2**20:.0f} MiB free; the toolkit needs {needed_b / 2**20:.0f} MiB",
            "Packed files and the tree lie there together for a while.",
            "Free some space, or name another folder: export BEVREPRO_CACHE=...",
        )


def _disk_error(error: OSError, into: Path) -> DiskError:
    return DiskError(
        f"could not write {error.filename or into}: {error.strerror}",
        "What was downloaded before is kept; nothing half-made has the toolkit's name.",
        "Free some space or name another folder (--into, BEVREPRO_CACHE), then run the same command again.",
    )
