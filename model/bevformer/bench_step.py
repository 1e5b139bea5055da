"""`python -m bevformer.bench step`: a training step of ours against a plain fp32 one.

    python -m bevformer.bench step [--preset tiny ...] [--device cpu|cuda] [--who NAME...] [--size HxW]

The step is that of `train` (`step.train_step`): history, forward pass, losses, backward pass, clipping and
AdamW, of one queue whose images are on the device.  Contenders: see `bench_models`; each has the same
weights, which stay as they are (the learning rate is 0).  The file is written after each contender and round.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import time
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import numpy as np
import torch

from . import matching
from .allocated import allocated_peak_b
from .amp import LossScale
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
    reason,
    recover,
    row,
    seconds_of,
    short_name,
)
from .bench_launches import counting, kernels_of, launches_row
from .bench_models import (
    OPTIONS,
    PLAIN,
    Contender,
    add_model_options,
    made_one_by_one,
    model_bytes,
    sizes_of,
    told,
)
from .config import Config, override
from .gradients import build_gradients
from .loading import Drawn, Loader
from .memory import forget_gradients
from .nominal import ImageSize, nominal_sample
from .optim import build_optimizer, set_lr
from .plan import peak_memory
from .ranks import ALONE
from .record import host_summary
from .runstate import DataOrder
from .step import Training, train_step
from .talk import Talk
from .types import GroundTruth, Sample

WHAT = "training step"
GOALS = {("cpu", "tiny"): 1.5, ("cuda", "base"): 3.0, ("cuda", "tiny"): 4.0}  # times plain
JUDGED = {"cpu": ("fp32", "fast"), "cuda": ("fast",)}  # the better of these
ABOUT = (
    "Seconds of one optimiser step as `train` makes it, with its waits: history, forward, losses, backward,"
    " clipping, AdamW; medians; rounds 0: one step alone, before the rounds. ratios: plain / contender."
    " peak_gb: weights, gradients, optimiser state and the most that was allocated, 1e9 bytes. loss: of the"
    " first step, the same weights, images and dropout masks for all. Operators: without views and empty"
    " tensors, attentions by cpp are none."
)
Rows = List[Dict[str, Any]]
Step = Callable[[], float]
Save = Callable[[Rows], None]


def main(argv: Sequence[str], talk: Talk) -> int:
    started_s = time.monotonic()
    parser = argparse.ArgumentParser(prog="bench step", description=__doc__)
    add_options(parser)
    add_model_options(parser, list(OPTIONS))
    args = parser.parse_args(argv)
    protocol, device = check_options(parser, args), device_of(args.device)
    header = begin("step", argv, device, started_s)
    rows, absent, full_size = [], {}, args.size is None  # type: Rows, Dict[str, str], bool
    with assignment() as assigned:

        def document(found: Rows) -> Dict[str, Any]:
            found = [*rows, *(dict(each, assignment=assigned) for each in found)]
            ratios = judged_all(found, device, full_size)
            return finish(header, found, ratios, absent, protocol=protocol.told(), about=ABOUT)

        def save(found: Rows) -> None:
            keep(document(found), args.out)

        for name in args.preset:
            config = override(preset_of(name), args.cfg_options)
            size = sizes_of(config, args.size)
            found = measure(config, size, args.who, device, protocol, absent, talk, save)
            rows += [dict(each, assignment=assigned) for each in found]
        return deliver(document([]), args.out, talk)


def judged_all(rows: Rows, device: torch.device, full_size: bool) -> Rows:
    cases = dict.fromkeys(each["case"] for each in rows)
    return [each for case in cases for each in judged(rows, case, device, full_size)]


def judged(rows: Rows, case: str, device: torch.device, full_size: bool) -> Rows:
    """Ratios to plain; the better of JUDGED carries the goal."""
    others, counted = [who for who in OPTIONS if who != PLAIN], launches_row(device)["what"]
    found = [each for who in others for each in ratio(rows, case, WHAT, who, PLAIN)]
    candidates = [each for each in found if each["who"] in JUDGED[device.type]]
    goal = GOALS.get((device.type, case)) if full_size else None
    if candidates and goal is not None:
        best = max(candidates, key=lambda each: float(each["times"]))
        best.update(goal=goal, met=best["times"] >= goal)
    return found + [each for who in others for each in ratio(rows, case, counted, who, PLAIN)]


@contextlib.contextmanager
def assignment() -> Iterator[str]:
    """scipy's, or where it is missing box i to query i: a step takes as long, but the losses mean nothing."""
    if importlib.util.find_spec("scipy") is not None:
        yield "scipy"
        return
    real = matching.solve

    def fixed(cost_QG: Any) -> Tuple[Any, Any]:
        count = min(cost_QG.shape)
        return np.arange(count), np.arange(count)

    matching.solve = fixed
    try:
        yield "fixed"
    finally:
        matching.solve = real


def measure(
    config: Config,
    size: ImageSize,
    names: Sequence[str],
    device: torch.device,
    protocol: Protocol,
    absent: Dict[str, str],
    talk: Talk,
    save: Save,
) -> Rows:
    """The rows of a preset, saved as they come; what does not fit or run is entered in `absent`."""
    case, sample = short_name(config.name), on_device(nominal_sample(config, size), device)
    facts: Dict[str, Dict[str, Any]] = {}
    lost: Dict[str, str] = {}

    def rows_of(taken: Dict[str, List[float]]) -> Rows:
        absent.update(("%s, %s" % (case, who), why) for who, why in lost.items())
        rows: Rows = []
        for who in (each for each in names if each in facts and each not in lost):
            rows += rows_about(case, who, facts[who], taken.get(who, []), device)
        return [dict(each, images_hw=list(size.padded_hw)) for each in rows]

    names = fitting(config, names, device, absent, case)
    for contender in made_one_by_one(config, least_first(names), device, True, absent, case):
        who = contender.who
        try:
            facts[who] = described(contender, sample, device)
        except Exception as error:  # told in `absent`: one contender is not the end of the others
            lost[who] = reason(error)
        talk.note("%s, %s: %s" % (case, who, facts.get(who) or lost[who]))
        del contender
        save(rows_of({}))
        recover(who, lost.get(who, "no error until it was waited for"))
    works: Dict[str, Step] = {}
    for contender in made_one_by_one(
        config, [who for who in names if who in facts], device, True, absent, case
    ):
        works[contender.who] = stepper(contender, sample, device)[0]
        del contender
    taken = compete(works, device, protocol, lost, lambda so_far: save(rows_of(so_far)))
    for who in lost:
        talk.note("%s, %s: %s" % (case, who, lost[who]))
    rows = rows_of(taken)
    for line in told([each for each in rows if each["unit"] == "s"]):
        talk.note(line)
    return rows


def least_first(names: Sequence[str]) -> List[str]:
    """The last of OPTIONS takes least memory and time.  Where a driver moves what does not fit to main memory
    instead of refusing it (Windows, WSL), the plain one takes all the time there is.
    """
    known = [name for name in reversed(list(OPTIONS)) if name in names]
    return known + [name for name in names if name not in known]


def rows_about(
    case: str, who: str, facts: Dict[str, Any], seconds: Sequence[float], device: torch.device
) -> Rows:
    """Of a contender: its time, of one step alone until rounds were made, and its launches."""
    known = {key: value for key, value in facts.items() if key not in ("alone_s", "launches")}
    rows = [row(case, WHAT, who, seconds or [facts["alone_s"]], rounds=len(seconds), **known)]
    if facts["launches"] is not None:
        counted = launches_row(device)
        rows.append(row(case, counted["what"], who, [facts["launches"]], counted["unit"]))
    return rows


def fitting(
    config: Config, names: Sequence[str], device: torch.device, absent: Dict[str, str], case: str
) -> List[str]:
    """On a CPU a step that does not fit ends the process; on a GPU it is an error that can be caught."""
    memory_gib = host_summary(device)["memory_gib"]
    if device.type != "cpu" or memory_gib is None or not {"plain", "fp32", "fast"} & set(names):
        return list(names)
    needed_gib = peak_memory(override(config, ["ops.attention=reference"]))["peak_gib"]
    if needed_gib < 0.8 * memory_gib:
        return list(names)
    for name in names:
        if name != "lean":
            absent["%s, %s" % (case, name)] = "takes %.0f GiB of %.0f" % (needed_gib, memory_gib)
    return [name for name in names if name == "lean"]


def on_device(sample: Sample, device: torch.device) -> Sample:
    frames = tuple(
        dataclasses.replace(frame, images_NCHW=frame.images_NCHW.to(device)) for frame in sample.frames
    )
    boxes, labels = sample.truth.boxes_G9.to(device), sample.truth.labels_G.to(device)
    return Sample(frames, dataclasses.replace(sample.truth, boxes_G9=boxes, labels_G=labels))


class Always(Loader):
    """One sample, on the device already, at every step; as data set it knows its boxes."""

    def __init__(self, sample: Sample) -> None:
        super().__init__(self, DataOrder((0,), 1, 0), ALONE, ())
        self._sample = sample

    def truth(self, index: int) -> GroundTruth:
        return self._sample.truth

    def draw(self) -> List[Drawn]:
        return [Drawn(0, [[0]], np.random.RandomState(0))]

    def load(self, drawn: Drawn) -> List[Sample]:
        return [self._sample]


def stepper(contender: Contender, sample: Sample, device: torch.device) -> Tuple[Step, Training]:
    """A step of `train`, which returns its loss, and what it trains.  Its gradients are gone afterwards."""
    model, schedule = contender.model, contender.model.config.schedule
    always = Always(sample)
    job = Training(
        model,
        build_optimizer(model, schedule, model.config.ops.adamw),
        always,
        always.order,
        schedule,
        0,
        1,
        LossScale(contender.precision),
        device=device,
        gradients=build_gradients(model.config.ops.gradients),
    )
    set_lr(job.optimizer, 0.0)  # every step has the weights of the first

    def step() -> float:
        loss = train_step(job, always, 0)["loss"]
        forget_gradients(model)  # while the others take their turns
        return loss

    return step, job


def described(contender: Contender, sample: Sample, device: torch.device) -> Dict[str, Any]:
    """What is known of a contender besides its times; it is alone on the device."""
    step, job = stepper(contender, sample, device)
    started_s = time.perf_counter()
    loss = step()  # the optimiser's state is there from now on
    alone_s = time.perf_counter() - started_s
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        alone_s = seconds_of(step, device)
        peak_b = torch.cuda.max_memory_allocated(device)
        launches = kernels(step, device)
    else:
        with counting() as counted:
            peak_b = held_bytes(job) + allocated_peak_b(step)
        launches = dict(launches=counted())
    facts = dict(loss=float("%.6g" % loss), peak_gb=round(peak_b / 1e9, 3), levers=list(contender.levers))
    return dict(facts, alone_s=alone_s, **launches)


def kernels(step: Step, device: torch.device) -> Dict[str, Any]:
    """How many; where a profiler is not let in, why not: its time and its memory stay known."""
    try:
        return dict(launches=kernels_of(step, device))
    except RuntimeError as error:
        return dict(launches=None, launches_absent=reason(error))


def held_bytes(job: Training) -> int:
    """Weights and the optimiser's state."""
    states = [each for state in job.optimizer.state.values() for each in state.values()]
    tensors = [each for each in states if torch.is_tensor(each)]
    return model_bytes(job.model) + sum(each.numel() * each.element_size() for each in tensors)
