"""`python -m bevformer index`: make the seek points of .tgz archives ahead of time."""

import argparse
import os
from typing import List

from bevformer.talk import Talk

from . import gzip_tar


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bevformer index", description=__doc__)
    made.add_argument("archives", nargs="+", metavar="ARCHIVE", help="a .tgz")
    made.add_argument("--check", action="store_true", help="only say which are done")
    return made


def main(argv: List[str], talk: Talk) -> int:
    args = parser().parse_args(argv)
    found = []
    for path in args.archives:
        done = gzip_tar.is_indexed(path)
        if not (done or args.check):
            gzip_tar.index(path)
        found.append({"path": os.path.realpath(path), "was_done": done})
    talk.result(archives=found)
    return 0
