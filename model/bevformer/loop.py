"""The training loop: plain PyTorch, no state but the weights, the optimiser, the loss scale and the step."""

import math
import signal
import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import torch

from .amp import LossScale
from .config import ScheduleConfig
from .errors import UserError
from .loading import Loader, open_loader
from .matching import Diverged
from .optim import clip_gradients, lr_factor, set_lr
from .profiling import NoProfile
from .ranks import ALONE, Ranks, mean_terms, refuse_live_batch_norm
from .runstate import DataOrder, seed_step
from .saving import Saver
from .talk import Talk
from .trainlog import NoLog
from .types import Sample
from .usage import peak_gib


class Interrupted(UserError):
    """SIGINT or SIGTERM: stopped after a whole step, with everything saved."""

    def __init__(self, number: int, seen: str, why: str = "", do: str = "") -> None:
        super().__init__(seen, why, do)
        self.exit_code = 128 + number


class StopSignal:
    """While in the block, SIGINT and SIGTERM only ask for a stop; a second SIGINT later stops at once.

    A second SIGTERM does not: a cluster sends it to every process, and torchrun passes it on once more.
    """

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
        again = self.number is not None and time.monotonic() - self._at_s > self.SECOND_S
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number is None:
            self.number, self._at_s = int(number), time.monotonic()


@dataclass(frozen=True)
class Outcome:
    """checkpoint: the last file written; terms: means over the last logged interval are in the log."""

    steps_done: int
    checkpoint: str
    terms: Dict[str, float]
    seconds_per_step: Optional[float]


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

    def save(self, saver: Saver, done: int) -> str:
        return saver.save(done, self.model, self.optimizer, self.scale.state())


def train_step(
    job: Training, loader: Loader, step: int, clock: Callable[[], float] = time.monotonic
) -> Dict[str, float]:
    """One optimiser step of all ranks; returns the loss terms (means over the ranks), their sum, the gradient
    norm before clipping and `data_time` in seconds.

    Raises Diverged before the weights are touched when the loss or the norm is not finite on any rank.
    """
    ranks, model = job.ranks, job.model
    job.optimizer.zero_grad()
    start_s = clock()
    drawn = loader.draw()
    mean_positives = ranks.sum([sum(each.positives(job.dataset) for each in drawn)])[0] / ranks.world
    data_s, by_rank = clock() - start_s, []
    for each in drawn:
        start_s = clock()
        samples = loader.load(each)
        data_s += clock() - start_s
        seed_step(job.order.seed, step, each.rank)
        by_rank.append(_backward(job, samples, each.rng, mean_positives))
    terms = mean_terms(by_rank, ranks)
    _require_finite(terms)
    ranks.sum_gradients(model)
    terms.update(_apply(job))
    return dict(terms, data_time=data_s)


def _apply(job: Training) -> Dict[str, float]:
    """Clip and step with the summed gradient; what that adds to the terms."""
    used = job.scale.scale
    if not job.scale.unscale(job.model):
        return {"grad_norm": 0.0, "loss_scale": used, "skipped": 1.0}
    terms = {"grad_norm": clip_gradients(job.model, job.schedule.grad_clip)}
    _require_finite(terms)
    job.optimizer.step()
    return terms if job.scale.state() is None else dict(terms, loss_scale=used, skipped=0.0)


def _backward(
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


def _require_finite(terms: Dict[str, float]) -> None:
    bad = [key for key, value in terms.items() if not math.isfinite(value)]
    if bad:
        raise Diverged("%s became %s" % (", ".join(bad), terms[bad[0]]))


def train_loop(
    job: Training,
    saver: Saver,
    log: NoLog,
    talk: Talk,
    saved: Callable[[int, str], None] = lambda done, path: None,
    profile: Optional[NoProfile] = None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """All steps of the job; `saved(steps done, path)` after each checkpoint that was due.

    Raises Interrupted or Diverged, which say what is saved.
    """
    talk.progress("train", job.first_step, job.total)
    job.model.train()
    refuse_live_batch_norm(job.model, job.ranks)
    profile = profile or NoProfile()
    loader = open_loader(job.dataset, job.order, job.ranks, range(job.first_step, job.total), job.workers)
    try:
        profile.start()
        with StopSignal() as stop:
            return _steps(job, loader, saver, log, talk, saved, profile, clock, stop)
    finally:
        profile.stop()
        loader.close()


def _steps(
    job: Training,
    loader: Loader,
    saver: Saver,
    log: NoLog,
    talk: Talk,
    saved: Callable[[int, str], None],
    profile: NoProfile,
    clock: Callable[[], float],
    stop: StopSignal,
) -> Outcome:
    path, total, schedule = job.start or saver.path(job.first_step), job.total, job.schedule
    terms: Dict[str, float] = {}
    times_s: List[float] = []
    for step in range(job.first_step, total):
        start_s = clock()
        factor = lr_factor(schedule, step, job.order.steps_per_epoch)
        set_lr(job.optimizer, factor)
        try:
            terms = train_step(job, loader, step, clock)
        except Diverged as error:
            raise _diverged(error, step, path, log) from None
        data_s = terms.pop("data_time")
        times_s.append(clock() - start_s)
        log.step(step, schedule.lr * factor, dict(terms, time=times_s[-1], data_time=data_s))
        talk.progress("train", step + 1, total, progress_text(terms, schedule.lr * factor, job.device))
        profile.step()
        stopped = job.ranks.any_signal(stop.number)
        due = saver.due(step + 1, total)
        if due or stopped is not None:
            path = job.save(saver, step + 1)
        if stopped is not None and step + 1 < total:
            raise _interrupted(stopped, step + 1, total, path, log)
        if due:
            saved(step + 1, path)
            job.model.train()
    # The first step pays for caches and thread pools.
    counted = times_s[1:] or times_s
    return Outcome(total, path, terms, sum(counted) / len(counted) if counted else None)


def progress_text(terms: Dict[str, float], lr: float, device: torch.device) -> str:
    """`loss 2.31 (cls 1.02, bbox 1.29)  lr 1.0e-03  0.8 GiB`: the terms of the last decoder layer."""
    parts = ["%s %.2f" % (name[5:], terms[name]) for name in ("loss_cls", "loss_bbox") if name in terms]
    memory = peak_gib(device)
    return "loss %.2f%s  lr %.1e%s" % (
        terms["loss"],
        " (%s)" % ", ".join(parts) if parts else "",
        lr,
        "" if memory is None else "  %.1f GiB" % memory,
    )


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
