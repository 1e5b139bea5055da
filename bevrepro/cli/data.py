"""`bevrepro data ...`: the sub-command that the files data_*.py add their commands to."""

from types import ModuleType

from typer import Typer

from bevrepro.cli import (
    data_bench,
    data_convert,
    data_extract,
    data_index,
    data_mount,
    data_prepare,
    data_repack,
    data_scan,
    data_synth,
    data_verify,
)

data = Typer(
    help="Mount archives without extracting them, and make what training reads.", no_args_is_help=True
)
FAMILIES: tuple[ModuleType, ...] = (
    data_bench,
    data_convert,
    data_extract,
    data_index,
    data_mount,
    data_prepare,
    data_repack,
    data_scan,
    data_synth,
    data_verify,
)  # modules with `register(data)`


def register(app: Typer) -> None:
    """Add `data` with its commands."""
    for family in FAMILIES:
        family.register(data)
    app.add_typer(data, name="data")
