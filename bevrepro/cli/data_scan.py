"""`bevrepro data scan`: what of nuScenes is here, what it is enough for, what is missing."""

from pathlib import Path
from typing import Annotated

from typer import Argument, BadParameter, Exit, Option, Typer

from bevrepro.cli.data_common import Json, print_json


def register(data: Typer) -> None:
    """Add `scan`."""
    data.command("scan")(scan_command)


def scan_command(
    places: Annotated[list[Path], Argument(metavar="DIR...", help="Folders, mount points or archives.")],
    task: Annotated[
        str | None, Option("--task", help="Say all about one: camera, mini, test, lidar, map.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which official archives are here, which tasks they are enough for, and what is missing.

    A file is recognised by name, size and content together. Nothing is written, and little is read. Exit code
    1: a file is broken or unfinished, or the --task is not complete.
    """
    from bevrepro.cli.data_scan_view import print_scan
    from bevrepro.data import needs
    from bevrepro.data.scan import scan

    known = [each.id for each in needs.tasks()]
    if task is not None and task not in known:
        raise BadParameter(f"no task {task}; there are {', '.join(known)}", param_hint="--task")
    found = scan(places)
    if as_json:
        print_json(found.to_json())
    else:
        print_scan(found, task)
    if found.bad or (task and not found.state(task).complete):
        raise Exit(1)
