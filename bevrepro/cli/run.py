"""`bevrepro train, submit, eval, viz, report, demo`: from data to a page with numbers and pictures."""

from typer import Typer

from bevrepro.cli import demo, evaluate, report, submit, train, viz


def register(app: Typer) -> None:
    """Add the commands."""
    for command in (train, submit, evaluate, viz, report, demo):
        command.register(app)
