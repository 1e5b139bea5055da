"""`bevrepro replay RUN.JSON`: the first steps of a recorded run, once more, here."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Exit, Option, Typer

from bevrepro.cli.calls import Json

if TYPE_CHECKING:
    from bevrepro.drive.replay import Replayed


def register(app: Typer) -> None:
    """Add the command."""
    app.command("replay")(replay_command)


def replay_command(
    run: Annotated[Path, Argument(metavar="RUN.JSON", help="Of a training, or its work folder.")],
    steps: Annotated[int, Option("--steps", min=1, help="Optimiser steps to repeat.")] = 20,
    data_root: Annotated[
        list[Path] | None, Option("--data-root", help="Where the data is here. [default: as then]")
    ] = None,
    infos: Annotated[
        Path | None, Option("--infos", help="Where the infos are here. [default: as then]")
    ] = None,
    gpus: Annotated[int | None, Option("--gpus", min=0, help="0: the CPU. [default: as then]")] = None,
    target: Annotated[
        str | None,
        Option("--target", metavar="NAME", help="The environment to run it in. [default: as then, if here]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Repeat the first steps of a run on this machine: equal, within tolerance, or parting at step N.

    Bit for bit (to every logged digit) on the same processor, threads and libraries; elsewhere within a
    stated tolerance. Exit code 1: they part.
    """
    from bevrepro.cli.progress import shown
    from bevrepro.data.roots import resolve
    from bevrepro.drive.replay import PARTS, replay

    with shown("replay") as on_event:
        found = replay(run, steps, resolve(data_root or []), infos, gpus, on_event, target)
    if as_json:
        print(json.dumps({**asdict(found), "promise": found.promise}, indent=2))
    else:
        print("\n".join(lines(found)))
    raise Exit(1 if found.word == PARTS else 0)


def lines(found: "Replayed") -> list[str]:
    """The first line is the answer."""
    if found.step is None:
        told = [f"{found.word}: {found.steps} steps, compared {found.promise} ({found.compared_lines} lines)"]
    else:
        told = [
            f"parts at step {found.step} (the line of steps {found.first} to {found.step}): {found.quantity} "
            f"{found.then} then, {found.now} now; promised {found.promise}"
        ]
    if found.worst_share:
        told.append(f"Furthest apart: {found.worst_share:.2g} of the value.")
    if found.differs:
        told += ["Not as it was then:", *(f"  {each}" for each in found.differs)]
    return told
