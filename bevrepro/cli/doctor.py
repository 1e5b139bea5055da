"""`bevrepro doctor`: will it work here, and why not."""

from typer import Typer


def register(app: Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor() -> None:
    """Say whether BEVFormer will work on this machine, and why not."""
