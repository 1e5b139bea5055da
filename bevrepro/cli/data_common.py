"""What the data commands share: option types, running a verb of the model plane, printing."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from typer import Option

Json = Annotated[bool, Option("--json", help="Write JSON to stdout.")]
DryRun = Annotated[bool, Option("--dry-run", help="Check everything, say what would run.")]
Seed = Annotated[int, Option(min=0, help="Same seed, same bytes.")]
Roots = Annotated[
    list[Path],
    Option("--data-root", help="A mount point, folder or archive; may be repeated, the last one wins."),
]


def run_verb(verb: str, argv: list[Any], as_json: bool) -> None:
    """A verb of the model plane with a progress bar; its result as JSON or as lines."""
    from bevrepro.cli.progress import shown
    from bevrepro.drive.launch import run_model

    with shown(verb) as on_event:
        result = run_model(verb, [str(part) for part in argv], on_event=on_event)
    fields = {key: value for key, value in result.items() if key != "event"}
    if as_json:
        print_json(fields)
    else:
        for key, value in fields.items():
            print(f"{key}: {value if isinstance(value, str | int | float) else json.dumps(value)}")


def say(text: str) -> None:
    """A line to stderr, beside whatever goes to stdout."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: dict[str, Any]) -> None:
    """To stdout."""
    print(json.dumps(value, indent=2))
