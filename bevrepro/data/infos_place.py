"""Where prepared infos go when nobody says: beside what is written, never into what is read."""

import os
from collections.abc import Sequence
from pathlib import Path

from bevrepro.data import remembered

_ENDINGS = (".tar.gz", ".tgz", ".tar", ".zip")


def overlays(roots: Sequence[Path]) -> list[Path]:
    """The writable folders of those roots that are mount points of ours, in order."""
    known = [remembered.get(Path(os.path.realpath(root))) for root in roots]
    return [Path(one.overlay) for one in known if one is not None and one.overlay]


def default_out(roots: Sequence[Path]) -> Path:
    """The overlay of the last mount that has one: what is written there shows up in the mount, where
    upstream's configurations look for it. Else a folder beside the first root: nuscenes -> nuscenes-infos.
    """
    writable = overlays(roots)
    if writable:
        return writable[-1]
    first = Path(os.path.realpath(roots[0]))
    ending = next((one for one in _ENDINGS if first.name.endswith(one) and not first.is_dir()), "")
    name = first.name.removesuffix(ending) or "nuscenes"
    return first.parent / f"{name}-infos"
