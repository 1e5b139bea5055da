"""The words of `train`."""

import argparse
import math
from typing import Sequence

import torch

from .amp import KINDS
from .ladder import ALLOW


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train", description="Train a configuration.")
    parser.add_argument("config", help="a preset, or the config.json of a work folder")
    parser.add_argument("--data-root", action="append", required=True, help="folder or archive; repeatable")
    parser.add_argument("--infos", required=True, help="a prepared file, or the folder that holds it")
    parser.add_argument("--work-dir", required=True, help="where everything is written")
    parser.add_argument(
        "--gpus",
        type=int,
        default=1 if torch.cuda.is_available() else 0,
        help="GPUs of this machine; 0 is the CPU (default: 1 where torch sees a GPU)",
    )
    parser.add_argument(
        "--emulate-gpus",
        type=int,
        metavar="N",
        help="stand for N ranks, one after another on each device (default: as many as the recipe asks for)",
    )
    parser.add_argument("--seed", type=int, help="default 0")
    parser.add_argument("--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    parser.add_argument("--resume-from", metavar="FILE", help="go on from this checkpoint")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="auto|FILE",
        help="auto: from latest.pth in the work folder when there is one",
    )
    parser.add_argument(
        "--init-from",
        metavar="FILE",
        help="initial weights of a fresh run: ImageNet or FCOS3D weights of the backbone, or a detector",
    )
    parser.add_argument(
        "--allow-partial-init", action="store_true", help="start although the file does not fit as a whole"
    )
    parser.add_argument("--no-validate", action="store_true", help="neither evaluate nor remind of it")
    parser.add_argument(
        "--validate-every",
        type=int,
        default=0,
        metavar="N",
        help="evaluate on the val infos after every N epochs (steps, where the recipe counts steps)",
    )
    parser.add_argument(
        "--keep-last",
        type=int,
        metavar="K",
        help="delete older checkpoints; 0 keeps all (default: all epochs; 5 where the recipe counts steps)",
    )
    parser.add_argument(
        "--workers", type=int, help="processes that read images (default: 4 with a GPU, else 0)"
    )
    parser.add_argument("--amp", nargs="?", const="fp16", choices=KINDS, help="mixed precision, or fp64")
    parser.add_argument("--profile", action="store_true", help="trace a few steps into the work folder")
    parser.add_argument(
        "--rank-timeout", type=float, metavar="SECONDS", help="how long processes wait for each other"
    )
    parser.add_argument(
        "--memory",
        metavar="auto|off|NAME,...",
        help="auto: where memory runs out, fall back in ways that keep the result; off: do not; or rungs of "
        "the ladder to begin with (default: auto)",
    )
    parser.add_argument(
        "--allow",
        choices=sorted(ALLOW),
        help="what else may be chosen for want of memory, or be named in --memory",
    )
    parser.add_argument("--deterministic", action="store_true", help="only kernels that repeat bit for bit")
    args = parser.parse_args(argv)
    if args.seed is not None and not 0 <= args.seed < 2**32:
        parser.error("--seed has to be in 0 .. 2**32 - 1")
    for name in ("workers", "keep_last", "validate_every"):
        if (getattr(args, name) or 0) < 0:
            parser.error("--%s cannot be negative" % name.replace("_", "-"))
    if args.rank_timeout is not None and not 0 < args.rank_timeout < math.inf:
        parser.error("--rank-timeout has to be a positive number of seconds")
    if args.resume and args.resume_from:
        parser.error("give --resume or --resume-from, not both")
    if args.resume_from and args.init_from:
        parser.error(
            "--resume-from goes on with a run and its weights; --init-from begins one: give one of them"
        )
    if args.allow_partial_init and not args.init_from:
        parser.error("--allow-partial-init is about the file of --init-from")
    return args
