"""The training loop: one device, plain PyTorch, no state but the weights, the optimiser and the step."""

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
from .runstate import DataOrder, seed_step, step_rng
from .talk import Talk
from .trainlog import TrainLog
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


def draw_samples(
    dataset: Any, indices: Sequence[int], pool: Sequence[int], rng: np.random.RandomState
) -> List[Sample]:
    """The training queues at `indices`; one without valid boxes is redrawn from `pool`, as upstream does."""
    samples = []
    for index in indices:
        sample = dataset.train_sample(index, rng)
        for _ in range(20 * len(pool)):
            if sample is not None:
                break
            sample = dataset.train_sample(pool[rng.randint(len(pool))], rng)
        if sample is None:
            raise DataError(
                "no frame of the training set has a valid box",
                "There is nothing to learn from.",
                "Check the infos with `bevrepro data prepare`.",
            )
        samples.append(sample)
    return samples


def train_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    samples: List[Sample],
    rng: np.random.RandomState,
    grad_clip: float,
) -> Dict[str, float]:
    """One optimiser step; returns the loss terms, their sum and the gradient norm before clipping.

    Raises Diverged before the weights are touched when the loss or the norm is not finite.
    """
    optimizer.zero_grad()
    losses = model.loss(samples[0] if len(samples) == 1 else samples, rng)
    total = sum(losses.values())
    terms = {key: float(value.detach()) for key, value in losses.items()}
    terms["loss"] = float(total.detach())
    _require_finite(terms)
    total.backward()
    terms["grad_norm"] = clip_gradients(model, grad_clip)
    _require_finite(terms)
    optimizer.step()
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
    log: TrainLog,
    talk: Talk,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Steps `first_step` .. `total` - 1.  Raises Interrupted or Diverged, which say what is saved."""
    path = saver.path(first_step)
    terms: Dict[str, float] = {}
    times_s: List[float] = []
    talk.progress("train", first_step, total)
    model.train()
    with StopSignal() as stop:
        for step in range(first_step, total):
            start_s = clock()
            factor = lr_factor(schedule, step, order.steps_per_epoch)
            set_lr(optimizer, factor)
            seed_step(order.seed, step)
            rng = step_rng(order.seed, step)
            samples = draw_samples(dataset, order.at(step), order.indices, rng)
            data_s = clock() - start_s
            try:
                terms = train_step(model, optimizer, samples, rng, schedule.grad_clip)
            except Diverged as error:
                raise _diverged(error, step, path, log) from None
            times_s.append(clock() - start_s)
            log.step(step, schedule.lr * factor, dict(terms, time=times_s[-1], data_time=data_s))
            talk.progress(
                "train", step + 1, total, "loss %.2f  lr %.1e" % (terms["loss"], schedule.lr * factor)
            )
            if saver.due(step + 1, total) or stop.number is not None:
                path = saver.save(step + 1, model, optimizer)
            if stop.number is not None and step + 1 < total:
                raise _interrupted(stop.number, step + 1, total, path, log)
    # The first step pays for caches and thread pools.
    counted = times_s[1:] or times_s
    return Outcome(total, path, terms, sum(counted) / len(counted) if counted else None)


def _diverged(error: Diverged, step: int, path: str, log: TrainLog) -> Diverged:
    seen = "Training stopped at step %d: %s." % (step + 1, error.seen)
    log.say(seen)
    return Diverged(
        seen,
        "The weights before this step are finite; the last checkpoint is %s." % path,
        "Lower the learning rate (--cfg-options schedule.lr=...) or check the data, in a new --work-dir.",
    )


def _interrupted(number: int, done: int, total: int, path: str, log: TrainLog) -> Interrupted:
    name = signal.Signals(number).name
    seen = "Stopped by %s after step %d of %d." % (name, done, total)
    log.say(seen)
    return Interrupted(
        number, seen, "Everything is saved in %s." % path, "Continue with the same command and --resume auto."
    )
