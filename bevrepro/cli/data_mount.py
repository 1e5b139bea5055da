"""`bevrepro data mount|umount|status`: archives as one read-only folder."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option, Typer

from bevrepro.cli.data_common import DryRun, Json, print_json, say

if TYPE_CHECKING:
    from bevrepro.data.mount import Plan, Wanted


def register(data: Typer) -> None:
    """Add the commands."""
    data.command("mount")(mount_command)
    data.command("umount")(umount_command)
    data.command("status")(status_command)


def mount_command(
    archives: Annotated[
        list[Path] | None, Argument(metavar="ARCHIVE...", help=".tgz, .tar, .zip, or a folder.")
    ] = None,
    mountpoint: Annotated[
        Path | None, Argument(metavar="MOUNTPOINT", help="A new or an empty folder.", show_default=False)
    ] = None,
    overlay: Annotated[
        Path | None,
        Option(
            "--overlay", help="A writable folder shown on top of all: put infos there.", show_default=False
        ),
    ] = None,
    in_process: Annotated[
        bool, Option("--in-process", help="Do not mount: training reads the archives itself.")
    ] = False,
    allow_other: Annotated[bool, Option("--allow-other", help="Let other users read it, too.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Show archives as one read-only folder; where several hold a file, the last one wins.

    Nothing is extracted. Where FUSE is missing, the archives are remembered and training reads them itself.
    With MOUNTPOINT alone, what is remembered there is mounted again; with nothing at all, everything that is
    remembered and not mounted, as after a reboot.
    """
    from bevrepro.data.mount import Wanted

    if archives and mountpoint is not None:
        wanted = Wanted(tuple(archives), mountpoint, overlay, in_process, allow_other)
        _mount(wanted, dry_run, as_json)
    else:
        # The parser gives a single word to the list.
        single = mountpoint or (archives[0] if archives else None)
        _check_again(overlay, in_process, allow_other)
        _mount_again(single, dry_run, as_json)


def _check_again(overlay: Path | None, in_process: bool, allow_other: bool) -> None:
    if overlay is not None or in_process or allow_other:
        from typer import BadParameter

        raise BadParameter("name the archives, too: what is remembered is mounted as it was")


def _mount(wanted: "Wanted", dry_run: bool, as_json: bool) -> None:
    done = _do_mount(wanted, dry_run)
    if as_json:
        print_json({**done.to_json(), "dry_run": dry_run})
    else:
        _print_mount(done.to_json(), dry_run)


def _mount_again(mountpoint: Path | None, dry_run: bool, as_json: bool) -> None:
    """Each for itself: archives of one that are missing do not keep the others away."""
    from bevrepro.core.errors import UserError
    from bevrepro.data.again import wanted_again

    done, failed = [], []
    for wanted in wanted_again(mountpoint):
        try:
            done.append(_do_mount(wanted, dry_run).to_json())
        except UserError as error:
            failed.append(error)
            say(
                "\n  ".join(
                    line for line in (f"{wanted.mountpoint}: {error.seen}", error.why, error.do) if line
                )
            )
    if as_json:
        print_json({"mounts": done, "failed": [error.seen for error in failed], "dry_run": dry_run})
    elif not done and not failed:
        print("Nothing that is remembered has to be mounted again.")
    for one in [] if as_json else done:
        _print_mount(one, dry_run)
    if failed:
        raise Exit(failed[0].exit_code)


def _do_mount(wanted: "Wanted", dry_run: bool) -> "Plan":
    from bevrepro.data import mount as mounting
    from bevrepro.data import remembered

    planned = mounting.plan_for(wanted)
    for note in planned.judgement.notes:
        say(note)
    if dry_run:
        if planned.judgement.refusal is not None:
            raise planned.judgement.refusal
        return planned
    done = mounting.mount(planned, say)
    if done.mode == remembered.IN_PROCESS:
        _open_in_process(done)
    return done


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
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take a mount away and forget its archives; a dead one is cleaned up. Archives and overlay stay."""
    from dataclasses import asdict

    from bevrepro.data.unmount import umount

    removed = umount(mountpoint, dry_run)
    verb = "would be" if dry_run else "is"
    if as_json:
        print_json({**asdict(removed), "dry_run": dry_run})
    elif removed.mode == "in-process":
        print(f"{removed.mountpoint} {verb} forgotten (it was never mounted).")
    else:
        died = " (its program had died)" if removed.was_dead else ""
        print(f"{removed.mountpoint} {verb} unmounted{died}.")


def status_command(as_json: Json = False) -> None:
    """List mounts, dead ones and remembered ones; archives that changed or are gone."""
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
    place = shlex.quote(one["mountpoint"])
    again = f"bevrepro data mount {place} mounts it again"
    meaning = {
        "mounted": "mounted, read-only",
        "dead": f"dead: its program has ended; {again}",
        "stuck": f"stuck: its program does not answer; bevrepro data umount {place}, then mount it again",
        "gone": f"not mounted any more, training reads the archives; {again}",
        "in-process": "no mount; training reads the archives",
    }
    print(f"{one['mountpoint']}: {meaning[one['state']]}")
    for archive in one["archives"]:
        print(f"  {archive}{_remark(archive, one)}")


def _remark(archive: str, one: dict[str, Any]) -> str:
    if archive in one["missing_archives"]:
        return "  MISSING: put it back" + (", the mount ends with it" if one["state"] == "mounted" else "")
    if archive in one["changed_archives"]:
        return "  CHANGED since it was mounted: umount, then mount again"
    return "  (writable)" if archive == one["overlay"] else ""
