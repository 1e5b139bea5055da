"""`bevrepro data ...`: archives as the data set, and what is made from them."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option, Typer

if TYPE_CHECKING:
    from bevrepro.data.mount import Plan

Json = Annotated[bool, Option("--json", help="Write JSON to stdout.")]
Seed = Annotated[int, Option(min=0, help="Same seed, same bytes.")]
Roots = Annotated[
    list[Path],
    Option("--data-root", help="A mount point, folder or archive; may be repeated, the last one wins."),
]

data = Typer(
    help="Mount archives without extracting them, and make what training reads.", no_args_is_help=True
)


def register(app: Typer) -> None:
    """Add `data` with its commands."""
    app.add_typer(data, name="data")


@data.command("mount")
def mount_command(
    archives: Annotated[list[Path], Argument(metavar="ARCHIVE", help=".tgz, .tar, .zip, or a folder.")],
    mountpoint: Annotated[Path, Argument(metavar="MOUNTPOINT", help="A new or an empty folder.")],
    in_process: Annotated[
        bool, Option("--in-process", help="Do not mount: training reads the archives itself.")
    ] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Check everything, say what would run.")] = False,
    as_json: Json = False,
) -> None:
    """Show archives as one read-only folder; where several hold a file, the last one wins.

    Nothing is extracted. Where FUSE is missing, the archives are remembered and training reads them itself.
    """
    from bevrepro.data import mount as mounting
    from bevrepro.data import remembered

    planned = mounting.plan(archives, mountpoint, in_process)
    done = planned if dry_run else mounting.mount(planned, _say)
    if done.mode == remembered.IN_PROCESS and not dry_run:
        _open_in_process(done)
    if as_json:
        _print_json({**done.to_json(), "dry_run": dry_run})
    else:
        _print_mount(done.to_json(), dry_run)


def _open_in_process(done: "Plan") -> None:
    """Let the reader open every archive once, so that a cut one is named now and not hours into a training.

    Raises what it raises, with the archives forgotten again.
    """
    from bevrepro.cli.progress import shown
    from bevrepro.data import remembered
    from bevrepro.drive.launch import run_model

    roots = [part for archive in done.archives for part in ("--data-root", str(archive.path))]
    try:
        with shown() as on_event:
            run_model("store", roots, on_event=on_event)
    except BaseException:  # Ctrl-C too
        remembered.forget(done.mountpoint)
        raise


@data.command("umount")
def umount_command(
    mountpoint: Annotated[Path, Argument(metavar="MOUNTPOINT", help="As given to mount.")],
    as_json: Json = False,
) -> None:
    """Take a mount away and forget its archives; a dead one is cleaned up."""
    from dataclasses import asdict

    from bevrepro.data.unmount import umount

    removed = umount(mountpoint)
    if as_json:
        _print_json(asdict(removed))
    elif removed.mode == "in-process":
        print(f"{removed.mountpoint} is forgotten (it was never mounted).")
    else:
        print(
            f"{removed.mountpoint} is unmounted" + (" (its program had died)." if removed.was_dead else ".")
        )


@data.command("status")
def status_command(as_json: Json = False) -> None:
    """List mounts, dead ones and remembered ones."""
    from bevrepro.data.status import status

    found = [one.to_json() for one in status()]
    if as_json:
        _print_json({"mounts": found})
    elif not found:
        print("Nothing is mounted or remembered.")
    for one in [] if as_json else found:
        _print_status(one)


@data.command("synth")
def synth_command(
    out: Annotated[Path, Argument(metavar="OUT", help="Folder for the set.")],
    seed: Seed = 0,
    scenes: Annotated[int, Option(min=2, help="Scenes, at most the ten of v1.0-mini.")] = 10,
    samples: Annotated[int, Option(min=2, help="Keyframes per scene, two a second.")] = 10,
    scale: Annotated[float, Option(min=0.01, max=1.0, help="Of the 1600 x 900 images.")] = 0.16,
    force: Annotated[bool, Option("--force", help="Replace a set that this command made.")] = False,
    as_json: Json = False,
) -> None:
    """Draw a small set in nuScenes format, as folders and as archives like the official ones."""
    options = ["--seed", seed, "--scenes", scenes, "--samples", samples, "--scale", scale]
    _run("synth", [out, *options, *(["--force"] if force else [])], as_json)


@data.command("prepare")
def prepare_command(
    data_root: Roots,
    out: Annotated[Path, Option("--out", help="Folder for the infos; never inside the data.")],
    version: Annotated[
        str | None, Option("--version", help="Folder of the tables; the only one there if left out.")
    ] = None,
    no_can_bus: Annotated[
        bool, Option("--no-can-bus", help="Go on without CAN data; this changes the result.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write nuscenes_infos_temporal_{train,val}.pkl from the tables and the CAN bus."""
    from bevrepro.data.roots import resolve

    roots = [part for root in resolve(data_root) for part in ("--data-root", root)]
    chosen = [*(["--version", version] if version else []), *(["--no-can-bus"] if no_can_bus else [])]
    _run("prepare", [*roots, "--out", out, *chosen], as_json)


def _run(verb: str, argv: list[Any], as_json: bool) -> None:
    """A verb of the model plane with a progress bar; its result as JSON or as lines."""
    from bevrepro.cli.progress import shown
    from bevrepro.drive.launch import run_model

    with shown(verb) as on_event:
        result = run_model(verb, [str(part) for part in argv], on_event=on_event)
    fields = {key: value for key, value in result.items() if key != "event"}
    if as_json:
        _print_json(fields)
    else:
        for key, value in fields.items():
            print(f"{key}: {value if isinstance(value, str | int | float) else json.dumps(value)}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2))


def _print_mount(done: dict[str, Any], dry_run: bool) -> None:
    place, names = done["mountpoint"], ", ".join(Path(one["path"]).name for one in done["archives"])
    if done["mode"] == "in-process":
        for sentence in done["missing"]:
            _say(f"no mount: {sentence}")
        would = "would be" if dry_run else "is"
        print(f"{place} {would} read in-process from {names}: give it as --data-root like a mount.")
    elif dry_run:
        for command in done["commands"]:
            print(shlex.join(command))
    else:
        print(f"{place} shows {names}, read-only. To take it away: bevrepro data umount {place}")


def _print_status(one: dict[str, Any]) -> None:
    meaning = {
        "mounted": "mounted, read-only",
        "dead": f"dead: its program has ended; bevrepro data umount {one['mountpoint']}",
        "gone": "not mounted any more; training reads the archives",
        "in-process": "no mount; training reads the archives",
    }
    print(f"{one['mountpoint']}: {meaning[one['state']]}")
    for archive in one["archives"]:
        print(f"  {archive}" + ("  MISSING" if archive in one["missing_archives"] else ""))
