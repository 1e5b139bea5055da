"""A CUDA toolkit without root: assembled from packages into the cache, then linked to where it is wanted.

INTO/bin/nvcc ...            hard links to the cached tree (a copy on another disk)
INTO/host/bin/{gcc,g++}      the compilers that nvcc starts: the machine's, or fetched ones
INTO/bevrepro-cuda.json      the receipt
"""

import errno
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bevrepro.core.errors import ConfigError, DataError, DiskError, MachineError, UserError
from bevrepro.env import cuda_recipe, host_compiler, redist, toolkit_tree
from bevrepro.env.cuda_recipe import CompilerRecipe, Recipe, Source
from bevrepro.env.fetch import NotFetched, OnEvent, silent
from bevrepro.env.host_compiler import HostCompiler
from bevrepro.env.obtain import Sources
from bevrepro.env.toolkit_tree import HOST, RECEIPT, receipt_of

__all__ = ["Sources", "Toolkit", "make_toolkit", "read_toolkit", "recipe_digest"]

SAID = {
    "redist": "NVIDIA's redistributable archives",
    "deb": "Debian's package and wheels of the package index",
    "wheels": "wheels of the package index",
}


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

    def as_dict(self) -> dict[str, Any]:
        """What `--json` and other receipts hold of it."""
        gxx = str(self.host_compiler) if self.host_compiler else None
        return {
            "version": self.version,
            "home": str(self.home),
            "digest": self.digest,
            "source": self.source,
            "host_compiler": gxx,
            "environment": self.environment,
        }

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
    sources = sources or Sources()
    chosen = wanted(recipe, sources)
    _fits_here(recipe)
    into = into.expanduser().absolute()
    _may_take(into, recipe)
    if (there := _whole_at(into, recipe)) is not None:
        return there
    try:
        with toolkit_tree.locked_cache(on_event) as cache:
            tree = _tree(recipe, chosen, sources, cache, on_event)
            return _link(recipe, tree, into, _compiler(recipe, sources, cache, on_event))
    except OSError as error:
        raise DiskError(
            f"could not write {error.filename or into}: {error.strerror}",
            "What was downloaded before is kept; nothing half-made has the toolkit's name.",
            "Free some space or name another folder (--into, BEVREPRO_CACHE), then run it again.",
        ) from error


def plan(version: str, into: Path, sources: Sources) -> dict[str, Any]:
    """What `make_toolkit` would do, without asking any server. ConfigError as there."""
    recipe = cuda_recipe.load(version)
    chosen = wanted(recipe, sources)
    machine, said = host_compiler.found(recipe.newest_gcc)
    compiler = cuda_recipe.load_compiler(recipe.compiler)
    _may_take(into, recipe)
    return {
        "version": version,
        "into": str(into),
        "there": _whole_at(into, recipe) is not None,
        "recipe": recipe_digest(version),
        "sources": [_planned(source) for source in chosen],
        "host_compiler": str(machine.gxx) if machine else None,
        "host_compiler_said": said,
        "fetched_compiler": None if machine else _planned(Source("deb", compiler.parts)),
    }


def _planned(source: Source) -> dict[str, Any]:
    rows = [
        {"file": part.file, "sha256": part.sha256, "size_b": part.size, "partly": bool(part.members_sha256)}
        for part in source.parts
    ]
    return {"kind": source.kind, "size_b": source.size, "files": rows}


def read_toolkit(home: Path) -> Toolkit | None:
    """What lies in a folder by its receipt, unchecked; None where there is no toolkit of ours."""
    receipt = receipt_of(home)
    if receipt is None:
        return None
    gxx = home / HOST / "bin" / "g++"
    compiler = gxx if gxx.exists() else None
    return Toolkit(home, receipt["version"], receipt["digest"], compiler, receipt["source"])


def wanted(recipe: Recipe, sources: Sources) -> list[Source]:
    """The sources to try, in their order; one whose mirror was named comes first.

    ConfigError for a source that the recipe does not have.
    """
    have = {source.kind: source for source in recipe.sources}
    for kind in sources.kinds or ():
        if kind not in have:
            raise ConfigError(
                f"CUDA {recipe.version} cannot be made from {kind!r}",
                f"Its sources are: {', '.join(have)}.",
                f"bevrepro env cuda {recipe.version} --source {next(iter(have))}",
            )
    named = {"redist": sources.mirror, "deb": sources.deb_mirror}
    order = sources.kinds or sorted(have, key=lambda kind: not named.get(kind))
    return [have[kind] for kind in order]


def _fits_here(recipe: Recipe) -> None:
    here = f"{platform.system().lower()}-{platform.machine()}"
    if here != recipe.platform:
        raise MachineError(
            f"the recipe of CUDA {recipe.version} is for {recipe.platform}; this is {here}",
            "Its packages hold programs of that platform.",
            "Use the CUDA toolkit of this system, if it has one: export CUDA_HOME=...",
        )


def _may_take(into: Path, recipe: Recipe) -> None:
    """What is somebody else's, or another version, is never touched."""
    if into.is_symlink() or (into.exists() and not into.is_dir()):
        raise ConfigError(f"{into} is there and is no folder", "It is left as it is.", "Name another --into.")
    receipt = receipt_of(into)
    if receipt is not None and receipt["version"] != recipe.version:
        raise ConfigError(
            f"{into} holds CUDA {receipt['version']}, not {recipe.version}",
            "It may be in use and is left as it is.",
            "Name another --into, or remove it first.",
        )
    if receipt is None and into.is_dir() and any(into.iterdir()):
        raise ConfigError(
            f"{into} is there, holds files, and is no toolkit that bevrepro made",
            "It is left as it is.",
            "Name another --into, or a folder that does not exist yet.",
        )


def _whole_at(home: Path, recipe: Recipe) -> Toolkit | None:
    """The toolkit there, if it is this recipe's, nothing in it was changed, and its g++ still exists."""
    toolkit = read_toolkit(home)
    if toolkit is None or toolkit.host_compiler is None:
        return None
    same = (receipt_of(home) or {}).get("recipe") == recipe_digest(recipe.version)
    return toolkit if same and toolkit_tree.is_whole(home) else None


def _tree(recipe: Recipe, chosen: list[Source], sources: Sources, cache: Path, on_event: OnEvent) -> Path:
    """A whole tree: at hand in a folder or the cache, else from the first source that gives one."""
    if (tree := _at_hand(recipe, sources)) is not None:
        return tree
    for source in chosen:
        if (tree := toolkit_tree.cached(cache, recipe.version, source)) is not None:
            return tree
    tried: list[str] = []
    altered = False
    for source in chosen:
        on_event({"event": "note", "text": f"CUDA {recipe.version} from {SAID[source.kind]}."})
        try:
            if source.kind == "redist" and not sources.offline:
                redist.check_manifest(source, recipe.platform, sources.mirror)
            own, digest = recipe.version, recipe_digest(recipe.version)
            finish = _completion(recipe)
            return toolkit_tree.assemble(cache, own, source, sources, digest, finish, on_event)
        except NotFetched as error:
            tried += [f"- {source.kind}: {line}" for line in error.tried]
            altered = altered or error.altered
    raise _none_gave_it(recipe, tried, altered)


def _completion(recipe: Recipe) -> Callable[[Path], None]:
    def complete(tree: Path) -> None:
        for place, to in recipe.links:
            (tree / place).parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(tree / place):
                os.symlink(to, tree / place)
        (tree / "bin" / "nvcc.profile").write_text(cuda_recipe.profile(), encoding="utf-8")

    return complete


def _at_hand(recipe: Recipe, sources: Sources) -> Path | None:
    """A toolkit that lies in one of the folders as it was made, such as in an unpacked bundle."""
    for folder in sources.folders:
        for tree in (folder, folder / "cuda"):
            receipt = receipt_of(tree) or {}
            ours = receipt.get("recipe") == recipe_digest(recipe.version)
            if ours and receipt.get("version") == recipe.version and toolkit_tree.is_whole(tree):
                return tree
    return None


def _none_gave_it(recipe: Recipe, tried: list[str], altered: bool) -> UserError:
    kind = DataError if altered else MachineError
    return kind(
        f"CUDA {recipe.version} could not be had from any source that was tried",
        "\n".join(tried),
        "Name a mirror that can be reached: --mirror URL (of NVIDIA's compute/cuda/redist) or\n"
        "--deb-mirror URL (of Debian); of the package index: pip config set global.index-url URL",
    )


def _compiler(recipe: Recipe, sources: Sources, cache: Path, on_event: OnEvent) -> HostCompiler | Path | None:
    """The machine's g++, a tree with one, or None where there is neither: said, and no failure yet."""
    machine, said = host_compiler.found(recipe.newest_gcc)
    on_event({"event": "note", "text": said + "."})
    if machine is not None:
        return machine
    own = cuda_recipe.load_compiler(recipe.compiler)
    for folder in sources.folders:
        for tree in (folder / HOST, folder / "cuda" / HOST):
            if (receipt_of(tree) or {}).get("version") == own.name and toolkit_tree.is_whole(tree):
                return tree
    try:
        tree = _compiler_tree(own, sources, cache, on_event)
        if host_compiler.version_of(tree / "bin" / "g++") == own.major:
            return tree
        text = f"the fetched gcc {own.major} does not run here: it needs glibc {own.glibc} or newer"
        on_event({"event": "note", "text": f"{text}; install g++-{recipe.newest_gcc} or an older one."})
        return None
    except NotFetched as error:
        lines = "\n".join(f"- {line}" for line in error.tried)
        text = f"gcc {own.major} could not be fetched either, and without one nothing compiles:\n{lines}"
        on_event({"event": "note", "text": text})
        return None


def _compiler_tree(own: CompilerRecipe, sources: Sources, cache: Path, on_event: OnEvent) -> Path:
    source = Source("deb", own.parts)
    if (tree := toolkit_tree.cached(cache, own.name, source)) is not None:
        return tree
    complete = host_compiler.completion(own)
    return toolkit_tree.assemble(cache, own.name, source, sources, own.name, complete, on_event)


def _link(recipe: Recipe, tree: Path, into: Path, compiler: HostCompiler | Path | None) -> Toolkit:
    into.parent.mkdir(parents=True, exist_ok=True)
    _sweep(into)
    new = Path(tempfile.mkdtemp(prefix=f".{into.name}.new-", dir=into.parent))
    try:
        _mirror(tree, new)
        if isinstance(compiler, HostCompiler):
            host_compiler.install_links(new / HOST, compiler)
        elif compiler is not None:
            _mirror(compiler, new / HOST)
        receipt = receipt_of(tree) or {}
        (new / RECEIPT).unlink()  # it is a hard link as well
        toolkit_tree.write_receipt(new, {**receipt, "recipe": recipe_digest(recipe.version)})
        new.chmod(0o755)
        _switch(new, into)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return Toolkit(
        into,
        recipe.version,
        receipt["digest"],
        into / HOST / "bin" / "g++" if compiler is not None else None,
        receipt["source"],
    )


def _sweep(into: Path) -> None:
    """What a killed command left beside: the lock of the cache is held, so nobody is at it."""
    for left in into.parent.iterdir():
        if left.name.startswith((f".{into.name}.new-", f".{into.name}.old-")):
            shutil.rmtree(left)


def _mirror(tree: Path, new: Path) -> None:
    """The same files again by hard links, `host/` of a toolkit left out; copies on another disk."""
    for folder, below, names in os.walk(tree):
        if Path(folder) == tree and HOST in below:
            below.remove(HOST)
        place = new / Path(folder).relative_to(tree)
        place.mkdir(parents=True, exist_ok=True)
        for name in [*names, *(each for each in below if (Path(folder) / each).is_symlink())]:
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
