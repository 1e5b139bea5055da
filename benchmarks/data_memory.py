"""Memory of `bevrepro data index` and of a mount that served random reads, beside ratarmount's defaults.

    python benchmarks/data_memory.py WORK [--archives 4] [--gb 1.1] [--reads 10000] [--defaults] [--out FILE]

Makes archives of JPEG-like bytes in WORK/archives (deflate finds nothing to repeat, but codes it: with stored
blocks everything looks better than it is), unless they are there. Every number is of whole process trees,
sampled every 20 ms: the sum of resident sets, which counts shared libraries once per process. Prints JSON.
"""

import argparse
import gzip
import io
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
EVERY_S = 0.02
TABLE = bytes(value if value < 240 else value - 16 for value in range(256))  # 7.9 bits of entropy per byte
LIMITS_MB = {"index": 256, "mount": 500}


def make_archives(folder: Path, count: int, gb: float) -> list[Path]:
    """partNN_blobs.tgz with members of 100 to 200 kB; the same bytes for the same arguments."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"part{number:02}_blobs.tgz" for number in range(1, count + 1)]
    rng = random.Random(0)
    pool: list[bytes] = []
    for number, path in enumerate(paths, 1):
        if path.exists():
            continue
        pool = pool or [rng.randbytes(rng.randint(100_000, 200_000)).translate(TABLE) for _ in range(300)]
        part = path.with_suffix(".part")
        _write(part, number, pool, int(gb * 1e9))
        os.replace(part, path)
    return paths


def _write(path: Path, number: int, pool: list[bytes], total_b: int) -> None:
    with gzip.open(path, "wb", compresslevel=6) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        done_b = count = 0
        while done_b < total_b:
            content = pool[(count * 7 + number) % len(pool)]
            entry = tarfile.TarInfo(f"samples/CAM_{count % 6}/part{number:02}_{count:06}.jpg")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
            done_b, count = done_b + len(content), count + 1


class Tree:
    """Peak memory of this process' descendants, while the block runs."""

    def __init__(self) -> None:
        self.peak_b = self.single_b = self.most_processes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Tree":
        self._thread.start()
        return self

    def __exit__(self, *caught: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(EVERY_S):
            sizes = [size for size in map(resident_b, psutil.Process().children(recursive=True)) if size]
            self.peak_b = max(self.peak_b, sum(sizes))
            self.single_b = max([self.single_b, *sizes])
            self.most_processes = max(self.most_processes, len(sizes))


def resident_b(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it has just ended
        return 0


def measured(run: Callable[[], Any]) -> dict[str, Any]:
    """Peak, CPU and wall time of what `run` starts and waits for."""
    before, began_s = os.times(), time.monotonic()
    with Tree() as tree:
        run()
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return {
        "peak_mb": round(tree.peak_b / 1e6, 1),
        "largest_process_mb": round(tree.single_b / 1e6, 1),
        "processes_at_once": tree.most_processes,
        "cpu_s": round(cpu_s, 1),
        "wall_s": round(time.monotonic() - began_s, 1),
    }


def bevrepro(*words: Any) -> str:
    command = [sys.executable, "-m", "bevrepro", "data", *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def index(archives: Path) -> dict[str, Any]:
    """The whole command from an empty cache, for each use and for both, and again when all is done."""
    found = {}
    for use in ("reader", "mount", "both"):
        shutil.rmtree(os.environ["BEVREPRO_CACHE"], ignore_errors=True)
        found[use] = measured(lambda use=use: bevrepro("index", archives, "--for", use))
    forecast = json.loads(bevrepro("index", archives, "--dry-run", "--json"))
    kept = [path for path in Path(os.environ["BEVREPRO_CACHE"]).rglob("*") if path.is_file()]
    assert forecast["to_do"] == []
    found["again"] = measured(lambda: bevrepro("index", archives))
    return {**found, "cache_mb": round(sum(path.stat().st_size for path in kept) / 1e6, 1)}


def reads(place: Path, count: int) -> dict[str, Any]:
    """Whole random files from a mount; what its program holds after each thousand."""
    daemon = next(one for one in psutil.process_iter() if _serves(one, place))
    names = sorted(path for path in place.glob("samples/*/*"))
    rng, began_s = random.Random(1), time.monotonic()
    held_mb = {0: round(resident_b(daemon) / 1e6, 1)}
    for number in range(1, count + 1):
        assert rng.choice(names).read_bytes()
        if number % 1000 == 0 or number == count:
            held_mb[number] = round(resident_b(daemon) / 1e6, 1)
    return {
        "files": len(names),
        "daemon_mb_after_reads": held_mb,
        "daemon_peak_mb": round(_peak_kb(daemon.pid) / 1e3, 1),
        "files_per_s": round(count / (time.monotonic() - began_s)),
    }


def _serves(process: psutil.Process, place: Path) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return str(place) in words and any(word.endswith("ratarmount") for word in words)


def _peak_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def mount(archives: list[Path], place: Path, count: int) -> dict[str, Any]:
    bevrepro("mount", *archives, place)
    try:
        return reads(place, count)
    finally:
        bevrepro("umount", place)


def defaults(archives: list[Path], place: Path, count: int) -> dict[str, Any]:
    """ratarmount alone: the same archives, unindexed, in one mount, with its own options."""
    folder = place.with_name("default-indexes")
    shutil.rmtree(folder, ignore_errors=True)
    place.mkdir(exist_ok=True)
    command = [BIN / "ratarmount", "-f", "--index-folders", json.dumps([str(folder)]), *archives, place]
    with (
        Tree() as tree,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run,
    ):
        try:
            for _ in _until_mounted(place, run):
                pass
            indexing_b = tree.peak_b
            return {"indexing_and_mounting_peak_mb": round(indexing_b / 1e6, 1), **reads(place, count)}
        finally:
            subprocess.run(["umount", place], check=False)
            run.terminate()


def _until_mounted(place: Path, run: "subprocess.Popen[bytes]") -> Iterator[None]:
    while not os.path.ismount(place):
        if run.poll() is not None:
            raise SystemExit(f"ratarmount ended with {run.returncode}")
        time.sleep(0.1)
        yield


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="scratch folder; archives there are used again")
    parser.add_argument("--archives", type=int, default=4)
    parser.add_argument("--gb", type=float, default=1.1)
    parser.add_argument("--reads", type=int, default=10_000)
    parser.add_argument("--defaults", action="store_true", help="also measure ratarmount without our options")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    work = args.work.resolve()
    os.environ.update(BEVREPRO_CACHE=str(work / "cache"), BEVREPRO_STATE=str(work / "state"))
    paths = make_archives(work / "archives", args.archives, args.gb)
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "packages": {name: version(name) for name in ("ratarmount", "ratarmountcore", "rapidgzip")},
        "archives": {"count": len(paths), "gb": round(sum(path.stat().st_size for path in paths) / 1e9, 2)},
        "limits_mb": LIMITS_MB,
        "index": index(work / "archives"),
        "mount": mount(paths, work / "mnt", args.reads),
    }
    if args.defaults:
        report["ratarmount_defaults"] = defaults(paths, work / "mnt-default", min(args.reads, 300))
    report["within_limits"] = {
        "index": report["index"]["both"]["peak_mb"] < LIMITS_MB["index"],
        "mount": report["mount"]["daemon_peak_mb"] < LIMITS_MB["mount"],
    }
    text = json.dumps(report, indent=1) + "\n"
    print(text, end="")
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
