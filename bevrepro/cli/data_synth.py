"""`bevrepro data synth`: a small set in nuScenes format."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from bevrepro.cli.data_common import Json, Seed, run_verb


def register(data: Typer) -> None:
    """Add the command."""
    data.command("synth")(synth_command)


def synth_command(
    out: Annotated[Path, Argument(metavar="OUT", help="Folder for the set.")],
    seed: Seed = 0,
    scenes: Annotated[int, Option(min=2, help="Scenes, at most the ten of v1.0-mini.")] = 10,
    samples: Annotated[int, Option(min=2, help="Keyframes per scene, two a second.")] = 10,
    scale: Annotated[float, Option(min=0.01, max=1.0, help="Of the 1600 x 900 images.")] = 0.16,
    force: Annotated[bool, Option("--force", help="Replace a set that this command made.")] = False,
    as_json: Json = False,
) -> None:
    """Draw a small set in nuScenes format, as folders and as archives like the official ones."""
    options = ["--seed", seed, "--scenes", scenes, "--samples", samples, "--scale", scale]
    run_verb("synth", [out, *options, *(["--force"] if force else [])], as_json)
