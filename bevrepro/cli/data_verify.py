"""`bevrepro data verify`: archives and folders against what was published and what the tables promise."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Exit, Option, Typer

from bevrepro.cli.data_common import Json, print_json

if TYPE_CHECKING:
    from bevrepro.data.report import Report
    from bevrepro.data.verify import Plan, Wish
    from bevrepro.drive.launch import OnEvent


def register(data: Typer) -> None:
    """Add `verify`."""
    data.command("verify")(verify_command)


def verify_command(
    places: Annotated[
        list[Path], Argument(metavar="PATH...", help="Folders of archives, archives, data folders, mounts.")
    ],
    full: Annotated[
        bool,
        Option("--full/--fast", help="Every byte, or only ends, headers, indexes and tables."),
    ] = True,
    files: Annotated[
        str, Option("--files", help="Whose files have to be there: camera, lidar (and camera), all.")
    ] = "camera",
    sweeps: Annotated[bool, Option("--sweeps", help="Their sweeps too, not only keyframes.")] = False,
    version: Annotated[
        list[str] | None, Option("--version", help="Tables to compare with; all that are there if left out.")
    ] = None,
    jobs: Annotated[
        int | None, Option("--jobs", min=1, max=64, help="Archives at once; one on a turning disk.")
    ] = None,
    again: Annotated[bool, Option("--again", help="Read again what an earlier run had read.")] = False,
    out: Annotated[Path | None, Option("--out", help="Write the report to this file as well.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be read.")] = False,
    as_json: Json = False,
) -> None:
    """Check that archives and data folders are whole and hold every file that the tables promise.

    Nothing is written into the data. What was read is remembered in the cache, so that an interrupted run
    goes on with the archives that were not finished. Exit code 1: something is damaged or missing.
    """
    from bevrepro.data import verify

    if files not in verify.CHANNELS:
        raise BadParameter(f"{files} is none of {', '.join(verify.CHANNELS)}", param_hint="--files")
    wish = verify.Wish(tuple(places), full, files, sweeps, jobs, tuple(version or ()), again)
    planned = verify.plan(wish)
    if dry_run:
        _print_plan(planned, as_json)
        return
    report = _run(planned)
    if out is not None:
        _save(out, report, wish)
    if as_json:
        print_json(report.to_json())
    else:
        _print(report)
    if report.failed:
        raise Exit(1)


def _run(planned: "Plan") -> "Report":
    from bevrepro.data import report, verify
    from bevrepro.drive.launch import run_model

    with _progress() as on_event:
        hashed = verify.hash_archives(planned, None, on_event)
        done, tables = verify.look_inside(
            hashed, lambda request: run_model("verify", [request], on_event=on_event)
        )
    return report.judge(done, tables)


@contextmanager
def _progress() -> "Iterator[OnEvent]":
    from bevrepro.cli.progress import shown

    with shown("verify") as on_event:
        yield on_event


def _save(out: Path, report: "Report", wish: "Wish") -> None:
    """Never into the data."""
    import json

    from bevrepro.core import paths
    from bevrepro.core.errors import DataError
    from bevrepro.probe.extracted import is_root

    folder = out.absolute().parent
    if folder.is_dir() and is_root({entry.name for entry in folder.iterdir() if entry.is_dir()}):
        raise DataError(f"{out} lies inside the data", "Nothing is written there.", "Name a file elsewhere.")
    paths.atomic_write_text(out, json.dumps(report.to_json(), indent=2) + "\n")


def _print_plan(planned: "Plan", as_json: bool) -> None:
    from bevrepro.data.catalogue import gb

    told: dict[str, Any] = planned.to_json()
    if as_json:
        print_json(told)
        return
    for each in told["archives"]:
        words = [word for word, yes in (("md5", each["md5"]), ("inside", each["inside"])) if yes]
        done = " (read before)" if each["resumed"] else ""
        print(f"{each['path']}: {' and '.join(words) or 'its ends'}{done}")
    for folder in told["folders"]:
        print(f"{folder}: tables and files")
    print(f"To read: {gb(told['md5_b'])} for md5s, {gb(told['inside_b'])} inside; {planned.jobs} at once.")


def _print(report: "Report") -> None:
    from rich.console import Console
    from rich.text import Text

    from bevrepro.cli.doctor_view import ORDER, print_finding
    from bevrepro.data.report import unseen

    console = Console(highlight=False)
    for each in report.plan.archives:
        console.print(Text(_archive_line(report, each.path), "dim"), soft_wrap=True)
    for version, census in report.tables.items():
        console.print(Text(_table_line(version, census)), soft_wrap=True)
    for finding in sorted(report.findings, key=lambda one: ORDER.index(one.severity)):
        print_finding(console, finding)
    for words in unseen(report.plan):
        console.print(Text(f"Not seen by this: {words}", "dim"), soft_wrap=True)
    fails = sum(one.severity is ORDER[0] for one in report.findings)
    if report.failed:
        console.print(Text(f"{fails} thing{'s' if fails > 1 else ''} to mend first.", "bold red"))
    else:
        console.print(Text("Whole, as far as this can see.", "bold green"))


def _archive_line(report: "Report", path: str) -> str:
    from bevrepro.data.report import archive_json
    from bevrepro.probe.files import printable

    row = next(archive_json(each) for each in report.plan.archives if each.path == path)
    words = [str(row["recognised_by"])]
    if row["md5_official"] is not None:
        words.append("md5 as published" if row["md5_official"] else "another md5 than published")
    if row["read_through"]:
        words.append("read through")
    if row["files"] is not None:
        words.append(f"{row['files']:,} files")
    if row["resumed"]:
        words.append("from an earlier run")
    return f"{printable(Path(path).name)}: {', '.join(words)}"


def _table_line(version: str, census: Any) -> str:
    there = census["promised"] - census["missing"]
    can = census["scenes"] - len(census["no_can"])
    return (
        f"{version}: {census['scenes']:,} scenes, {census['rows'].get('sample') or 0:,} samples, "
        f"{there:,} of {census['promised']:,} files, CAN data of {can:,} scenes"
    )
