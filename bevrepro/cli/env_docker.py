"""`bevrepro env docker`: a target as a container image."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import BadParameter, Option, Typer

if TYPE_CHECKING:
    from bevrepro.env.container import Recipe
    from bevrepro.env.container_context import Entry, Secrets


def register(env: Typer) -> None:
    """Add the command."""
    env.command("docker")(docker)


def docker(
    target: Annotated[str, Option("--target", metavar="NAME", help="See `env list`.")] = "cpu",
    build: Annotated[
        bool, Option("--build", help="Build it with docker, podman or buildah, whichever works.")
    ] = False,
    engine: Annotated[
        str | None, Option("--engine", metavar="NAME", help="That one and no other: docker, podman, buildah.")
    ] = None,
    base: Annotated[
        str | None, Option("--base", metavar="IMAGE", help="Another base: Debian 12, Ubuntu 22.04 or newer.")
    ] = None,
    out: Annotated[
        Path | None, Option("--out", metavar="FOLDER", help="Write everything that a build needs there.")
    ] = None,
    tag: Annotated[
        str | None, Option("--tag", metavar="NAME", help="The image's name. [default: bevrepro:TARGET]")
    ] = None,
    wheels: Annotated[
        list[Path] | None,
        Option("--wheels", metavar="FOLDER", help="Locked packages lie there as well; may be repeated."),
    ] = None,
    apt_sources: Annotated[
        Path | None,
        Option("--apt-sources", metavar="FILE", help="A sources.list with a mirror, for the build only."),
    ] = None,
    engine_option: Annotated[
        list[str] | None,
        Option("--engine-option", metavar="WORD", help="Hand it to the engine; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would be done.")] = False,
    as_json: Annotated[bool, Option("--json", help="Write the result as JSON to stdout.")] = False,
) -> None:
    """Print a target's Dockerfile, write it with all it needs to a folder, or build the image.

    Index settings, certificates and mirrors are handed to the build and never become part of the image.
    """
    from bevrepro.env import container, container_context, container_engine, index
    from bevrepro.env.target import load

    if not build and (engine or tag or engine_option or apt_sources):
        raise BadParameter("--engine, --tag, --apt-sources and --engine-option go with --build")
    if not build and out is None and wheels:
        raise BadParameter("--wheels goes with --out or --build")
    if engine is not None and engine not in container_engine.ENGINES:
        raise BadParameter(f"--engine is one of {', '.join(container_engine.ENGINES)}, not {engine!r}")
    wanted = load(target)
    recipe = container.make_recipe(wanted, base)
    text = container.render(recipe)
    if not build and out is None:
        _print_dockerfile(recipe, text, as_json)
        return
    own = index.configured()
    locks = (*container.locks_of(wanted), container_context.control_lock())
    container_context.refuse_absent(wheels or [])
    folders = [*(wheels or []), *container_context.local_folders(own)]
    packages = container_context.local_packages(folders, locks)
    if wheels and not {each.parent for each in packages} & set(wheels):
        _say("note: none of the files of --wheels has a hash of the lock: not taken along")
    files = container_context.entries(text, packages)
    if not build:
        assert out is not None
        _write(recipe, files, out, dry_run, as_json)
        return
    handed = container_context.secrets(own, os.environ, apt_sources)
    _build(recipe, files, handed, out, engine, tag, engine_option or [], dry_run, as_json)


def _print_dockerfile(recipe: "Recipe", text: str, as_json: bool) -> None:
    if as_json:
        from bevrepro.cli.calls import print_json

        print_json({**_summary(recipe), "dockerfile": text})
        return
    print(text, end="")
    _say_base(recipe)


def _write(recipe: "Recipe", files: "tuple[Entry, ...]", out: Path, dry_run: bool, as_json: bool) -> None:
    from bevrepro.env.container_context import refuse_foreign, write_context

    digest = None
    if dry_run:
        refuse_foreign(out)
    else:
        digest = write_context(files, out)
    if as_json:
        from bevrepro.cli.calls import print_json

        names = [each.path for each in files]
        print_json({**_summary(recipe), "out": str(out), "context_sha256": digest, "files": names})
        return
    print(f"{'Would write' if dry_run else 'Wrote'} {len(files)} files to {out}")
    _say_base(recipe)
    _say(f"docker build --tag {recipe.tag} {shlex.quote(str(out))}")


def _build(
    recipe: "Recipe",
    files: "tuple[Entry, ...]",
    handed: "Secrets",
    out: Path | None,
    asked: str | None,
    tag: str | None,
    options: list[str],
    dry_run: bool,
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from bevrepro.cli.calls import print_json
    from bevrepro.env import container_engine
    from bevrepro.env.container_context import write_context

    engine = container_engine.choose(asked)
    with container_engine.private_folder() as folder:
        context, work = out or Path(folder) / "context", Path(folder)
        plan = container_engine.command(
            engine, recipe, context.absolute(), work, tuple(handed.contents), tag or recipe.tag, options
        )
        if dry_run:
            told = {**_summary(recipe), "engine": engine.name, "command": list(plan.argv)}
            print_json(told) if as_json else print(shlex.join(plan.argv))
            return
        container_engine.refuse_full_disk(engine, recipe)
        digest = write_context(files, context)
        _say_base(recipe)
        for note in handed.notes:
            _say(f"note: {note}")
        built = container_engine.run(plan, handed.contents, work, _say)
    if as_json:
        print_json({**_summary(recipe), "context_sha256": digest, **asdict(built)})
    else:
        print(f"{built.tag} {built.image} ({built.seconds:.0f} s, {built.engine})")


def _summary(recipe: "Recipe") -> dict[str, Any]:
    return {
        "target": recipe.target,
        "file": recipe.file,
        "base": recipe.base,
        "base_pinned": recipe.pinned,
        "base_source": recipe.base_source,
        "lock_sha256": recipe.lock_sha256,
        "arguments": dict(recipe.arguments),
    }


def _say_base(recipe: "Recipe") -> None:
    if not recipe.pinned:
        why = f"{recipe.base} has no digest, so another day may bring another image"
        _say(f"note: {why} ({recipe.base_source})")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
