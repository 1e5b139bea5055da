"""`python -m bevformer store`: look into a data root as the data set would read it."""

import argparse
import sys
from typing import List

from bevformer.talk import Talk

from .gzip_index import SPACING_BYTES
from .gzip_tar import spacing_of
from .store import Store, open_store


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bevformer store", description=__doc__)
    made.add_argument(
        "--data-root",
        action="append",
        required=True,
        metavar="FOLDER_OR_ARCHIVE",
        help="may be repeated; where two hold a file, the last one wins",
    )
    made.add_argument(
        "--spacing",
        type=float,
        default=SPACING_BYTES / (1 << 20),
        metavar="MIB",
        help="between the seek points of a .tgz: less reads faster, from a larger index",
    )
    what = made.add_mutually_exclusive_group()
    what.add_argument("--list", metavar="PREFIX", help="names of the files under a folder, one a line")
    what.add_argument("--cat", metavar="NAME", help="write one file to stdout")
    what.add_argument("--check", action="store_true", help="read every file once")
    return made


def _check(store: Store, talk: Talk) -> int:
    """Reads everything; the first broken file is the error."""
    names = store.names("")
    total_bytes = 0
    for done, name in enumerate(names, 1):
        total_bytes += len(store.read(name))
        talk.progress("check", done, len(names), name)
    talk.result(checked=len(names), bytes=total_bytes, **store.describe())
    return 0


def main(argv: List[str], talk: Talk) -> int:
    args = parser().parse_args(argv)
    store = open_store(args.data_root, spacing_of(args.spacing))
    if args.check:
        return _check(store, talk)
    if args.cat is not None:
        data = store.read(args.cat)
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    elif args.list is not None:
        names = store.names(args.list)
        sys.stdout.write("".join(name + "\n" for name in names))
    else:
        talk.result(**store.describe())
    return 0
