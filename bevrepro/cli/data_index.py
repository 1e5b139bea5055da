"""`bevrepro data index`: what reading and mounting archives needs, made ahead of time in bounded memory."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option, Typer

from bevrepro.cli.data_common import DryRun, Json, print_json, say

if TYPE_CHECKING:
    from bevrepro.drive.indexing import Outcome, Plan


class Use(str, Enum):
    """What an index is for."""

    reader = "reader"
    mount = "mount"
    both = "both"


def register(data: Typer) -> None:
    """Add the command."""
    data.command("index")(index_command)


def index_command(
    archives: Annotated[
        list[Path], Argument(metavar="ARCHIVE", help=".tgz, .tar or .zip, or a folder that holds some.")
    ],
    use: Annotated[
        Use | None, Option("--for", help="Who will read; both where a mount is possible.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Find out where the files in archives are, so that mounting and training start at once.

    One archive at a time in about 200 MB of memory, however many there are. Interrupted, it goes on with the
    first archive that was not finished. Training and mounting do the same by themselves when it was left out.
    """
    from bevrepro.cli.progress import shown
    from bevrepro.drive import indexing

    uses = None if use is None else indexing.USES if use is Use.both else (use.value,)
    planned = indexing.plan(archives, uses)
    for note in planned.notes:
        say(note)
    if dry_run:
        outcomes = []
        _print_plan(planned, as_json)
    else:
        with shown() as on_event:
            outcomes = indexing.carry_out(planned, on_event)
        _print_outcomes(planned, outcomes, as_json)
    failed = [one.error for one in outcomes if one.error is not None]
    if failed:
        raise Exit(failed[0].exit_code)
    if dry_run and planned.judgement.refusal is not None:
        raise planned.judgement.refusal


def _print_plan(planned: "Plan", as_json: bool) -> None:
    if as_json:
        print_json({**_forecast(planned), "dry_run": True, "to_do": [_task(one) for one in planned.tasks]})
        return
    for path, use in planned.done:
        print(f"{path}: nothing to do for the {use}")
    for one in planned.tasks:
        print(f"{one.archive.path}: to be indexed for the {one.use}, {minutes(one.cpu_s)} of computing")
    if planned.tasks:
        wanted = planned.forecast
        memory_mb, disk_mb = wanted.memory_b // 1_000_000, wanted.disk_b // 1_000_000
        print(f"about {minutes(wanted.time_s)}, {memory_mb} MB of memory, up to {disk_mb} MB in the cache")


def _task(one: Any) -> dict[str, Any]:
    return {"path": str(one.archive.path), "use": one.use, "cpu_s": round(one.cpu_s, 1)}


def _forecast(planned: "Plan") -> dict[str, Any]:
    refusal = planned.judgement.refusal
    return {
        "forecast": planned.forecast.to_json(),
        "notes": list(planned.notes),
        "refused": refusal.seen if refusal else None,
    }


def _print_outcomes(planned: "Plan", outcomes: "list[Outcome]", as_json: bool) -> None:
    if as_json:
        done = [one.to_json() for one in outcomes]
        print_json({**_forecast(planned), "dry_run": False, "archives": done})
        return
    for one in outcomes:
        print(f"{one.path}: {one.state} for the {one.use}")
        if one.error is not None:
            say("\n".join(f"  {line}" for line in (one.error.seen, one.error.why, one.error.do) if line))


def minutes(time_s: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if time_s < 100:
        return f"{max(1, round(time_s))} s"
    return f"{round(time_s / 60)} min" if time_s < 5400 else f"{time_s / 3600:.1f} h"
