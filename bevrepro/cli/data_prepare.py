"""`bevrepro data prepare`: tables to what training reads."""

from pathlib import Path
from typing import Annotated, Any

from typer import Option, Typer

from bevrepro.cli.data_common import Json, Roots, run_verb, say


def register(data: Typer) -> None:
    """Add the command."""
    data.command("prepare")(prepare_command)


def prepare_command(
    data_root: Roots,
    out: Annotated[
        Path | None,
        Option(
            "--out",
            help="Folder for the infos, never inside the data. If left out: the overlay of the mount, or "
            "NAME-infos beside the data.",
        ),
    ] = None,
    version: Annotated[
        str | None, Option("--version", help="Folder of the tables; the only one there if left out.")
    ] = None,
    sweeps: Annotated[
        int | None,
        Option(
            "--sweeps",
            min=0,
            max=1000,
            help="Lidar sweeps before each keyframe. If left out, 10 as upstream; BEVFormer reads none.",
        ),
    ] = None,
    no_can_bus: Annotated[
        bool, Option("--no-can-bus", help="Go on without CAN data; this changes the result.")
    ] = False,
    jobs: Annotated[
        int | None, Option("--jobs", min=1, max=64, help="Processes; 2 if left out. The result is the same.")
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Read and check everything, write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Write nuscenes_infos_temporal_{train,val}.pkl, and their twins, from the tables and the CAN bus."""
    from bevrepro.data.infos_place import default_out, overlays
    from bevrepro.data.roots import resolve

    roots = [part for root in resolve(data_root) for part in ("--data-root", root)]
    target = out or default_out(data_root)
    if out is None:
        say(f"infos go to {target}")
    options: list[Any] = [part for folder in overlays(data_root) for part in ("--overlay", folder)]
    for name, value in (("--version", version), ("--sweeps", sweeps), ("--jobs", jobs)):
        options += [] if value is None else [name, value]
    options += ["--no-can-bus"] if no_can_bus else []
    options += ["--dry-run"] if dry_run else []
    run_verb("prepare", [*roots, "--out", target, *options], as_json)
