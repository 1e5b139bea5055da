"""The training loop: plain PyTorch, no state but the weights, the optimiser and the step."""

import math
import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
import torch
from torch import nn

from .atomic import link_latest
from .checkpoint import save_checkpoint
from .config import ScheduleConfig
from .errors import DataError, UserError
from .matching import Diverged
from .optim import clip_gradients, lr_factor, set_lr
from .ranks import ALONE, Ranks, mean_terms, refuse_live_batch_norm
from .runstate import DataOrder, seed_step, step_rng
from .talk import Talk
from .trainlog import NoLog
from .types import Sample


class Interrupted(UserError):
    """SIGINT or SIGTERM: stopped after a whole step, with everything saved."""

    def __init__(self, number: int, seen: str, why: str = "", do: str = "") -> None:
        super().__init__(seen, why, do)
        self.exit_code = 128 + number


class StopSignal:
    """While in the block, SIGINT and SIGTERM only ask for a stop; a second SIGINT later stops at once."""

    SECOND_S = 1.5  # a terminal and the parent may both deliver the same Ctrl-C

    def __init__(self) -> None:
        self.number: Optional[int] = None
        self._at_s = 0.0
        self._previous: Dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exc: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        if self.number is not None and time.monotonic() - self._at_s > self.SECOND_S:
            raise KeyboardInterrupt
        if self.number is None:
            self.number, self._at_s = int(number), time.monotonic()


@dataclass(frozen=True)
class Saver:
    """Writes `iter_N.pth` or `epoch_N.pth` into the work folder and points latest.pth to it."""

    work_dir: str
    meta: Dict[str, Any]
    by_epoch: bool
    order: DataOrder
    every_steps: int
    leads: bool = True  # the other processes of a run only know the path

    def due(self, done: int, total: int) -> bool:
        """After `done` optimiser steps."""
        every = self.order.steps_per_epoch if self.by_epoch else self.every_steps
        return done == total or done % every == 0

    def path(self, done: int) -> str:
        epoch, rest = divmod(done, self.order.steps_per_epoch)
        name = "epoch_%d" % epoch if self.by_epoch and done and not rest else "iter_%d" % done
        return os.path.join(self.work_dir, name + ".pth")

    def save(self, done: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
        path = self.path(done)
        if not self.leads:
            return path
        meta = dict(
            self.meta,
            iter=done,
            epoch=done // self.order.steps_per_epoch,
            time=time.strftime("%Y-%m-%d %H:%M:%S"),
        )
        save_checkpoint(path, model, optimizer, meta)
        link_latest(path)
        return path


@dataclass(frozen=True)
class Outcome:
    """checkpoint: the last file written; terms: means over the last logged interval are in the log."""

    steps_done: int
    checkpoint: str
    terms: Dict[str, float]
    seconds_per_step: Optional[float]


def draw_queues(
    dataset: Any, indices: Sequence[int], pool: Sequence[int], rng: np.random.RandomState
) -> List[List[int]]:
    """The training queues that end at `indices`, before any image is read; one without valid boxes is
    redrawn from `pool`, as upstream does.
    """
    queues = []
    for index in indices:
        queue = dataset.draw_queue(index, rng)
        for _ in range(20 * len(pool)):
            if queue is not None:
                break
            queue = dataset.draw_queue(pool[rng.randint(len(pool))], rng)
        if queue is None:
            raise DataError(
                "no frame of the training set has a valid box",
                "There is nothing to learn from.",
                "Check the infos with `bevrepro data prepare`.",
            )
        queues.append(queue)
    return queues


@dataclass(frozen=True)
class Drawn:
    """What one rank's step will train on, its images not read yet."""

    rank: int
    queues: List[List[int]]
    rng: np.random.RandomState

    def positives(self, dataset: Any) -> int:
        """True boxes in the batch."""
        return sum(len(dataset.truth(queue[-1]).labels_G) for queue in self.queues)


def draw_step(dataset: Any, order: DataOrder, step: int, ranks: Ranks) -> List[Drawn]:
    """One entry for each rank of this process."""
    drawn = []
    for rank in ranks.mine:
        rng = step_rng(order.seed, step, rank)
        drawn.append(Drawn(rank, draw_queues(dataset, order.at(step, rank), order.indices, rng), rng))
    return drawn


def train_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    dataset: Any,
    order: DataOrder,
    step: int,
    ranks: Ranks,
    grad_clip: float,
    clock: Callable[[], float] = time.monotonic,
) -> Dict[str, float]:
    """One optimiser step of all ranks; returns the loss terms (means over the ranks), their sum, the gradient
    norm before clipping and `data_time` in seconds.

    Raises Diverged before the weights are touched when the loss or the norm is not finite on any rank.
    """
    optimizer.zero_grad()
    start_s = clock()
    drawn = draw_step(dataset, order, step, ranks)
    mean_positives = ranks.sum([sum(each.positives(dataset) for each in drawn)])[0] / ranks.world
    data_s, by_rank = clock() - start_s, []
    for each in drawn:
        start_s = clock()
        seed_step(order.seed, step, each.rank)
        samples = [dataset.load_queue(queue, each.rng) for queue in each.queues]
        data_s += clock() - start_s
        by_rank.append(_backward(model, samples, each.rng, mean_positives, ranks.world))
    terms = mean_terms(by_rank, ranks)
    _require_finite(terms)
    ranks.sum_gradients(model)
    terms["grad_norm"] = clip_gradients(model, grad_clip)
    _require_finite(terms)
    optimizer.step()
    return dict(terms, data_time=data_s)


def _backward(
    model: Any, samples: List[Sample], rng: np.random.RandomState, mean_positives: float, world: int
) -> Dict[str, float]:
    """Adds a rank's share of the gradient; its loss terms, none where the matching found no finite cost.
    What is not finite is left to the caller, since the other ranks wait for this one.
    """
    try:
        losses = model.loss(samples[0] if len(samples) == 1 else samples, rng, mean_positives)
    except Diverged:
        return {}
    total = sum(losses.values())
    terms = {key: float(value.detach()) for key, value in losses.items()}
    terms["loss"] = float(total.detach())
    if all(map(math.isfinite, terms.values())):
        (total / world).backward()
    return terms


def _require_finite(terms: Dict[str, float]) -> None:
    bad = [key for key, value in terms.items() if not math.isfinite(value)]
    if bad:
        raise Diverged("%s became %s" % (", ".join(bad), terms[bad[0]]))


def train_loop(
    model: Any,
    optimizer: torch.optim.Optimizer,
    dataset: Any,
    order: DataOrder,
    schedule: ScheduleConfig,
    first_step: int,
    total: int,
    saver: Saver,
    log: NoLog,
    talk: Talk,
    ranks: Ranks = ALONE,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Steps `first_step` .. `total` - 1.  Raises Interrupted or Diverged, which say what is saved."""
    path = saver.path(first_step)
    terms: Dict[str, float] = {}
    times_s: List[float] = []
    talk.progress("train", first_step, total)
    model.train()
    refuse_live_batch_norm(model, ranks)
    with StopSignal() as stop:
        for step in range(first_step, total):
            start_s = clock()
            factor = lr_factor(schedule, step, order.steps_per_epoch)
            set_lr(optimizer, factor)
            try:
                terms = train_step(model, optimizer, dataset, order, step, ranks, schedule.grad_clip, clock)
            except Diverged as error:
                raise _diverged(error, step, path, log) from None
            data_s = terms.pop("data_time")
            times_s.append(clock() - start_s)
            log.step(step, schedule.lr * factor, dict(terms, time=times_s[-1], data_time=data_s))
            talk.progress(
                "train", step + 1, total, "loss %.2f  lr %.1e" % (terms["loss"], schedule.lr * factor)
            )
            stopped = ranks.any_signal(stop.number)
            if saver.due(step + 1, total) or stopped is not None:
                path = saver.save(step + 1, model, optimizer)
            if stopped is not None and step + 1 < total:
                raise _interrupted(stopped, step + 1, total, path, log)
    # The first step pays for caches and thread pools.
    counted = times_s[1:] or times_s
    return Outcome(total, path, terms, sum(counted) / len(counted) if counted else None)


def _diverged(error: Diverged, step: int, path: str, log: NoLog) -> Diverged:
    seen = "Training stopped at step %d: %s." % (step + 1, error.seen)
    log.say(seen)
    return Diverged(
        seen,
        "The weights before this step are finite; the last checkpoint is %s." % path,
        "Lower the learning rate (--cfg-options schedule.lr=...) or check the data, in a new --work-dir.",
    )


def _interrupted(number: int, done: int, total: int, path: str, log: NoLog) -> Interrupted:
    name = signal.Signals(number).name
    seen = "Stopped by %s after step %d of %d." % (name, done, total)
    log.say(seen)
    return Interrupted(
        number, seen, "Everything is saved in %s." % path, "Continue with the same command and --resume auto."
    )
