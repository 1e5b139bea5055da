"""`python -m bevformer.bench KIND ...`: how fast things are here, and how much memory they take.

    python -m bevformer.bench ops        the attentions: every installed implementation, side by side
    python -m bevformer.bench step       a training step against a plain grid_sample version in fp32
    python -m bevformer.bench infer      the same for a frame of a video
    python -m bevformer.bench loader     reading samples: CPU time and bytes
    python -m bevformer.bench memory     a training step's memory, rung by rung; needs no GPU
    python -m bevformer.bench --compare A.json B.json
    python -m bevformer.bench --plot FILE.png JSON...

Each KIND has --help.  --out FILE writes a document of `bench_common`'s schema, else it goes to stdout.
"""

import argparse
import importlib
import sys
from typing import Sequence

from .bench_common import KINDS
from .errors import ConfigError
from .talk import Talk


def main(argv: Sequence[str], talk: Talk) -> int:
    """Raises ConfigError for a kind that there is not."""
    if argv and argv[0] in KINDS:
        return int(importlib.import_module(".bench_" + argv[0], __package__).main(argv[1:], talk))
    if argv and not argv[0].startswith("-"):
        raise ConfigError("no such benchmark: %r" % argv[0], do="One of: " + ", ".join(KINDS))
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--compare", nargs=2, metavar="JSON", help="two files of one kind, row by row")
    what.add_argument("--plot", nargs="+", metavar="FILE", help="a picture, then the files to draw")
    args = parser.parse_args(argv)
    if args.compare:
        from .bench_compare import compare

        return compare(args.compare, talk)
    from .bench_plot import plot

    return plot(args.plot[0], args.plot[1:], talk)


if __name__ == "__main__":
    from .__main__ import main as start

    sys.exit(start(["bench", *sys.argv[1:]]))
