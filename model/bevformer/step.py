"""One optimiser step of all ranks, as often as it takes to fit into memory."""

import math
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import torch

from .amp import LossScale
from .config import ScheduleConfig
from .finite import not_finite, require_finite, require_finite_gradients, require_finite_state
from .loading import Drawn, Loader
from .matching import Diverged
from .memory import NOTHING, Memory, is_out_of_memory
from .optim import clip_gradients
from .ranks import ALONE, Ranks, mean_terms
from .runstate import DataOrder, seed_step
from .saving import Saver
from .types import Sample

Clock = Callable[[], float]


@dataclass(frozen=True)
class Training:
    """What is trained, on what, in which order: steps `first_step` .. `total` - 1."""

    model: Any
    optimizer: torch.optim.Optimizer
    dataset: Any
    order: DataOrder
    schedule: ScheduleConfig
    first_step: int
    total: int
    scale: LossScale
    ranks: Ranks = ALONE
    device: torch.device = torch.device("cpu")
    workers: int = 0
    start: str = ""  # the checkpoint that it goes on from
    memory: Memory = NOTHING

    def save(self, saver: Saver, done: int) -> str:
        """Raises Diverged instead of writing what is not finite: the checkpoints there are stay the last."""
        require_finite_state(self.model, self.optimizer)
        rungs = {"memory": self.memory.entries}
        return saver.save(done, self.model, self.optimizer, self.scale.state(), rungs)


class StepData:
    """What a step trains on, the same each time that it is tried."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self.drawn: List[Drawn] = loader.draw()
        self._states = [each.rng.get_state() for each in self.drawn]
        self._taken = 0

    def load(self, place: int) -> List[Sample]:
        """The samples of the rank at `place`; its stream is then where reading leaves it.

        A second time they are read in this process: workers have gone on to later steps.
        """
        each = self.drawn[place]
        if place < self._taken:
            each.rng.set_state(self._states[place])
            return Loader.load(self._loader, each)
        self._taken += 1
        return self._loader.load(each)


def train_step(job: Training, loader: Loader, step: int, clock: Clock = time.monotonic) -> Dict[str, float]:
    """One optimiser step of all ranks; returns the loss terms (means over the ranks), their sum, the gradient
    norm before clipping and `data_time` in seconds.

    Raises Diverged before the weights are touched when the loss or the norm is not finite on any rank (in
    fp16 when that happens again and again), OutOfMemory when nothing more can be done about that.
    """
    ranks, start_s = job.ranks, clock()
    data = StepData(loader)
    mean_positives = ranks.sum([sum(each.positives(job.dataset) for each in data.drawn)])[0] / ranks.world
    drawn_s = clock() - start_s

    def attempt() -> Tuple[List[Dict[str, float]], float]:
        return _gradients(job, data, step, mean_positives, clock)

    by_rank, loaded_s = job.memory.tried(attempt, ranks, step)
    terms = mean_terms(by_rank, ranks)
    try:
        terms = _update(job, terms)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise job.memory.too_late(error, step) from error
    return dict(terms, data_time=drawn_s + loaded_s)


def _gradients(
    job: Training, data: StepData, step: int, mean_positives: float, clock: Clock
) -> Tuple[List[Dict[str, float]], float]:
    """The loss terms of this process's ranks, whose gradients are added up, and seconds spent reading."""
    job.optimizer.zero_grad()
    by_rank, loaded_s = [], 0.0
    for place, each in enumerate(data.drawn):
        start_s = clock()
        samples = data.load(place)
        loaded_s += clock() - start_s
        seed_step(job.order.seed, step, each.rank)
        by_rank.append(backward(job, samples, each.rng, mean_positives))
    return by_rank, loaded_s


def backward(
    job: Training, samples: List[Sample], rng: np.random.RandomState, mean_positives: float
) -> Dict[str, float]:
    """Adds a rank's share of the gradient; its loss terms, none where the matching found no finite cost.
    What is not finite is left to the caller, since the other ranks wait for this one.
    """
    try:
        with job.scale.precision.autocast(job.device):
            losses = job.model.loss(samples[0] if len(samples) == 1 else samples, rng, mean_positives)
    except Diverged:
        return {}
    total = sum(losses.values())
    terms = {key: float(value.detach()) for key, value in losses.items()}
    terms["loss"] = float(total.detach())
    if all(map(math.isfinite, terms.values())):
        share = total / job.ranks.world
        (share if job.scale.scale == 1.0 else share * job.scale.scale).backward()
    return terms


def _update(job: Training, terms: Dict[str, float]) -> Dict[str, float]:
    """Add up the gradients of all processes, clip, and step; the terms with what that adds to them."""
    used, scaled = job.scale.scale, job.scale.state() is not None
    if scaled and not_finite(terms):
        job.scale.overflowed()  # as a loss scaler does: the step is left out
        return {"grad_norm": 0.0, "loss_scale": used, "skipped": 1.0}
    require_finite(terms)
    job.ranks.sum_gradients(job.model)
    if not job.scale.unscale(job.model):
        return dict(terms, grad_norm=0.0, loss_scale=used, skipped=1.0)
    norm = clip_gradients(job.model, job.schedule.grad_clip)
    require_finite_gradients(job.model, norm)
    job.optimizer.step()
    terms = dict(terms, grad_norm=norm)
    return dict(terms, loss_scale=used, skipped=0.0) if scaled else terms
