"""How long `bevrepro data scan` takes for twenty archives of real names and sizes.

    python benchmarks/data_scan.py [--runs 9] > benchmarks/data_scan.json

The archives are as long as the real ones and hold only their first kilobytes and their trailer (files with
holes), so as much is read as of real ones; `can_bus.zip` has as many files as the real one. The whole command
is timed, the start of Python included, and beside it the library call alone.
"""

import argparse
import gzip
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

from bevrepro import __version__
from bevrepro.data.catalogue import Entry, entries
from bevrepro.data.scan import scan

KINDS = ("meta", "blobs", "mini")
CAN_SCENES = 979
MESSAGES = "meta ms_imu pose route steeranglefeedback vehicle_monitor zoe_veh_info zoesensors".split()


def head(entry: Entry) -> bytes:
    """The beginning of such an archive: 2 MB of incompressible members."""
    names = [f"samples/CAM_FRONT/{number}.jpg" for number in range(7)] + ["sweeps/CAM_FRONT/1.jpg"]
    if entry.kind != "blobs":
        names = ([] if entry.kind == "meta" else names) + [f"{entry.version}/scene.json", "maps/a.png"]
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 250_000
            tar.addfile(member, io.BytesIO(os.urandom(member.size)))
    return gzip.compress(raw.getvalue(), 1)


def make(folder: Path) -> int:
    """Twenty archives; returns their number."""
    chosen = [each for each in entries() if each.generation == "current" and each.kind in KINDS and each.size]
    chosen += [each for each in entries() if each.kind == "keyframes"]
    for entry in chosen[:19]:
        with (folder / entry.name).open("wb") as file:
            file.write(head(entry))
            file.truncate(entry.size)
            file.seek(-4, os.SEEK_END)
            file.write((10240).to_bytes(4, "little"))
    with zipfile.ZipFile(folder / "can_bus.zip", "w") as archive:
        for number in range(CAN_SCENES):
            for message in MESSAGES:
                archive.writestr(f"can_bus/scene-{number:04}_{message}.json", "[]")
    return len(chosen[:19]) + 1


def timed(run) -> float:  # type: ignore[no-untyped-def]
    before = time.perf_counter()
    run()
    return time.perf_counter() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        count = make(folder)
        command = [sys.executable, "-m", "bevrepro", "data", "scan", str(folder), "--json"]
        whole_s = [timed(lambda: subprocess.run(command, stdout=subprocess.DEVNULL)) for _ in range(runs)]
        call_s = [timed(lambda: scan([folder])) for _ in range(runs)]
        bytes_ = sum(path.stat().st_size for path in folder.iterdir())
    told = {
        "what": "bevrepro data scan of a folder of archives, warm cache",
        "bevrepro": __version__,
        "archives": count,
        "archive_bytes": bytes_,
        "runs": runs,
        "command_s": {"median": statistics.median(whole_s), "min": min(whole_s), "max": max(whole_s)},
        "call_s": {"median": statistics.median(call_s), "min": min(call_s), "max": max(call_s)},
        "limit_s": 1.0,
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": sys.version.split()[0],
    }
    json.dump(told, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
