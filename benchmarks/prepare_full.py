"""`prepare` and loading at full size: wall clock, CPU and memory, as JSON.

    python benchmarks/full_tables.py SCRATCH
    python benchmarks/prepare_full.py SCRATCH [--json benchmarks/prepare_full.json]

SCRATCH needs 1 GB more for the infos, which are removed again.  Memory is that of all processes together:
`rss` as the sum of what each has resident (shared pages counted once per process), `pss` with shared pages
shared out.  Loading is measured in a process of its own each: the pickle, the twin, and the data set with
four forked workers that read every frame's boxes; both have to give the same bytes.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
EVERY_S = 0.25
LOAD = """
import hashlib, json, os, resource, sys, time
sys.path.insert(0, {model!r})
started = time.perf_counter()
from bevformer.data import dataset, infos as file
from bevformer.config import bevformer_tiny
imported = time.perf_counter()
path, way = sys.argv[1:]
found = file.load_infos(path) if way == "twin" else file.from_object(file.read_object(path), path)
loaded = time.perf_counter()
queue = dataset.NuScenesQueue(found, None, bevformer_tiny(), training=True)
built = time.perf_counter()
def private_mib():
    with open("/proc/self/smaps_rollup") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
before, pipes = private_mib(), []
for worker in range(4):
    read, write = os.pipe()
    if os.fork() == 0:
        total = hashlib.sha256(queue._lidar2img_FN44.tobytes() + queue._can_bus_F18.tobytes())
        for info in found.infos:
            boxes, labels = dataset.ground_truth(info, bevformer_tiny().head.pc_range_m)
            total.update(boxes.tobytes() + labels.tobytes() + info["token"].encode())
            total.update(info["cams"]["CAM_BACK"]["data_path"].encode())
        os.write(write, json.dumps([total.hexdigest(), private_mib()]).encode())
        os._exit(0)
    pipes.append(read)
said = [json.loads(os.read(pipe, 4096)) for pipe in pipes]
print(json.dumps(dict(
    frames=len(found.infos), load_s=round(loaded - imported, 3), data_set_s=round(built - loaded, 3),
    peak_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    private_mib=round(before), worker_private_mib=[round(one) for _, one in said],
    digests=[one for one, _ in said],
)))
"""


def prepare(scratch: Path, out: Path, jobs: int) -> dict:
    """Runs it and watches its processes."""
    command = [sys.executable, "-m", "bevformer", "prepare", "--out", str(out), "--jobs", str(jobs)]
    for root in ("tables", "images.tar"):
        command += ["--data-root", str(scratch / root)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "model")}
    load, started = os.getloadavg()[0], time.monotonic()
    child = psutil.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    rss, pss, cpu = 0, 0, {}
    while child.poll() is None:
        now_rss = now_pss = 0
        for one in [child, *_children(child)]:
            try:
                memory, times = one.memory_full_info(), one.cpu_times()
            except psutil.Error:
                continue
            now_rss, now_pss = now_rss + memory.rss, now_pss + memory.pss
            cpu[one.pid] = times.user + times.system
        rss, pss = max(rss, now_rss), max(pss, now_pss)
        time.sleep(EVERY_S)
    said = json.loads(child.stdout.read())
    return dict(
        seconds=round(time.monotonic() - started, 1),
        cpu_seconds=round(sum(cpu.values()), 1),
        peak_rss_mib=round(rss / 2**20),
        peak_pss_mib=round(pss / 2**20),
        jobs=jobs,
        load_before=round(load, 2),
        frames=said["frames"],
        zero_can_scenes=len(said["zero_can_scenes"]),
        files={name: size_of(out / name) for name in sorted(os.listdir(out))},
    )


def _children(process: psutil.Process) -> list:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def size_of(path: Path) -> int:
    """Bytes of a file or of all in a folder."""
    return sum(one.stat().st_size for one in ([path] if path.is_file() else path.iterdir()))


def load(path: Path, way: str) -> dict:
    code = LOAD.format(model=str(ROOT / "model"))
    run = subprocess.run(
        [sys.executable, "-c", code, str(path), way], check=True, capture_output=True, text=True
    )
    return json.loads(run.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--times", type=int, default=1, help="repetitions; the fastest is reported, all are listed"
    )
    parser.add_argument("--note", default="", help="what else ran on the machine, kept in the report")
    args = parser.parse_args()
    out = args.scratch / "infos"
    runs = []
    for _ in range(args.times):
        shutil.rmtree(out, ignore_errors=True)
        runs.append(prepare(args.scratch, out, jobs=2))
        print(json.dumps(runs[-1]), file=sys.stderr)
    path = out / "nuscenes_infos_temporal_train.pkl"
    for way in ("pickle", "twin"):
        load(path, way)  # so that both are measured with the files in memory
    loads = {way: load(path, way) for way in ("pickle", "twin")}
    digests = {one for found in loads.values() for one in found.pop("digests")}
    best = min(runs, key=lambda run: run["seconds"])
    report = dict(
        note=args.note,
        machine=dict(
            cpus=len(os.sched_getaffinity(0)), cpu=platform.processor(), python=platform.python_version()
        ),
        tables={
            one.name: one.stat().st_size for one in sorted((args.scratch / "tables/v1.0-trainval").iterdir())
        },
        prepare=best,
        all_runs=[{key: run[key] for key in ("seconds", "cpu_seconds", "load_before")} for run in runs],
        load=loads,
        load_ratio=round(loads["pickle"]["load_s"] / loads["twin"]["load_s"], 1),
        same_bytes=len(digests) == 1,
    )
    shutil.rmtree(out)
    text = json.dumps(report, indent=2) + "\n"
    print(text)
    if args.json:
        args.json.write_text(text)


if __name__ == "__main__":
    main()
