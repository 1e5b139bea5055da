"""`python -m bevformer repack IN.tgz... --out DIR`: plain .tar files, which read fastest."""

import argparse
import os
import time
from typing import Any, Dict, List

from bevformer.errors import DataError
from bevformer.talk import Talk

from .repack import repack
from .repack_job import Job, check_room, finished, plan


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bevformer repack", description=__doc__)
    made.add_argument(
        "archives", nargs="+", metavar="ARCHIVE", help="a .tgz; with --keyframes-only a .tar too"
    )
    made.add_argument("--out", required=True, metavar="DIR", help="where the .tar files go")
    made.add_argument("--keyframes-only", action="store_true", help="leave sweeps/ out")
    made.add_argument("--reread", action="store_true", help="read the result back from the disk at the end")
    made.add_argument("--dry-run", action="store_true", help="check everything, say what would be written")
    return made


def main(argv: List[str], talk: Talk) -> int:
    args = parser().parse_args(argv)
    jobs = [plan(path, args.out, args.keyframes_only) for path in args.archives]
    _no_clash(jobs)
    check_room(jobs, args.out)
    if args.dry_run:
        talk.result(dry_run=True, archives=[_planned(job) for job in jobs])
        return 0
    talk.result(dry_run=False, archives=[_made(job, args.reread, talk) for job in jobs])
    return 0


def _no_clash(jobs: List[Job]) -> None:
    outs = [job.out for job in jobs]
    for job in jobs:
        if outs.count(job.out) > 1:
            raise DataError(
                "two archives would become %s" % job.out, do="Repack them into different folders."
            )


def _planned(job: Job) -> Dict[str, Any]:
    return {
        "archive": job.source,
        "out": job.out,
        "expected_bytes": job.expected_bytes,
        "finished": bool(finished(job)),
    }


def _made(job: Job, reread: bool, talk: Talk) -> Dict[str, Any]:
    before_s, was_there = time.monotonic(), bool(finished(job))

    def on_progress(what: str, done: int, total: int) -> None:
        if done >> 20:
            talk.progress(what, done >> 20, max(1, total >> 20), "MiB")

    receipt = repack(job, reread, on_progress)
    keys = ("files", "left_out", "not_followed", "out_bytes", "sha256", "resumed_at_bytes")
    return {
        "archive": job.source,
        "archive_bytes": os.path.getsize(job.source),
        "out": job.out,
        "was_there": was_there,
        "read_back": reread and not was_there,
        "seconds": round(time.monotonic() - before_s, 2),
        **{key: receipt[key] for key in keys},
    }
