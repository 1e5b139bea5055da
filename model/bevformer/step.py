"""One optimiser step of all ranks, as often as it takes to fit into memory."""

import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from .amp import LossScale
from .config import ScheduleConfig
from .finite import not_finite, require_finite, require_finite_gradients, require_finite_state
from .gradients import OWN, OwnGradients
from .loading import Drawn, Loader
from .matching import Diverged
from .memory import NOTHING, Memory, is_out_of_memory
from .optim import gradient_norm, scale_gradients
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
    gradients: OwnGradients = OWN

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

    The host waits for the device twice: for the costs of the matching, and for terms and norm together before
    the weights are touched (in fp16 for terms, overflow and norm apart).

    Raises Diverged before the weights are touched when the loss or the norm is not finite on any rank (in
    fp16 when that happens again and again), OutOfMemory when nothing more can be done about that.
    """
    ranks, start_s = job.ranks, clock()
    data = StepData(loader)
    mean_positives = ranks.sum([sum(each.positives(job.dataset) for each in data.drawn)])[0] / ranks.world
    drawn_s = clock() - start_s

    def attempt() -> Tuple[List["Terms"], float]:
        return _gradients(job, data, step, mean_positives, clock)

    by_rank, loaded_s = job.memory.tried(attempt, ranks, step)
    try:
        terms = _update(job, by_rank)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise job.memory.too_late(error, step) from error
    return dict(terms, data_time=drawn_s + loaded_s)


def _gradients(
    job: Training, data: StepData, step: int, mean_positives: float, clock: Clock
) -> Tuple[List["Terms"], float]:
    """The loss terms of this process's ranks, whose gradients are added up, and seconds spent reading."""
    job.gradients.clear(job.model)
    by_rank, loaded_s = [], 0.0
    for place, each in enumerate(data.drawn):
        start_s = clock()
        samples = data.load(place)
        loaded_s += clock() - start_s
        seed_step(job.order.seed, step, each.rank)
        by_rank.append(backward(job, samples, each.rng, mean_positives))
    return by_rank, loaded_s


@dataclass(frozen=True)
class Terms:
    """A rank's loss terms, still on the device.  Without names where its matching found no finite cost."""

    names: Tuple[str, ...] = ()
    values: Tensor = torch.zeros(0)


def backward(
    job: Training, samples: List[Sample], rng: np.random.RandomState, mean_positives: float
) -> Terms:
    """Adds a rank's share of the gradient.

    What is not finite is left to the caller, since the other ranks wait for this one: gradients of a loss
    that is not are made, too, and then not used.  The host waits for the device in the matching only.
    """
    try:
        with job.scale.precision.autocast(job.device):
            losses = job.model.loss(samples[0] if len(samples) == 1 else samples, rng, mean_positives)
    except Diverged:
        return Terms()
    total = sum(losses.values())
    share = total / job.ranks.world
    (share if job.scale.scale == 1.0 else share * job.scale.scale).backward()
    values = torch.stack([value.detach() for value in (*losses.values(), total)])
    return Terms((*losses, "loss"), values)


def read(by_rank: Sequence[Terms], *more: Tensor) -> Tuple[List[Dict[str, float]], List[float]]:
    """All terms, and more numbers of the same device, in one copy to the host."""
    parts = [each.values for each in by_rank if each.names] + [number.reshape(1) for number in more]
    kind = max((part.dtype for part in parts), key=lambda dtype: torch.finfo(dtype).bits, default=None)
    numbers = torch.cat([part.to(kind) for part in parts]).cpu().tolist() if parts else []
    found = []
    for each in by_rank:
        mine, numbers = numbers[: len(each.names)], numbers[len(each.names) :]
        found.append(dict(zip(each.names, mine)))
    return found, numbers


def _update(job: Training, by_rank: Sequence[Terms]) -> Dict[str, float]:
    """Add up the gradients of all processes, clip, and step; the mean terms with what that adds to them."""
    if job.scale.state() is not None:
        return _update_scaled(job, by_rank)
    job.gradients.sum(job.model, job.ranks)
    norm = gradient_norm(job.model)
    found, numbers = read(by_rank, norm)
    terms = mean_terms(found, job.ranks)
    require_finite(terms)
    _step(job, norm, numbers[0])
    return dict(terms, grad_norm=numbers[0])


def _update_scaled(job: Training, by_rank: Sequence[Terms]) -> Dict[str, float]:
    """In fp16, where a step that overflowed is left out, as a loss scaler does."""
    terms, used = mean_terms(read(by_rank)[0], job.ranks), job.scale.scale
    if not_finite(terms):
        job.scale.overflowed()
        return {"grad_norm": 0.0, "loss_scale": used, "skipped": 1.0}
    job.gradients.sum(job.model, job.ranks)
    if not job.scale.unscale(job.model):
        return dict(terms, grad_norm=0.0, loss_scale=used, skipped=1.0)
    norm = gradient_norm(job.model)
    found = float(norm)
    _step(job, norm, found)
    return dict(terms, grad_norm=found, loss_scale=used, skipped=0.0)


def _step(job: Training, norm: Tensor, found: float) -> None:
    """`norm` of all gradients, and the same on the host.  Raises Diverged."""
    require_finite_gradients(job.model, found)
    scale_gradients(job.model, job.schedule.grad_clip, norm)
    job.optimizer.step()
