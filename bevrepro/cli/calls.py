"""What commands that run the model plane share: options, and the call itself."""

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Context, Option

if TYPE_CHECKING:
    from bevrepro.drive.inside import Inside
    from bevrepro.drive.processes import Processes

MORE = {"allow_extra_args": True}  # `--cfg-options a=1 b=2`, as people know it

Config = Annotated[
    str,
    Argument(metavar="CONFIG", help="A preset, the config.json of a work folder, or an upstream .py file."),
]
Gpus = Annotated[int | None, Option("--gpus", min=0, help="0: the CPU. By default 1 where torch sees a GPU.")]
GpuIds = Annotated[
    str | None, Option("--gpu-ids", metavar="N...", help="Which GPUs, by number, instead of how many.")
]
Target = Annotated[
    str | None,
    Option(
        "--target",
        metavar="NAME",
        help="Run in the environment that `env build --target NAME` made. [default: bevrepro's own]",
    ),
]
Launcher = Annotated[str, Option("--launcher", help="none or pytorch; others are refused.")]
CfgOptions = Annotated[
    list[str] | None,
    Option("--cfg-options", metavar="KEY=VALUE...", help="Override the configuration: schedule.lr=0.001"),
]
Json = Annotated[bool, Option("--json", help="Write the result as JSON to stdout.")]


def run_verb(
    verb: str, argv: list[Any], processes: "Processes | None" = None, inside: "Inside | None" = None
) -> dict[str, Any]:
    """A verb of the model plane with a progress bar; its result without the event's name."""
    from bevrepro.cli.progress import shown
    from bevrepro.drive.launch import run_model
    from bevrepro.drive.processes import ALONE

    with shown(verb) as on_event:
        words = [str(part) for part in argv]
        result = run_model(verb, words, on_event=on_event, processes=processes or ALONE, inside=inside)
    return {key: value for key, value in result.items() if key != "event"}


def common(gpus: int | None, cfg_options: list[str] | None, context: Context) -> list[Any]:
    """--gpus, and --cfg-options with the words that follow its first."""
    for word in context.args:
        if not cfg_options or "=" not in word:
            raise BadParameter(f"unexpected argument: {word}")
    options = [*(cfg_options or []), *context.args]
    return given("--gpus", gpus) + (["--cfg-options", *options] if options else [])


def given(name: str, value: Any) -> list[Any]:
    """An option and its value, or nothing."""
    return [] if value is None else [name, value]


def print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2))


def entered(target: str | None, gpus: int | None) -> "tuple[Inside | None, int | None]":
    """The environment of --target, which is named on stderr, and what --gpus comes to in it."""
    if target is None:
        return None, gpus
    from bevrepro.drive.inside import enter

    inside = enter(target, gpus)
    print(f"In {inside.title}", file=sys.stderr)
    return inside, inside.gpus


def picked(gpus: int | None, gpu_ids: str | None) -> int | None:
    """How many GPUs. Those of --gpu-ids become the only ones that this program and its children see.

    Numbers count within CUDA_VISIBLE_DEVICES where it is set. BadParameter or ConfigError for others.
    """
    from bevrepro.core.errors import ConfigError

    if gpu_ids is None:
        return gpus
    if gpus is not None:
        raise BadParameter("--gpus says how many, --gpu-ids which: give one of them")
    numbers = gpu_ids.split(",")
    if not all(number.isdigit() for number in numbers) or len(set(numbers)) < len(numbers):
        raise BadParameter(f"--gpu-ids {gpu_ids}: it takes different numbers from 0")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = None if visible is None else [each.strip() for each in visible.split(",") if each.strip()]
    beyond = [number for number in numbers if there is not None and int(number) >= len(there)]
    if beyond:
        raise ConfigError(
            f"--gpu-ids {beyond[0]}, but CUDA_VISIBLE_DEVICES={visible} shows {len(there or [])}",
            "Numbers count from 0 within those.",
            "Leave one of the two out.",
        )
    chosen = numbers if there is None else [there[int(number)] for number in numbers]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    return len(numbers)


def check_launcher(launcher: str) -> None:
    """Raises ConfigError for every launcher that this version does not have."""
    from bevrepro.core.errors import ConfigError

    if launcher in ("slurm", "mpi"):
        raise ConfigError(
            f"--launcher {launcher} is not supported",
            "Several processes are started by torchrun, in a job as well.",
            "Leave --launcher out and say --gpus N; with several machines also --nodes and --rendezvous.",
        )
    if launcher not in ("none", "pytorch"):
        raise BadParameter(f"unknown launcher: {launcher}")
