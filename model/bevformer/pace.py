"""`plan --time`: how long a training step takes on this machine, where finding out is short.

On a GPU a few steps are timed. On a CPU, one camera image goes through the backbone first: that is nearly the
whole step there, so it says whether a step is short enough to be timed, and else how long it would take.
"""

import math
import statistics
import time
from typing import Any, Callable, Dict, Sequence

import numpy as np
import torch

from .config import Config
from .detector import BEVFormer, build_model
from .nominal import image_size, nominal_sample
from .rungs import apply_rungs
from .talk import Talk

SHORT_S = 90.0  # for all steps that are timed
STEPS = {"cpu": 2, "cuda": 5}  # after one to warm up
BACKWARD = 3  # a forward and a backward pass of the backbone cost about three forward passes


def pace_here(config: Config, rungs: Sequence[str], talk: Talk) -> Dict[str, Any]:
    """`step_s` of one training step (samples_per_gpu samples, without loading) and how it is known.

    kind: `measured`, or `estimated` from the backbone alone where a step is not short.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(config).train().to(device)
    apply_rungs(model, rungs)
    found: Dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU",
        "threads": None if device.type == "cuda" else torch.get_num_threads(),
        "samples": config.schedule.samples_per_gpu,
        "rungs": list(rungs),
    }
    steps = STEPS[device.type]
    if device.type == "cpu":
        estimate_s = estimate_step_s(config, model)
        if estimate_s * (steps + 1) > SHORT_S:
            return dict(found, kind="estimated", step_s=estimate_s)
    talk.note("Timing %d training steps on %s." % (steps, found["device"]))
    times_s = time_steps(config, model, steps)
    return dict(found, kind="measured", step_s=statistics.median(times_s))


def estimate_step_s(config: Config, model: BEVFormer) -> float:
    """From one image through the backbone, the best of two."""
    height, width = image_size(config).padded_hw
    image = torch.randn(1, 3, height, width)
    with torch.no_grad():
        forward_s = min(_seconds(lambda: model.img_backbone(image)) for _ in range(2))
    frames = BACKWARD + config.data.queue_length - 1
    return forward_s * frames * config.transformer.num_cams * config.schedule.samples_per_gpu


def time_steps(config: Config, model: BEVFormer, steps: int) -> Sequence[float]:
    """Seconds of whole steps - history, forward, losses, backward, optimiser - after one to warm up."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    batch = [
        nominal_sample(config, image_size(config), seed) for seed in range(config.schedule.samples_per_gpu)
    ]
    rng = np.random.RandomState(0)

    def step() -> None:
        optimizer.zero_grad()
        total = torch.stack(list(model.loss(batch, rng).values())).sum()
        total.backward()
        optimizer.step()
        if not math.isfinite(float(total.detach())):  # waits for a GPU, too
            raise RuntimeError("a step on noise gave a loss that is not finite")

    return [_seconds(step) for _ in range(steps + 1)][1:]


def _seconds(work: Callable[[], Any]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s
