"""`bevrepro env list` and `bevrepro env show TARGET`."""

from typing import Annotated, Any

from typer import Argument, Option, Typer

from bevrepro.cli.calls import print_json

Json = Annotated[bool, Option("--json", help="Write the result as JSON to stdout.")]


def register(env: Typer) -> None:
    """Add the commands."""
    env.command("list")(list_targets)
    env.command("show")(show)


def list_targets(as_json: Json = False) -> None:
    """Every target: for what hardware, what stack, and how far it was really taken."""
    from bevrepro.cli.env_view import print_table
    from bevrepro.env import target

    found = [target.load(name) for name in target.names()]
    if as_json:
        print_json({"targets": [summary(each) for each in found]})
    else:
        print_table([summary(each) for each in found])


def show(
    name: Annotated[str, Argument(metavar="TARGET", help="One of `bevrepro env list`.")],
    as_json: Json = False,
) -> None:
    """Everything a target says: its pins, what gave way and why, and the evidence for it."""
    from bevrepro.cli.env_view import print_target
    from bevrepro.core.codec import to_json
    from bevrepro.env import target
    from bevrepro.env.evidence import missing

    found = target.load(name)
    if as_json:
        plain = {key: value for key, value in to_json(found).items() if key != "path"}
        print_json({**summary(found), **plain, "missing": list(missing(found))})
    else:
        print_target(found)


def summary(found: Any) -> dict[str, Any]:
    """One row of the table."""
    from bevrepro.env.evidence import badge

    return {
        "name": found.name,
        "title": found.title,
        "hardware": list(found.hardware.gpus) or [found.hardware.kind],
        "stack": found.stack,
        "python": list(found.python),
        "torch": found.torch_requirement,
        "cuda": found.cuda.version if found.cuda else None,
        "level": found.level,
        "evidence": badge(found),
    }
