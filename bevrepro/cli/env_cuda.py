"""`bevrepro env cuda [VERSION]`: a CUDA toolkit with nvcc, assembled without root."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, Typer

Json = Annotated[bool, Option("--json", help="Write the result as JSON to stdout.")]


class SourceKind(str, Enum):
    """One way to get a toolkit."""

    redist = "redist"
    deb = "deb"
    wheels = "wheels"


def register(env: Typer) -> None:
    """Add the command."""
    env.command("cuda")(cuda)


def cuda(
    version: Annotated[
        str | None, Argument(metavar="[VERSION]", help="11.8, say. By default the known ones are listed.")
    ] = None,
    into: Annotated[
        Path | None,
        Option("--into", metavar="DIR", help="Where to put it. By default cuda/VERSION in the data folder."),
    ] = None,
    source: Annotated[
        SourceKind | None, Option("--source", help="Take it only from there; else the first that is reached.")
    ] = None,
    mirror: Annotated[
        str | None, Option("--mirror", metavar="URL", help="A mirror or folder of NVIDIA's redistributables.")
    ] = None,
    deb_mirror: Annotated[
        str | None, Option("--deb-mirror", metavar="URL", help="A mirror of Debian; by default apt's own.")
    ] = None,
    arch: Annotated[str, Option("--arch", help="What the self-test compiles for.")] = "sm_80",
    dry_run: Annotated[bool, Option("--dry-run", help="Only show what would be fetched.")] = False,
    as_json: Json = False,
) -> None:
    """Assemble a CUDA toolkit without root, and compile and link a kernel with it."""
    if version is None:
        return _list(as_json)
    from bevrepro.env.layout import data_dir
    from bevrepro.env.toolkit import Sources

    home = (into or data_dir() / "cuda" / version).expanduser().absolute()
    sources = Sources((source.value,) if source else None, mirror, deb_mirror)
    if dry_run:
        return _plan(version, home, sources, as_json)
    _make(version, home, sources, arch, as_json)


def _make(version: str, home: Path, sources: Any, arch: str, as_json: bool) -> None:
    from bevrepro.cli.env_cuda_view import print_made
    from bevrepro.cli.progress import shown
    from bevrepro.env.cuda_recipe import check_arch
    from bevrepro.env.nvcc_check import check
    from bevrepro.env.toolkit import make_toolkit

    check_arch(version, arch)
    with shown(f"CUDA {version}") as on_event:
        toolkit = make_toolkit(version, home, sources, on_event)
    checked = check(toolkit.home, arch)
    if as_json:
        _json({**toolkit.as_dict(), "selftest": checked})
    else:
        print_made(toolkit, checked)


def _plan(version: str, home: Path, sources: Any, as_json: bool) -> None:
    from bevrepro.cli.env_cuda_view import print_plan
    from bevrepro.env.toolkit import plan

    planned = plan(version, home, sources)
    if as_json:
        _json(planned)
    else:
        print_plan(planned)


def _list(as_json: bool) -> None:
    from bevrepro.cli.env_cuda_view import print_known
    from bevrepro.env import cuda_recipe

    known = [cuda_recipe.load(version) for version in cuda_recipe.versions()]
    if as_json:
        _json({"toolkits": [cuda_recipe.summary(each) for each in known]})
    else:
        print_known([cuda_recipe.summary(each) for each in known])


def _json(value: Any) -> None:
    from bevrepro.cli.calls import print_json
    from bevrepro.core.codec import to_json

    print_json(to_json(value))
