"""`python -m bevformer data-bench`: make files (--make), or read some in every way there is (--measure)."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from functools import partial
from typing import Any, Dict, List, Tuple

from bevformer.errors import DataError
from bevformer.talk import Talk

from . import bench_measure, bench_set
from .bench_readers import Places, readers
from .store import open_store

WANTED = (  # reader, against, at least; the numbers
    ("tar Store.view", "extracted", 1.5),
    ("tar Store.view, again", "extracted", 1.5),
    ("tar Store.read", "extracted", 1.5),
    ("tar Store.view", "FUSE tar default", 8.0),
    ("tar Store.view", "FUSE tar tuned", 2.0),
    ("tar Store.view, again", "FUSE tar tuned, again", 2.0),
    ("tgz Store spacing 1 MiB", "tgz ratarmountcore gs 16", 8.0),
    ("tgz Store spacing 1 MiB", "FUSE tgz default", 8.0),
)
IN_ORDER = "warm, read in order"
SPACINGS_MIB = [4.0, 1.0, 0.25]
MANY = 200_000


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bevformer data-bench", description=__doc__)
    made.add_argument("--make", metavar="FOLDER", help="write a synthetic set there, and measure nothing")
    made.add_argument("--gb", type=float, default=0.5, help="size of the synthetic set")
    made.add_argument(
        "--measure", nargs="+", metavar="PATH", help="a folder, a .tar and a .tgz of the same files"
    )
    made.add_argument(
        "--mount", action="append", default=[], metavar="NAME=FOLDER", help="a mount of the .tar"
    )
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--index-test", metavar="FOLDER", help="index 200,000 files there as well")
    return made


def main(argv: List[str], talk: Talk) -> int:
    args = parser().parse_args(argv)
    if args.make:
        bench_set.make(
            args.make,
            args.gb,
            args.seed,
            lambda done, all_: talk.progress("make", done >> 20, all_ >> 20, "MiB"),
        )
        talk.result(folder=args.make)
        return 0
    places = _places(args.measure or [], dict(one.split("=", 1) for one in args.mount))
    result: Dict[str, Any] = {"machine": _machine(), "protocol": _protocol(args.rounds)}
    result["classes"], all_rates = _classes(places, args.rounds, args.seed, talk)
    result["wanted"] = [row for case, rates in all_rates.items() for row in _judged(case, rates)]
    if args.index_test:
        result["index"] = index_test(args.index_test)
    talk.result(**result)
    return 0


def _places(paths: List[str], mounts: Dict[str, str]) -> Places:
    found: Dict[str, str] = {}
    for path in paths:
        kind = "folder"
        if not os.path.isdir(path):
            with open(path, "rb") as file:
                kind = "tgz" if file.read(2) == b"\x1f\x8b" else "tar"
        if kind in found:
            raise DataError(
                "%s and %s are both a %s" % (found[kind], path, kind),
                do="Give one of each kind, of the same files.",
            )
        found[kind] = path
    if not found:
        raise DataError("nothing to read from", do="Name archives, or let `bevrepro data bench` make them.")
    return Places(found.get("folder"), found.get("tar"), found.get("tgz"), mounts)


def _classes(places: Places, rounds: int, seed: int, talk: Talk) -> Any:
    """Per class of sizes: its files, and the rates of all readers, warm and cold."""
    given = [path for path in (places.folder, places.tar, places.tgz) if path]
    stores = [open_store([path]) for path in given]
    names = set.intersection(*(set(store.names()) for store in stores))
    sizes = {name: len(stores[0].view(name)) for name in sorted(names)}
    del stores
    ways = readers(places, SPACINGS_MIB)
    base = "extracted" if places.folder else ways[0].name
    found: Dict[str, Any] = {}
    all_rates: Dict[Tuple[str, str], bench_measure.Rates] = {}
    for title, low, high in (("100-200 KB", *bench_set.BIG), ("10-40 KB", *bench_set.SMALL)):
        chosen = [name for name, size in sizes.items() if low <= size <= high]
        if len(chosen) < 100:
            continue
        states = {}
        for state, ways_now in (("warm", ways), (IN_ORDER, [way for way in ways if way.cold])):
            bench_measure.heat(places, chosen, seed, in_order=state == IN_ORDER)
            told = partial(_told, talk, "%s, %s" % (title, state), rounds)
            rates = all_rates[title, state] = bench_measure.warm(ways_now, chosen, rounds, seed, told)
            states[state] = bench_measure.table(rates, base)
        cold = bench_measure.cold(ways, chosen, places, 3, seed)
        found[title] = {
            "files": len(chosen),
            "mean_bytes": sum(sizes[name] for name in chosen) // len(chosen),
            **states,
            "cold": bench_measure.table(cold, base),
        }
    if not found:
        raise DataError(
            "there are no 100 files of 100-200 KB or of 10-40 KB that all the places hold",
            do="Give archives of camera images.",
        )
    return found, all_rates


def _told(talk: Talk, title: str, rounds: int, done: int) -> None:
    talk.progress("measure " + title, done, rounds)


def _judged(case: Tuple[str, str], rates: bench_measure.Rates) -> List[Dict[str, Any]]:
    rows = []
    for name, against, wanted in WANTED:
        if name in rates and against in rates:
            got = bench_measure.ratio(rates, name, against)
            rows.append(
                {
                    "files": case[0],
                    "state": case[1],
                    "reader": name,
                    "against": against,
                    "wanted": wanted,
                    "times": got,
                    "met": got >= wanted,
                }
            )
    return rows


def _protocol(rounds: int) -> Dict[str, Any]:
    return {
        "consumed": bench_measure.CONSUMED,
        "rounds": rounds,
        "order": "readers take turns, each round in another order and with other names; ratios are medians",
        "warm": "all in the page cache, where reading each file once from the disk, in random order, brought "
        "it; each round opens readers anew; `again`: the same files once more",
        IN_ORDER: "the same where archives were read from beginning to end, as a check of them does",
        "cold": "archives and files dropped from the page cache (POSIX_FADV_DONTNEED) before each round",
        "own_cpu": "of this process alone: a FUSE daemon's work is in files_per_s only",
    }


def _machine() -> Dict[str, Any]:
    def text(path: str, key: str) -> str:
        with open(path) as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(key)), "?")

    versions = {}
    for name in ("rapidgzip", "ratarmountcore", "numpy"):
        try:
            versions[name] = str(getattr(__import__(name), "__version__", "?"))
        except ImportError:
            versions[name] = "not installed"
    return {
        "cpu": text("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory": text("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        **versions,
    }


_INDEXER = """
import json, sys, time
from bevformer.data.store import open_store
before = time.process_time()
store = open_store([sys.argv[1]])
cpu_s = time.process_time() - before
with open("/proc/self/status") as status:  # ru_maxrss would be that of the parent, from before the exec
    rss = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
files = len(store.roots[0].members)
print(json.dumps({"files": files, "cpu_s": round(cpu_s, 2), "max_rss_mb": round(rss, 1)}))
"""


def index_test(folder: str) -> Dict[str, Any]:
    """A .tar of 200,000 files indexed, then loaded from the cache, each in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        tar = os.path.join(work, "many.tar")
        bench_set.make_many(tar, MANY)
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        env = dict(os.environ, PYTHONPATH=package, BEVREPRO_CACHE=os.path.join(work, "cache"))
        done = [
            json.loads(subprocess.check_output([sys.executable, "-c", _INDEXER, tar], env=env))
            for _ in range(2)
        ]
        kept = sum(entry.stat().st_size for entry in os.scandir(os.path.join(work, "cache", "index")))
    return {"scanned": done[0], "from_cache": done[1], "index_mb": round(kept / 1e6, 1)}
