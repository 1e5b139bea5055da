"""`bevrepro data synth`: a small set in nuScenes format."""

from enum import Enum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from bevrepro.cli.data_common import DryRun, Json, Seed, run_verb


class Kind(str, Enum):
    MINI = "mini"
    TRAINVAL = "trainval"
    TEST = "test"


class Weather(str, Enum):
    CLEAR = "clear"
    RAIN = "rain"
    NIGHT = "night"


class Pack(str, Enum):
    BLOBS = "blobs"
    KEYFRAMES = "keyframes"
    CAMERA = "camera"
    LIDAR = "lidar"


class Defect(str, Enum):
    MISSING_FILE = "missing-file"
    EMPTY_FILE = "empty-file"
    CUT_IMAGE = "cut-image"
    MISSING_TABLE = "missing-table"
    CUT_TABLE = "cut-table"
    NO_CAN = "no-can"
    BROKEN_HEADER = "broken-header"
    FLIPPED_BYTES = "flipped-bytes"
    TRUNCATED_ARCHIVE = "truncated-archive"
    MISSING_PART = "missing-part"


Packs = Annotated[
    list[Pack] | None,
    Option("--pack", help="For --set trainval: which archives of each part; may be repeated."),
]
Defects = Annotated[
    list[Defect] | None,
    Option("--defect", help="Break this on purpose and say in synth.json what was broken; may be repeated."),
]
Samples = Annotated[int, Option(min=2, help="Keyframes per scene, two a second.")]
Scale = Annotated[float, Option(min=0.05, max=1.0, help="Of the 1600 x 900 images.")]


def register(data: Typer) -> None:
    """Add the command."""
    data.command("synth")(synth_command)


def synth_command(
    out: Annotated[Path, Argument(metavar="OUT", help="Folder for the set.")],
    seed: Seed = 0,
    scenes: Annotated[int, Option(min=2, help="At most 10 for mini, 150 for trainval and test.")] = 10,
    samples: Samples = 10,
    scale: Scale = 0.16,
    kind: Annotated[Kind, Option("--set", help="Tables and archives named like this set's.")] = Kind.MINI,
    weather: Annotated[Weather, Option(help="Noise in pictures and lidar.")] = Weather.CLEAR,
    sweeps: Annotated[int, Option(min=0, max=9, help="Between keyframes, per sensor.")] = 0,
    parts: Annotated[int | None, Option(min=1, help="For --set trainval: parts, at most ten.")] = None,
    pack: Packs = None,
    defect: Defects = None,
    force: Annotated[bool, Option("--force", help="Replace a set that this command made.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Draw a small set in nuScenes format, as folders and as archives like the official ones."""
    options = ["--seed", seed, "--scenes", scenes, "--samples", samples, "--scale", scale]
    options += ["--set", kind.value, "--weather", weather.value, "--sweeps", sweeps]
    options += [] if parts is None else ["--parts", parts]
    options += [word for one in pack or [] for word in ("--pack", one.value)]
    options += [word for one in defect or [] for word in ("--defect", one.value)]
    options += [*(["--force"] if force else []), *(["--dry-run"] if dry_run else [])]
    run_verb("synth", [out, *options], as_json)
