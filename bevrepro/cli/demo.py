"""`bevrepro demo`: everything once, on data made for it."""

from pathlib import Path
from typing import Annotated

from typer import Option, Typer

from bevrepro.cli.calls import Target


def register(app: Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    out: Annotated[
        Path, Option("--out", metavar="DIR", help="A new folder, or one of an earlier demo.")
    ] = Path("demo_out"),
    steps: Annotated[int, Option("--steps", min=1, help="Optimiser steps; fewer learn less.")] = 1400,
    seed: Annotated[int, Option("--seed", min=0, max=2**31 - 1, help="Of data and training.")] = 0,
    target: Target = None,
) -> None:
    """Run everything once, on data made for it: no download, no GPU, no root. About 4 minutes on 2 cores.

    Runs the real commands one after another and prints each so that it can be pasted. An interrupted
    demo goes on where it stopped when it is started again.
    """
    from bevrepro.cli.demo_view import Narrator
    from bevrepro.drive.demo import Demo, run_demo, usable_gpus

    narrator = Narrator()
    summary = run_demo(Demo(out, steps, seed, usable_gpus(target), target), _invoke, narrator)
    narrator.close(summary)


def _invoke(argv: list[str]) -> int:
    """One command through the real command line, in this process; errors and Ctrl-C come back as they are."""
    from bevrepro.cli import app
    from bevrepro.core.interrupts import INTERRUPTED

    try:
        app(args=argv, prog_name="bevrepro")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        if code == INTERRUPTED:
            raise KeyboardInterrupt from None
        if code > INTERRUPTED:  # SIGTERM or SIGHUP
            raise
        return code
    return 0
