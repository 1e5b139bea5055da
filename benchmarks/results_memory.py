"""Memory of a results file of nuScenes val's size: written, checked for the test server, shared out, scored.

    python benchmarks/results_memory.py SCRATCH [--samples 6019] [--boxes 300] [--json FILE]

Makes tables of that many lidar keyframes in the scenes of val, with 31 true boxes each, and a results file of
that many boxes (about 1 GB), of which those 31 lie near the true ones.  Every step is a process of its own;
`mib` is the most resident memory it had, `before_mib` what it had once everything was imported.
"""

# ruff: noqa: TID251 - these steps are the model plane's

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "model"))
TRUE_BOXES = 31  # 187,528 annotations in 6,019 samples of val
STEPS = ("write", "check", "share", "score")
CATEGORY = {
    "car": "vehicle.car",
    "truck": "vehicle.truck",
    "bus": "vehicle.bus.rigid",
    "trailer": "vehicle.trailer",
    "construction_vehicle": "vehicle.construction",
    "pedestrian": "human.pedestrian.adult",
    "motorcycle": "vehicle.motorcycle",
    "bicycle": "vehicle.bicycle",
    "traffic_cone": "movable_object.trafficcone",
    "barrier": "movable_object.barrier",
}


def truth_of(sample: int):
    """(31, 9) boxes in the lidar frame and their classes; within the range of every class."""
    import numpy as np

    rng = np.random.RandomState(sample)
    angle, far_m = rng.uniform(-math.pi, math.pi, TRUE_BOXES), rng.uniform(3, 28, TRUE_BOXES)
    place = np.stack([far_m * np.cos(angle), far_m * np.sin(angle), np.zeros(TRUE_BOXES)], 1)
    size, yaw = rng.uniform(0.5, 5, (TRUE_BOXES, 3)), rng.uniform(-3, 3, (TRUE_BOXES, 1))
    return np.concatenate([place, size, yaw, np.zeros((TRUE_BOXES, 2))], 1), rng.randint(0, 10, TRUE_BOXES)


def make_tables(folder: Path, samples: int) -> None:
    """tables/v1.0-trainval: what scoring reads, and the files it wants to be there."""
    from nuscenes.utils import splits

    from bevformer.types import CLASSES

    folder.mkdir(parents=True)
    names = sorted(splits.val)
    rows = {
        name: [] for name in ("scene", "sample", "sample_data", "ego_pose", "sample_annotation", "instance")
    }
    for number in range(samples):
        scene = number * len(names) // samples
        if scene == len(rows["scene"]):
            rows["scene"].append(dict(token=f"scene{scene}", name=names[scene], log_token="log"))
        token = f"{number:032x}"
        rows["sample"].append(
            dict(token=token, timestamp=number * 500_000, scene_token=f"scene{scene}", prev="", next="")
        )
        rows["sample_data"].append(
            dict(token=token, sample_token=token, ego_pose_token=token, calibrated_sensor_token="c",
                 is_key_frame=True)
        )  # fmt: skip
        rows["ego_pose"].append(dict(token=token, rotation=[1.0, 0, 0, 0], translation=[0.0, 0.0, 0.0]))
        boxes, labels = truth_of(number)
        for k, (box, label) in enumerate(zip(boxes, labels)):
            mark, turn = f"{number:024x}{k:08x}", -box[6] / 2 - math.pi / 4
            rows["sample_annotation"].append(
                dict(token=mark, sample_token=token, instance_token=mark, visibility_token="4",
                     prev="", next="", attribute_tokens=[], translation=box[:3].tolist(),
                     size=box[3:6].tolist(), rotation=[math.cos(turn), 0.0, 0.0, math.sin(turn)],
                     num_lidar_pts=5, num_radar_pts=0)
            )  # fmt: skip
            rows["instance"].append(dict(token=mark, category_token=CLASSES[label]))
    rows["category"] = [dict(token=name, name=CATEGORY[name]) for name in CLASSES]
    rows["sensor"] = [dict(token="s", channel="LIDAR_TOP", modality="lidar")]
    rows["calibrated_sensor"] = [dict(token="c", sensor_token="s")]
    rows["log"] = [dict(token="log", logfile="log")]
    rows["map"] = [dict(token="map", log_tokens=["log"])]
    for name in (*rows, "attribute", "visibility"):
        (folder / f"{name}.json").write_text(json.dumps(rows.get(name, [])))


def write(scratch: Path, samples: int, boxes: int) -> Iterator[None]:
    import numpy as np
    import torch

    from bevformer.results import ResultsWriter, format_sample
    from bevformer.types import Detections

    here = dict(lidar2ego_rotation=[1, 0, 0, 0], lidar2ego_translation=[0, 0, 0])
    here.update(ego2global_rotation=[1, 0, 0, 0], ego2global_translation=[0, 0, 0])
    yield
    with ResultsWriter(str(scratch / "results.json")) as writer:
        for number in range(samples):
            rng = np.random.RandomState(number)
            true, labels = truth_of(number)
            near = true + rng.normal(0, [[0.5, 0.5, 0.1, 0, 0, 0, 0.1, 0.5, 0.5]], true.shape)
            rest = np.concatenate([truth_of(samples + number + k)[0] for k in range(boxes // TRUE_BOXES)])
            found = np.concatenate([near, rest])[:boxes]
            scores = np.concatenate([rng.uniform(0.3, 1, len(near)), rng.uniform(0, 0.4, len(rest))])[:boxes]
            classes = np.concatenate([labels, rng.randint(0, 10, len(rest))])[:boxes]
            drawn = Detections(
                torch.from_numpy(found).float(), torch.from_numpy(scores).float(), torch.from_numpy(classes)
            )
            token = f"{number:032x}"
            writer.add(token, format_sample(drawn, dict(here, token=token)))


def check(scratch: Path, samples: int, boxes: int) -> Iterator[None]:
    from bevformer.results_read import check_submission

    yield
    check_submission(str(scratch / "results.json"), [f"{number:032x}" for number in range(samples)])


def share(scratch: Path, samples: int, boxes: int) -> Iterator[None]:
    """Into every second sample and the others, as `--subset labelled --subset between` does."""
    from bevformer.results_share import share_out

    yield
    tokens = [f"{number:032x}" for number in range(samples)]
    subsets = {"one": tokens[::2], "other": tokens[1::2]}
    folders = {name: str(scratch / name) for name in subsets}
    for folder in folders.values():
        os.makedirs(folder, exist_ok=True)
    share_out(str(scratch / "results.json"), subsets, folders, lambda found: None)
    for folder in folders.values():
        os.remove(os.path.join(folder, "results.json"))


def score(scratch: Path, samples: int, boxes: int) -> Iterator[None]:
    from bevformer import devkit
    from bevformer.data.store import open_store
    from bevformer.talk import Talk

    yield
    talk, tokens = Talk(events=False), [f"{number:032x}" for number in range(samples)]
    nusc = devkit.load_ground_truth(
        open_store([str(scratch / "tables")]), "v1.0-trainval", talk, frozenset(tokens)
    )
    found = devkit.score(nusc, str(scratch / "results.json"), tokens, "val", str(scratch / "metrics"), talk)
    print(json.dumps({key: found[key] for key in ("mAP", "NDS")}))


def peak_mib() -> int:
    """Of this program alone: getrusage's peak is that of the parent too, which survives exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def run_step(name: str, scratch: Path, samples: int, boxes: int) -> None:
    """In a process of its own; the step yields once when everything is imported."""
    step = globals()[name](scratch, samples, boxes)
    next(step)
    before, started_s = peak_mib(), time.monotonic()
    for _ in step:
        pass
    seconds = round(time.monotonic() - started_s, 1)
    print(json.dumps(dict(mib=peak_mib(), before_mib=before, seconds=seconds)))


def measured(name: str, args: argparse.Namespace) -> dict:
    words = [sys.executable, __file__, str(args.scratch), "--step", name]
    words += ["--samples", str(args.samples), "--boxes", str(args.boxes)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {key: value for line in lines for key, value in line.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--samples", type=int, default=6019)
    parser.add_argument("--boxes", type=int, default=300)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--note", default="", help="what else ran on the machine, kept in the report")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.step:
        run_step(args.step, args.scratch, args.samples, args.boxes)
        return
    if not (args.scratch / "tables").exists():
        make_tables(args.scratch / "tables" / "v1.0-trainval", args.samples)
    steps = {name: measured(name, args) for name in args.steps}
    if args.json and args.json.exists():  # of other steps, made before
        steps = {**json.loads(args.json.read_text())["steps"], **steps}
    report = dict(
        note=args.note,
        machine=dict(cpus=len(os.sched_getaffinity(0)), python=platform.python_version()),
        samples=args.samples,
        boxes_per_sample=args.boxes,
        results_mb=round((args.scratch / "results.json").stat().st_size / 1e6),
        steps=steps,
    )
    text = json.dumps(report, indent=1) + "\n"
    print(text, end="")
    if args.json:
        args.json.write_text(text)


if __name__ == "__main__":
    main()
