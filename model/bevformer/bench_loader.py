"""`python -m bevformer.bench loader`: what a training sample costs until the training process has it.

    python -m bevformer.bench loader [--preset base tiny] [--device cpu|cuda] [--repeats N] [--seconds S]
                                     [--who NAME...] [--out FILE]

One worker process reads whole training queues from JPEGs in the page cache; CPU time is that of the worker
and of the training process together, all threads, from one sample's arrival to the next one's.

float           the reference's path: decoded, distorted, normalised, scaled and padded in the worker
worker          ours with ops.pixels=worker: the same floats
uint8           ours with ops.pixels=device: bytes; the rest is left to the device (`finish`, measured apart)
uint8 simplejpeg, uint8 half    the same with ops.decoder=simplejpeg, cv2-half
"""

import argparse
import importlib.util
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import cv2
import numpy as np
import torch
from torch import Tensor

from . import pixels
from .bench_common import (
    Protocol,
    add_options,
    begin,
    check_options,
    compete,
    deliver,
    device_of,
    finish,
    keep,
    preset_of,
    ratio,
    row,
    short_name,
)
from .bench_loader_reference import reference_batch
from .bench_loader_set import HW, write_set
from .config import Config, override
from .data.dataset import NuScenesQueue, finished
from .data.decoders import same_pixels
from .data.distortion import draw_distortion
from .data.infos import Infos
from .data.store import open_store
from .errors import ConfigError
from .loading import open_loader
from .nominal import image_size, nominal_meta
from .ranks import ALONE
from .runstate import DataOrder
from .talk import Talk
from .types import CAMERAS, Frame, GroundTruth, Sample

CPU_S, WALL_S, BYTES = "CPU time per sample", "time per sample", "bytes per sample"
OPTIONS = {
    "float": [],
    "worker": ["ops.pixels=worker"],
    "uint8": ["ops.pixels=device"],
    "uint8 simplejpeg": ["ops.pixels=device", "ops.decoder=simplejpeg"],
    "uint8 half": ["ops.pixels=device", "ops.decoder=cv2-half"],
}  # type: Dict[str, List[str]]
FRAMES = 6  # on disk; the page cache has them after the warm-up
COUNTED = 4  # samples of a round that are counted, after the first
GOAL = 4.0
Rows = List[Dict[str, Any]]
ABOUT = (
    "float is the reference's path, worker ours with the same floats; uint8 leaves distortion, normalisation,"
    " scaling and padding to the device: `finish` says what that takes there. One worker; CPU time of worker"
    " and training process together. bytes: what the worker sends, as MB of 1e6."
)


def parse(argv: Sequence[str]) -> Tuple[argparse.Namespace, Protocol]:
    parser = argparse.ArgumentParser(prog="bench loader", description="CPU time and bytes of a sample.")
    add_options(parser, ("base", "tiny"))
    parser.add_argument("--who", nargs="+", default=list(OPTIONS), choices=list(OPTIONS), metavar="NAME")
    parser.add_argument("--hw", type=int, nargs=2, default=HW, metavar=("H", "W"), help="of the JPEGs")
    args = parser.parse_args(argv)
    return args, check_options(parser, args)


def main(argv: Sequence[str], talk: Talk) -> int:
    started_s = time.monotonic()
    args, protocol = parse(argv)
    device = device_of(args.device)
    header = begin("loader", argv, device, started_s)
    folder = tempfile.mkdtemp(prefix="bevformer-bench-loader-")
    more = dict(
        protocol=protocol.told(), about=ABOUT, images=_images(args.hw), threads_cv2=cv2.getNumThreads()
    )
    rows: Rows = []
    absent: Dict[str, str] = {}

    def document(found: Rows) -> Dict[str, Any]:
        return finish(header, [*rows, *found], ratios_of([*rows, *found], args.who), absent, **more)

    try:
        infos = write_set(folder, FRAMES, tuple(args.hw))
        for done, config in enumerate(map(preset_of, args.preset), 1):
            case = short_name(config.name)
            contenders = contenders_for(case, config, folder, infos, args.who, device, absent)
            rows += measure(case, contenders, protocol, absent, lambda found: keep(document(found), args.out))
            rows += finishing(case, config, tuple(args.hw), device, protocol)
            keep(document([]), args.out)
            talk.progress("bench", done, len(args.preset))
    finally:
        shutil.rmtree(folder)
    return deliver(document([]), args.out, talk)


def ratios_of(rows: Rows, names: Sequence[str]) -> Rows:
    """To the reference's path; what is uint8 at base has goals."""
    found: Rows = []
    for case in dict.fromkeys(each["case"] for each in rows):
        for what in (CPU_S, BYTES, WALL_S):
            for who in (name for name in names if name != "float"):
                goal = GOAL if (case, who) == ("base", "uint8") and what != WALL_S else None
                found += ratio(rows, case, what, who, "float", goal=goal)
    return found


def _images(hw: Sequence[int]) -> Dict[str, Any]:
    installed = importlib.util.find_spec("simplejpeg") is not None
    same = same_pixels() if installed else None
    return dict(hw=list(hw), frames=FRAMES, simplejpeg_same_pixels=same)


def contenders_for(
    case: str,
    config: Config,
    folder: str,
    infos: Infos,
    names: Sequence[str],
    device: torch.device,
    absent: Dict[str, str],
) -> "Dict[str, Contender]":
    """Those that can run here; why the others cannot is entered in `absent`."""
    found: Dict[str, Contender] = {}
    for name in names:
        try:
            found[name] = Contender(name, config, folder, infos, device)
        except ConfigError as error:
            absent["%s, %s" % (case, name)] = error.seen
    return found


def measure(
    case: str,
    contenders: "Mapping[str, Contender]",
    protocol: Protocol,
    absent: Dict[str, str],
    save: Callable[[Rows], None],
) -> Rows:
    """All rows of a preset, saved after each round; contenders that fail are added to `absent`."""
    lost: Dict[str, str] = {}

    def rows_of(taken: Mapping[str, Sequence[float]]) -> Rows:
        absent.update(("%s, %s" % (case, name), why) for name, why in lost.items())
        counted = {name: contenders[name].rounds[-len(times) :] for name, times in taken.items() if times}
        return [each for name, kept in counted.items() for each in contenders[name].rows(case, name, kept)]

    runs = {name: each.run for name, each in contenders.items()}
    return rows_of(compete(runs, torch.device("cpu"), protocol, lost, lambda so_far: save(rows_of(so_far))))


class Contender:
    """Reads `COUNTED` samples a round with one worker; keeps what each took."""

    def __init__(self, name: str, config: Config, folder: str, infos: Infos, device: torch.device) -> None:
        self._device = device
        self._order = DataOrder((FRAMES - 1,), 1, 0, 1)
        if name == "float":
            self._data: Any = ReferenceQueue(folder, infos, config)
        else:
            config = override(config, OPTIONS[name])
            self._data = NuScenesQueue(infos, open_store([folder]), config, True, device_type=device.type)
        self.rounds: List[Dict[str, float]] = []

    def run(self) -> None:
        steps = range(COUNTED + 2)
        loader = open_loader(Stamped(self._data), self._order, ALONE, steps, 1, self._device)
        try:
            arrived = []
            for _ in range(COUNTED + 1):
                (drawn,) = loader.draw()
                (sample,) = loader.load(drawn)
                arrived.append((sample.worker_cpu_s, time.process_time(), time.perf_counter()))
                if self._device.type == "cuda":
                    torch.cuda.synchronize(self._device)
        finally:
            loader.close()
        worker_s, here_s, wall_s = ((last - first) / COUNTED for first, last in zip(arrived[0], arrived[-1]))
        sent = sample.bytes_sent
        self.rounds.append({"cpu": worker_s + here_s, "wall": wall_s, "bytes": float(sent), "here": here_s})

    def rows(self, case: str, name: str, kept: Sequence[Mapping[str, float]]) -> Rows:
        """Of the rounds that count."""
        images = self._data.config.data.queue_length * len(CAMERAS)
        middle = {key: statistics.median(each[key] for each in kept) for key in ("cpu", "here")}
        more = dict(ms_per_image=1e3 * middle["cpu"] / images, training_process_s=middle["here"])
        return [
            row(case, CPU_S, name, [each["cpu"] for each in kept], "s", **more),
            row(case, WALL_S, name, [each["wall"] for each in kept], "s"),
            row(case, BYTES, name, [each["bytes"] / 1e6 for each in kept], "MB"),
        ]


@dataclass(frozen=True)
class StampedSample(Sample):
    """worker_cpu_s: CPU time of the worker when it began with this sample; bytes_sent: of all tensors."""

    worker_cpu_s: float = 0.0
    bytes_sent: int = 0


class Stamped:
    """A data set whose samples say when their worker began with them, in its CPU time."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def truth(self, index: int) -> GroundTruth:
        truth: GroundTruth = self._data.truth(index)
        return truth

    def draw_queue(self, index: int, rng: np.random.RandomState) -> Optional[List[int]]:
        queue: Optional[List[int]] = self._data.draw_queue(index, rng)
        return queue

    def load_queue(self, queue: Sequence[int], rng: np.random.RandomState) -> StampedSample:
        began_s = time.process_time()
        sample = self._data.load_queue(queue, rng)
        tensors = [frame.images_NCHW for frame in sample.frames] + [
            sample.truth.boxes_G9,
            sample.truth.labels_G,
        ]
        sent = sum(each.numel() * each.element_size() for each in tensors)
        return StampedSample(sample.frames, sample.truth, began_s, sent)


class ReferenceQueue(NuScenesQueue):
    """The same queues, read as the reference does: one tensor of floats for the whole queue."""

    def __init__(self, folder: str, infos: Infos, config: Config) -> None:
        super().__init__(infos, open_store([folder]), config, True)
        self._folder = folder

    def load_queue(self, queue: Sequence[int], rng: np.random.RandomState) -> Sample:
        cams = [self.infos.infos[i]["cams"] for i in queue]
        paths = [[os.path.join(self._folder, each[name]["data_path"]) for name in CAMERAS] for each in cams]
        batch = reference_batch(paths, self.config.data, rng)
        return Sample((Frame(batch, nominal_meta(image_size(self.config))),), self.truth(queue[-1]))


def finishing(
    case: str, config: Config, hw: Tuple[int, ...], device: torch.device, protocol: Protocol
) -> Rows:
    """Of one frame: what is left to the device, there and by OpenCV."""
    rng = np.random.RandomState(0)
    raw_NHWC = torch.from_numpy(rng.randint(0, 256, (len(CAMERAS), *hw, 3)).astype(np.uint8))
    drawn = [draw_distortion(rng) for _ in CAMERAS] if config.data.photometric else []
    there = raw_NHWC.to(device)

    def on_device() -> Tensor:
        return pixels.finished(there.permute(0, 3, 1, 2), config.data, drawn)

    works: Mapping[str, Callable[[], Any]] = {
        "device (%s)" % device.type: on_device,
        "opencv": lambda: finished(raw_NHWC, config.data, drawn),
    }
    times = compete(works, device, protocol)
    return [row(case, "finish a frame", who, values) for who, values in times.items()]
