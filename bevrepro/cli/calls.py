"""What commands that run the model plane share: options, and the call itself."""

import json
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Context, Option

if TYPE_CHECKING:
    from bevrepro.drive.processes import Processes

MORE = {"allow_extra_args": True}  # `--cfg-options a=1 b=2`, as people know it

Config = Annotated[
    str,
    Argument(metavar="CONFIG", help="A preset, the config.json of a work folder, or an upstream .py file."),
]
Gpus = Annotated[int | None, Option("--gpus", min=0, help="0: the CPU. By default 1 where torch sees a GPU.")]
CfgOptions = Annotated[
    list[str] | None,
    Option("--cfg-options", metavar="KEY=VALUE...", help="Override the configuration: schedule.lr=0.001"),
]
Json = Annotated[bool, Option("--json", help="Write the result as JSON to stdout.")]


def run_verb(verb: str, argv: list[Any], processes: "Processes | None" = None) -> dict[str, Any]:
    """A verb of the model plane with a progress bar; its result without the event's name."""
    from bevrepro.cli.progress import shown
    from bevrepro.drive.launch import run_model
    from bevrepro.drive.processes import ALONE

    with shown(verb) as on_event:
        words = [str(part) for part in argv]
        result = run_model(verb, words, on_event=on_event, processes=processes or ALONE)
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
