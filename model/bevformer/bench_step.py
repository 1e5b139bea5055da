"""`python -m bevformer.bench step`: a training step of ours against a plain fp32 one.

    python -m bevformer.bench step [--preset tiny ...] [--device cpu|cuda] [--who NAME...] [--size HxW]

History, forward pass, losses, backward pass, clipping and AdamW, of one queue whose images are on the device.
Contenders: see `bench_models`; each has the same weights, which stay as they are (the learning rate is 0).
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
from .bench_common import (
    Protocol,
    add_options,
    begin,
    check_options,
    compete,
    deliver,
    device_of,
    finish,
    preset_of,
    ratio,
    row,
    short_name,
)
from .bench_models import OPTIONS, PLAIN, Contender, add_model_options, made_one_by_one, sizes_of, told
from .config import Config, override
from .gradients import build_gradients
from .memory import is_out_of_memory
from .nominal import ImageSize, nominal_sample
from .optim import build_optimizer, clip_gradients, set_lr
from .plan import peak_memory
from .ranks import ALONE
from .record import host_summary
from .talk import Talk
from .types import Sample

WHAT = "training step"
GOALS = {("cpu", "tiny"): 1.5, ("cuda", "base"): 3.0, ("cuda", "tiny"): 4.0}  # times plain
JUDGED = {"cpu": ("fp32", "fast"), "cuda": ("fast",)}  # the better of these
ABOUT = (
    "Seconds of one optimiser step: history, forward, losses, backward, clipping, AdamW; medians. ratios:"
    " plain / contender. peak_gb: weights, gradients, optimiser state and the most that was allocated, 1e9"
    " bytes. loss: of the first step, the same weights, images and dropout masks for all."
)
Rows = List[Dict[str, Any]]
Step = Callable[[], float]


def main(argv: Sequence[str], talk: Talk) -> int:
    started_s = time.monotonic()
    parser = argparse.ArgumentParser(prog="bench step", description=__doc__)
    add_options(parser)
    add_model_options(parser, list(OPTIONS))
    args = parser.parse_args(argv)
    protocol, device = check_options(parser, args), device_of(args.device)
    header = begin("step", argv, device, started_s)
    rows, ratios, absent = [], [], {}  # type: Rows, Rows, Dict[str, str]
    with assignment() as assigned:
        for name in args.preset:
            config = override(preset_of(name), args.cfg_options)
            size, case = sizes_of(config, args.size), short_name(config.name)
            found = measure(config, size, args.who, device, protocol, absent, talk)
            rows += [dict(each, assignment=assigned, images_hw=list(size.padded_hw)) for each in found]
            ratios += judged(rows, case, device, args.size is None)
    result = finish(header, rows, ratios, absent, protocol=protocol.told(), about=ABOUT)
    return deliver(result, args.out, talk)


def judged(rows: Rows, case: str, device: torch.device, full_size: bool) -> Rows:
    """Ratios to plain; the better of JUDGED carries the goal."""
    found = [each for who in OPTIONS if who != PLAIN for each in ratio(rows, case, WHAT, who, PLAIN)]
    candidates = [each for each in found if each["who"] in JUDGED[device.type]]
    goal = GOALS.get((device.type, case)) if full_size else None
    if candidates and goal is not None:
        best = max(candidates, key=lambda each: float(each["times"]))
        best.update(goal=goal, met=best["times"] >= goal)
    return found


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
) -> Rows:
    """The rows of a preset; what does not fit or run is entered in `absent`."""
    case, sample = short_name(config.name), on_device(nominal_sample(config, size), device)
    facts: Dict[str, Dict[str, Any]] = {}
    for contender in made_one_by_one(
        config, fitting(config, names, device, absent, case), device, True, absent, case
    ):
        try:
            facts[contender.who] = described(contender, sample, device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            absent["%s, %s" % (case, contender.who)] = "out of memory"
        talk.note("%s, %s: %s" % (case, contender.who, facts.get(contender.who, "out of memory")))
        del contender
        if device.type == "cuda":
            torch.cuda.empty_cache()
    again = made_one_by_one(config, list(facts), device, True, {}, case)
    works: Dict[str, Step] = {each.who: stepper(each, sample, device)[0] for each in again}
    rows = []
    for who, seconds in compete(works, device, protocol).items():
        rows.append(row(case, WHAT, who, seconds, **facts[who]))
    for line in told(rows):
        talk.note(line)
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


def stepper(contender: Contender, sample: Sample, device: torch.device) -> Tuple[Step, Any]:
    """A step that returns its loss, and the optimiser."""
    model, schedule = contender.model, contender.model.config.schedule
    optimizer = build_optimizer(model, schedule, model.config.ops.adamw)
    gradients = build_gradients(model.config.ops.gradients)
    set_lr(optimizer, 0.0)  # every step has the weights of the first

    def step() -> float:
        torch.manual_seed(1)  # of the dropout masks
        gradients.clear(model)
        with contender.precision.autocast(device):
            losses = model.loss(sample, np.random.RandomState(0))
        total = torch.stack(list(losses.values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
        gradients.sum(model, ALONE)
        clip_gradients(model, schedule.grad_clip)
        optimizer.step()
        return float(total.detach())

    return step, optimizer


def described(contender: Contender, sample: Sample, device: torch.device) -> Dict[str, Any]:
    """What is known of a contender besides its times; it is alone on the device."""
    step, optimizer = stepper(contender, sample, device)
    loss = step()  # the optimiser's state is there from now on
    there_b = sum(
        each.numel() * each.element_size()
        for each in [
            *contender.model.parameters(),
            *contender.model.buffers(),
            *(
                tensor
                for state in optimizer.state.values()
                for tensor in state.values()
                if torch.is_tensor(tensor)
            ),
        ]
    )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step()
        peak_b = torch.cuda.max_memory_allocated(device)
    else:
        optimizer.zero_grad(set_to_none=True)
        peak_b = there_b + allocated_peak_b(step)
    return dict(loss=float("%.6g" % loss), peak_gb=round(peak_b / 1e9, 3), levers=list(contender.levers))
