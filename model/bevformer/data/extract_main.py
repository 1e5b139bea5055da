"""`bevformer extract`: the small part of a data set as a folder, for programs that only read folders.

Tables, maps and CAN data are what the nuscenes-devkit's NuScenes, NuScenesCanBus and DetectionEval open;
pictures and clouds stay in the archives. Names are those of the store, which lets none point outside.
"""

import argparse
import os
import shutil
import tempfile
from typing import List

from bevformer.errors import ConfigError, DataError, DiskError
from bevformer.talk import Talk

from .store import Store, open_store
from .tar_index import safe_name

SMALL = ("v1.0-mini", "v1.0-trainval", "v1.0-test", "maps", "can_bus")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bevformer extract", description=__doc__)
    parser.add_argument("--data-root", action="append", required=True, metavar="DIR|ARCHIVE")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new or an empty folder")
    parser.add_argument(
        "--only",
        action="append",
        metavar="FOLDER",
        help="in the data, such as can_bus; may be repeated (default: tables, maps and CAN data)",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be written")
    return parser


def main(argv: List[str], talk: Talk) -> int:
    args = _parser().parse_args(argv)
    out = os.path.realpath(args.out)
    _check_out(out)
    store = open_store(args.data_root)
    names = _names(store, args.only)
    written = 0 if args.dry_run else _write(store, names, out, talk)
    talk.result(out=out, files=len(names), bytes=written, dry_run=args.dry_run)
    return 0


def _check_out(out: str) -> None:
    if os.path.lexists(out) and (not os.path.isdir(out) or os.listdir(out) or os.path.ismount(out)):
        raise DataError(
            "%s is there already and is not an empty folder" % out,
            "Nothing of yours is overwritten.",
            "Name a new folder.",
        )


def _names(store: Store, only: List[str]) -> List[str]:
    """What is asked for.  ConfigError for a folder that no root has."""
    names = {folder: store.names(safe_name(folder, "--only")) for folder in only or SMALL}
    for folder in only or ():
        if not names[folder]:
            raise ConfigError(
                "nothing in the data lies below %s" % folder, do="`bevrepro data scan` shows what there is."
            )
    if not any(names.values()):
        raise DataError(
            "neither tables, maps nor CAN data are in %s" % ", ".join(root.path for root in store.roots),
            do="Add the archive that holds them, such as v1.0-mini.tgz or v1.0-trainval_meta.tgz.",
        )
    return sorted({name for found in names.values() for name in found})


def _write(store: Store, names: List[str], out: str, talk: Talk) -> int:
    """Into a folder beside `out`, which is then renamed: `out` is whole or absent.  Returns the bytes."""
    parent, name = os.path.split(out)
    written = 0
    try:
        os.makedirs(parent, exist_ok=True)
        building = tempfile.mkdtemp(prefix=".%s.extract-" % name, dir=parent)
        try:
            for done, file in enumerate(names):
                talk.progress("extract", done, len(names), file)
                path = os.path.join(building, file)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as stream:
                    written += stream.write(store.read(file))
            os.sync()  # once, for thousands of small files
            os.chmod(building, 0o755)
            os.replace(building, out)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        raise DiskError(
            "could not write %s: %s" % (out, error.strerror),
            "Nothing of it is left.",
            "Free some space or name another folder, then run the same command again.",
        ) from error
    talk.progress("extract", len(names), len(names), "")
    return written
