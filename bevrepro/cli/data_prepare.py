"""`bevrepro data prepare`: tables to what training reads."""

from pathlib import Path
from typing import Annotated

from typer import Option, Typer

from bevrepro.cli.data_common import Json, Roots, run_verb


def register(data: Typer) -> None:
    """Add the command."""
    data.command("prepare")(prepare_command)


def prepare_command(
    data_root: Roots,
    out: Annotated[Path, Option("--out", help="Folder for the infos; never inside the data.")],
    version: Annotated[
        str | None, Option("--version", help="Folder of the tables; the only one there if left out.")
    ] = None,
    no_can_bus: Annotated[
        bool, Option("--no-can-bus", help="Go on without CAN data; this changes the result.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write nuscenes_infos_temporal_{train,val}.pkl from the tables and the CAN bus."""
    from bevrepro.data.roots import resolve

    roots = [part for root in resolve(data_root) for part in ("--data-root", root)]
    chosen = [*(["--version", version] if version else []), *(["--no-can-bus"] if no_can_bus else [])]
    run_verb("prepare", [*roots, "--out", out, *chosen], as_json)
