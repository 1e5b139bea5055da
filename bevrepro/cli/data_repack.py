"""`bevrepro data repack`: .tgz archives as plain .tar files."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, Typer

from bevrepro.cli.data_common import DryRun, Json, print_json


def register(data: Typer) -> None:
    """Add the command."""
    data.command("repack")(repack_command)


def repack_command(
    archives: Annotated[list[Path], Argument(metavar="ARCHIVE", help=".tgz files, as downloaded.")],
    out: Annotated[Path, Option("--out", help="Folder for the .tar files.")],
    keyframes_only: Annotated[
        bool, Option("--keyframes-only", help="Leave sweeps/ out: BEVFormer does not read them.")
    ] = False,
    reread: Annotated[
        bool, Option("--reread", help="Read each result back from the disk and compare, before it counts.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make plain .tar files of .tgz archives: these are read without decompressing or extracting anything.

    One sequential write, checked on the way. After Ctrl-C, a full disk or a crash the same command goes on.
    """
    from bevrepro.cli.calls import run_verb

    flags = {"--keyframes-only": keyframes_only, "--reread": reread, "--dry-run": dry_run}
    result = run_verb("repack", [*archives, "--out", out, *(name for name, on in flags.items() if on)])
    if as_json:
        print_json(result)
    else:
        for one in result["archives"]:
            print(_sentence(one, dry_run))


def _sentence(one: dict[str, Any], dry_run: bool) -> str:
    if dry_run:
        state = "is there already" if one["finished"] else f"would take about {_gb(one['expected_bytes'])}"
        return f"{one['out']} {state}"
    if one["was_there"]:
        return f"{one['out']} was there already ({one['files']:,} files, {_gb(one['out_bytes'])})"
    left = [f"{one['left_out']:,} sweeps left out"] if one["left_out"] else []
    left += [f"{one['not_followed']:,} links or devices left out"] if one["not_followed"] else []
    left += [f"gone on at {_gb(one['resumed_at_bytes'])}"] if one["resumed_at_bytes"] else []
    more = f" ({', '.join(left)})" if left else ""
    return f"{one['out']}: {one['files']:,} files, {_gb(one['out_bytes'])} in {one['seconds']:.0f} s{more}"


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 10_000_000 else f"{size / 1e6:.2f} MB"
