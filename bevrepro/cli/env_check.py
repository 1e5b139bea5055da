"""`bevrepro env verify`, `env pack` and `env export`: is it what was built; take it along."""

from pathlib import Path
from typing import Annotated

from typer import Exit, Option, Typer

Prefix = Annotated[
    Path | None, Option("--prefix", help="The environment's folder. By default where --target is built.")
]
Target = Annotated[str, Option("--target", help="One of `bevrepro env list`.")]
MaybeTarget = Annotated[
    str | None,
    Option("--target", help="One of `bevrepro env list`. By default what the receipt says, or cpu."),
]
Json = Annotated[bool, Option("--json", help="Write the result as JSON to stdout.")]


def register(env: Typer) -> None:
    """Add the commands."""
    env.command("verify")(verify_command)


def verify_command(
    prefix: Prefix = None,
    target: MaybeTarget = None,
    deep: Annotated[
        bool, Option("--deep", help="Compile every source anew to see whether its bytecode was forged.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare every installed file with what was installed: edits, gaps, strangers, versions, patches.

    Exits with 1 where anything is not as it was built.
    """
    from bevrepro.env.layout import resolve
    from bevrepro.env.verify import verify

    # Any folder may be named, also one that bevrepro did not build.
    report = verify(prefix or resolve(None, target or "cpu").prefix, target, deep)
    if as_json:
        from bevrepro.cli.calls import print_json
        from bevrepro.core.codec import to_json

        print_json({"clean": report.clean, **to_json(report)})
    else:
        from bevrepro.cli.env_verify_view import print_report

        print_report(report)
    if not report.clean:
        raise Exit(1)
