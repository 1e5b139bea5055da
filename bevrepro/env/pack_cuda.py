"""The packed files of a CUDA toolkit and of its g++, for a pack: what `env cuda` would fetch, kept whole."""

from pathlib import Path

from bevrepro.core.errors import DiskError, MachineError
from bevrepro.core.paths import cache_dir
from bevrepro.env import cuda_recipe
from bevrepro.env.cuda_recipe import Part, Source
from bevrepro.env.fetch import NotFetched, OnEvent, silent
from bevrepro.env.obtain import Sources, members_file, obtain


def gather(version: str, sources: Sources | None = None, on_event: OnEvent = silent) -> dict[str, Path]:
    """Every file of the first source that gives all of them, by its name, checked by sha256.

    Raises ConfigError for an unknown version, MachineError naming what was tried, DiskError.
    """
    recipe, sources = cuda_recipe.load(version), sources or Sources()
    compiler = Source("deb", cuda_recipe.load_compiler(recipe.compiler).parts)
    tried: list[str] = []
    for source in recipe.sources:
        if sources.kinds is not None and source.kind not in sources.kinds:
            continue
        try:
            return {**_all(source, sources, on_event), **_all(compiler, sources, on_event)}
        except NotFetched as error:
            tried += [f"- {source.kind}: {line}" for line in error.tried]
        except OSError as error:
            raise DiskError(
                f"could not write {error.filename or cache_dir()}: {error.strerror}",
                "What was downloaded before is kept.",
                "Free some space or set BEVREPRO_CACHE, then run the same command again.",
            ) from error
    raise MachineError(
        f"the files of CUDA {version} could not be had from any source",
        "\n".join(tried),
        "Pack without --with-cuda: then the toolkit has to be there where it is built.",
    )


def recipe_files(version: str) -> dict[str, str | None]:
    """sha256 of every packed file that a toolkit may be made of; None for kept members of a wheel."""
    recipe = cuda_recipe.load(version)
    compiler = cuda_recipe.load_compiler(recipe.compiler)
    parts = [*(part for source in recipe.sources for part in source.parts), *compiler.parts]
    found: dict[str, str | None] = {part.file: part.sha256 for part in parts}
    found.update({members_file(part): None for part in parts if part.members_sha256})
    return found


def _all(source: Source, sources: Sources, on_event: OnEvent) -> dict[str, Path]:
    return dict(_one(part, source, sources, on_event) for part in source.parts)


def _one(part: Part, source: Source, sources: Sources, on_event: OnEvent) -> tuple[str, Path]:
    files = cache_dir() / "cuda" / "packed"
    got = obtain(part, source, sources, files, on_event)
    if got.file is not None:
        return part.file, got.file
    name = members_file(part)
    place = next(folder / name for folder in (files, *sources.folders) if (folder / name).is_file())
    return name, place
