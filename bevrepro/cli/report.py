"""`bevrepro report`: a run on one page."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer


def register(app: Typer) -> None:
    """Add the command."""
    app.command("report")(report)


def report(
    work_dir: Annotated[Path, Argument(metavar="WORK_DIR", help="The --work-dir of a training.")],
    out: Annotated[
        Path | None, Option("--out", metavar="FILE", help="[default: report.html in WORK_DIR]")
    ] = None,
    against: Annotated[
        Path | None,
        Option(
            "--against", metavar="B", help="Another work folder or log to lay its curves over, as `compare`."
        ),
    ] = None,
) -> None:
    """Put a run on one HTML page that needs nothing else: verdict, machine, loss, scores, pictures."""
    from bevrepro.drive.report import write_report

    print(write_report(work_dir, out, against))
