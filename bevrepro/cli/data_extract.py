"""`bevrepro data extract`: tables, maps and CAN data as a folder."""

from pathlib import Path
from typing import Annotated

from typer import Option, Typer

from bevrepro.cli.data_common import DryRun, Json, Roots, run_verb


def register(data: Typer) -> None:
    """Add the command."""
    data.command("extract")(extract_command)


def extract_command(
    data_root: Roots,
    out: Annotated[Path, Option("--out", help="A new or an empty folder.")],
    only: Annotated[
        list[str] | None, Option("--only", help="A folder in the data, such as can_bus; may be repeated.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Write tables, maps and CAN data to a folder, for the devkit where nothing can be mounted.

    Pictures and clouds stay in the archives: training and `bevrepro eval` read them there.
    """
    from bevrepro.data.roots import resolve

    roots = [word for root in resolve(data_root) for word in ("--data-root", root)]
    chosen = [word for folder in only or [] for word in ("--only", folder)]
    run_verb("extract", [*roots, "--out", out, *chosen, *(["--dry-run"] if dry_run else [])], as_json)
