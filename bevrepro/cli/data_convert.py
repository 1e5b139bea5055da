"""`bevrepro data convert`: prepared infos in another layout."""

from enum import Enum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from bevrepro.cli.data_common import Json, run_verb


class Layout(str, Enum):
    """What `--to` takes."""

    V0_17 = "0.17"
    V1_0 = "1.0"
    V1_1 = "1.1"
    TWIN = "twin"


class Convention(str, Enum):
    """What `--from` takes."""

    V0_17 = "0.17"
    V1_0 = "1.0"


def register(data: Typer) -> None:
    """Add the command."""
    data.command("convert")(convert_command)


def convert_command(
    source: Annotated[Path, Argument(metavar="IN", help="A .pkl of prepared infos, or a twin (.bev).")],
    target: Annotated[Path, Argument(metavar="OUT", help="A new .pkl, or a new folder .bev for the twin.")],
    to: Annotated[Layout, Option("--to", help="The mmdet3d that reads it, or the twin without pickle.")],
    convention: Annotated[
        Convention | None, Option("--from", help="Boxes as in this mmdet3d, where IN does not show it.")
    ] = None,
    force: Annotated[bool, Option("--force", help="Replace OUT.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Read and check everything, write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Write infos in the layout and box convention of mmdet3d 0.17, 1.0 or 1.1, or as the twin, no pickle."""
    options = [*(["--from", convention.value] if convention else []), *(["--force"] if force else [])]
    options += ["--dry-run"] if dry_run else []
    run_verb("convert", [source, target, "--to", to.value, *options], as_json)
