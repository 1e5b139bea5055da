"""`bevrepro data bench`: every way to read the data, side by side on this machine."""

import json
from pathlib import Path
from typing import Annotated, Any

from typer import Option, Typer

from bevrepro.cli.data_common import DryRun, Json, print_json, say


def register(data: Typer) -> None:
    """Add the command."""
    data.command("bench")(bench_command)


def bench_command(
    archives: Annotated[
        list[Path] | None,
        Option(
            "--archives",
            help="A .tar, a .tgz and a folder of the same files, each given so; else some are made.",
        ),
    ] = None,
    synthetic: Annotated[float, Option("--synthetic", min=0.05, help="GB of files to make.")] = 1.0,
    work: Annotated[
        Path | None,
        Option("--work", help="Where they are made, and removed again. Default: the cache folder."),
    ] = None,
    rounds: Annotated[int, Option("--rounds", min=3, help="Each reader's turns.")] = 7,
    no_fuse: Annotated[bool, Option("--no-fuse", help="Leave mounts out.")] = False,
    out: Annotated[Path | None, Option("--out", help="Keep the JSON in this file.")] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Read random whole files from folders, archives and mounts, in turns, and compare the rates.

    Every byte is consumed the same way by every reader; warm and cold.
    """
    from bevrepro.data import bench

    planned = bench.plan(tuple(archives or ()), synthetic, work, no_fuse)
    if dry_run:
        print_json(planned.to_json()) if as_json else print("\n".join(planned.sentences()))
        return
    result = _measured(planned, rounds)
    if out is not None:
        from bevrepro.core.paths import atomic_write_text

        atomic_write_text(out, json.dumps(result, indent=1) + "\n")
    if as_json:
        print_json(result)
    else:
        _show(result)


def _measured(planned: Any, rounds: int) -> dict[str, Any]:
    from bevrepro.cli.calls import run_verb
    from bevrepro.data import bench

    with bench.workplace(planned) as folder:
        places = list(planned.archives)
        if not places:
            made = folder / "set"
            run_verb("data-bench", ["--make", made, "--gb", planned.synthetic_gb])
            places = [made / "extracted", made / "bench.tar", made / "bench.tgz"]
        with bench.mounts(planned, places, folder, say) as mounted:
            options = [word for name, place in mounted.items() for word in ("--mount", f"{name}={place}")]
            many = [] if planned.archives else ["--index-test", folder]
            result = run_verb("data-bench", ["--measure", *places, "--rounds", rounds, *options, *many])
    return {**result, "not_mounted": list(planned.not_mounted)}


def _show(result: dict[str, Any]) -> None:
    for title, one in result["classes"].items():
        for state, table in one.items():
            if not isinstance(table, dict):  # how many files and how large
                continue
            print(f"{title}, {state}")
            rows = sorted(table.items(), key=lambda row: -row[1]["files_per_s"])
            for name, row in rows:
                times = [f"{value:.2f} x {key[6:]}" for key, value in row.items() if key.startswith("times_")]
                print(f"  {name:32} {row['files_per_s']:10,.0f} files/s  {'  '.join(times)}")
    for row in result["wanted"]:
        verdict = "yes" if row["met"] else "no"
        print(
            f"{row['files']}, {row['state']}: {row['reader']} is {row['times']:g} times {row['against']} "
            f"(wanted {row['wanted']:g}: {verdict})"
        )
    if "index" in result:
        one = result["index"]["scanned"]
        print(f"index of {one['files']:,} files: {one['cpu_s']} CPU s, {one['max_rss_mb']} MB")
    for sentence in result["not_mounted"]:
        say(f"no mount: {sentence}")
