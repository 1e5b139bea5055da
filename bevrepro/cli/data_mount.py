"""`bevrepro data mount|umount|status`: archives as one read-only folder."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option, Typer

from bevrepro.cli.data_common import DryRun, Json, print_json, say

if TYPE_CHECKING:
    from bevrepro.data.mount import Plan


def register(data: Typer) -> None:
    """Add the commands."""
    data.command("mount")(mount_command)
    data.command("umount")(umount_command)
    data.command("status")(status_command)


def mount_command(
    archives: Annotated[list[Path], Argument(metavar="ARCHIVE", help=".tgz, .tar, .zip, or a folder.")],
    mountpoint: Annotated[Path, Argument(metavar="MOUNTPOINT", help="A new or an empty folder.")],
    in_process: Annotated[
        bool, Option("--in-process", help="Do not mount: training reads the archives itself.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Show archives as one read-only folder; where several hold a file, the last one wins.

    Nothing is extracted. Where FUSE is missing, the archives are remembered and training reads them itself.
    """
    from bevrepro.data import mount as mounting
    from bevrepro.data import remembered

    planned = mounting.plan(archives, mountpoint, in_process)
    done = planned if dry_run else mounting.mount(planned, say)
    if done.mode == remembered.IN_PROCESS and not dry_run:
        _open_in_process(done)
    if as_json:
        print_json({**done.to_json(), "dry_run": dry_run})
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


def umount_command(
    mountpoint: Annotated[Path, Argument(metavar="MOUNTPOINT", help="As given to mount.")],
    as_json: Json = False,
) -> None:
    """Take a mount away and forget its archives; a dead one is cleaned up."""
    from dataclasses import asdict

    from bevrepro.data.unmount import umount

    removed = umount(mountpoint)
    if as_json:
        print_json(asdict(removed))
    elif removed.mode == "in-process":
        print(f"{removed.mountpoint} is forgotten (it was never mounted).")
    else:
        print(
            f"{removed.mountpoint} is unmounted" + (" (its program had died)." if removed.was_dead else ".")
        )


def status_command(as_json: Json = False) -> None:
    """List mounts, dead ones and remembered ones."""
    from bevrepro.data.status import status

    found = [one.to_json() for one in status()]
    if as_json:
        print_json({"mounts": found})
    elif not found:
        print("Nothing is mounted or remembered.")
    for one in [] if as_json else found:
        _print_status(one)


def _print_mount(done: dict[str, Any], dry_run: bool) -> None:
    place, names = done["mountpoint"], ", ".join(Path(one["path"]).name for one in done["archives"])
    if done["mode"] == "in-process":
        for sentence in done["missing"]:
            say(f"no mount: {sentence}")
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
