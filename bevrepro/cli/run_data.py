"""What commands on prepared frames share: where the images are, and where the infos."""

import sys
from pathlib import Path
from typing import Annotated, Any

from typer import Option

Roots = Annotated[
    list[Path] | None,
    Option(
        "--data-root",
        help="A mount point, folder or archive; may be repeated, the last one wins. "
        "By default data/nuscenes, else the folder of --infos.",
    ),
]
InfosPath = Annotated[
    Path, Option("--infos", help="A file from `bevrepro data prepare`, or the folder that holds both.")
]


def data(data_root: list[Path] | None, infos: Path) -> list[Any]:
    """--data-root for every root, and --infos. A choice made here is said aloud."""
    from bevrepro.data.roots import resolve

    if not data_root:
        folder = Path("data/nuscenes")
        chosen = folder if folder.is_dir() else infos if infos.is_dir() else infos.parent
        print(f"No --data-root given: reading images from {chosen}", file=sys.stderr)
        data_root = [chosen]
    roots = [part for root in resolve(data_root) for part in ("--data-root", root)]
    return [*roots, "--infos", infos]
