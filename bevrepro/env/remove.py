"""Removing an environment, or only its old builds: what is ours and nothing else."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from bevrepro.core.errors import DiskError
from bevrepro.env.job import end_orphans
from bevrepro.env.layout import LOCK, Layout, held


@dataclass(frozen=True)
class Removal:
    """What would go: the link (None where it stays), builds; `left` is somebody else's and stays."""

    prefix: Path | None
    builds: tuple[Path, ...]
    left: tuple[Path, ...]


def plan_removal(place: Layout, old_only: bool = False) -> Removal:
    """Nothing is touched."""
    ours = [path for path in place.all_builds() if not (old_only and path == place.link)]
    trash = sorted(place.builds.glob(".trash-*")) if place.builds.is_dir() else []
    known = {*ours, *trash, place.lock, *([place.link] if place.link else [])}
    left = sorted(set(place.builds.iterdir()) - known) if place.builds.is_dir() else []
    shown = place.prefix if os.path.lexists(place.prefix) and not old_only else None
    return Removal(shown, (*ours, *trash), tuple(left))


def remove(place: Layout, removal: Removal) -> None:
    """The link first: a half-removed environment is never shown. MachineError while it is being built."""
    with held(place):
        end_orphans(place.builds)
        try:
            if removal.prefix is not None:
                removal.prefix.unlink(missing_ok=True)
            for each in removal.builds:
                away = each if each.name.startswith(".trash-") else each.with_name(f".trash-{each.name}")
                if each != away:
                    each.rename(away)
                shutil.rmtree(away)
        except OSError as error:
            raise DiskError(
                f"could not remove {error.filename}: {error.strerror}",
                "The rest of it is still there.",
                "Make it writable, then run the same command again.",
            ) from error
    if removal.prefix is not None and not removal.left:
        (place.builds / LOCK).unlink(missing_ok=True)
        place.builds.rmdir()
