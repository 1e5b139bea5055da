"""The training loop: plain PyTorch, no state but the weights, the optimiser, the loss scale and the step."""

import signal
import time
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional

import torch

from .loading import Loader, open_loader
from .matching import Diverged
from .means import Means
from .memory import OutOfMemory, is_out_of_memory, told_by
from .optim import lr_factor, set_lr
from .profiling import NoProfile
from .ranks import refuse_live_batch_norm
from .saving import Saver
from .step import Clock, Training, train_step
from .stopping import Interrupted, StopSignal
from .talk import Talk
from .trainlog import NoLog
from .usage import peak_gib

ADVICE = "Lower the learning rate (--cfg-options schedule.lr=...) or check the data, in a new --work-dir."
Saved = Callable[[int, str, Dict[str, float]], None]
__all__ = ["Diverged", "Interrupted", "Outcome", "Training", "train_loop"]


@dataclass(frozen=True)
class Outcome:
    """checkpoint: the last file written; terms: means over the last logged interval are in the log."""

    steps_done: int
    checkpoint: str
    terms: Dict[str, float]
    seconds_per_step: Optional[float]


def train_loop(
    job: Training,
    saver: Saver,
    log: NoLog,
    talk: Talk,
    saved: Saved = lambda done, path, means: None,
    profile: Optional[NoProfile] = None,
    clock: Clock = time.monotonic,
) -> Outcome:
    """All steps of the job; `saved(steps done, path, means)` after each checkpoint that was due, with the
    means of the loss terms since the one before.

    Raises Interrupted, Diverged or OutOfMemory, which say what is saved.
    """
    talk.progress("train", job.first_step, job.total)
    job.model.train()
    refuse_live_batch_norm(job.model, job.ranks)
    profile = profile or NoProfile()
    steps = range(job.first_step, job.total)
    loader = open_loader(job.dataset, job.order, job.ranks, steps, job.workers, job.device)
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
    saved: Saved,
    profile: NoProfile,
    clock: Clock,
    stop: StopSignal,
) -> Outcome:
    path, total, schedule = job.start or saver.path(job.first_step), job.total, job.schedule
    terms: Dict[str, float] = {}
    times_s: List[float] = []
    means = Means()
    for step in range(job.first_step, total):
        start_s = clock()
        factor = lr_factor(schedule, step, job.order.steps_per_epoch)
        set_lr(job.optimizer, factor)
        try:
            terms = train_step(job, loader, step, clock)
        except Diverged as error:
            raise _diverged(error, step, path, log) from None
        except OutOfMemory as error:
            raise _no_memory(error, path, log) from error.__cause__
        data_s = terms.pop("data_time")
        times_s.append(clock() - start_s)
        told = dict(terms, time=times_s[-1], data_time=data_s)
        means.add(told)
        log.step(step, schedule.lr * factor, told)
        talk.progress("train", step + 1, total, progress_text(terms, schedule.lr * factor, job.device))
        profile.step()
        stopped = job.ranks.any_signal(stop.number)
        due = saver.due(step + 1, total)
        if due or stopped is not None:
            path = _save(job, saver, step + 1, path, log)
        if stopped is not None and step + 1 < total:
            raise _interrupted(stopped, step + 1, total, path, log)
        if due:
            saved(step + 1, path, means.take())
            job.model.train()
    # The first step pays for caches and thread pools.
    counted = times_s[1:] or times_s
    return Outcome(total, path, terms, sum(counted) / len(counted) if counted else None)


def _save(job: Training, saver: Saver, done: int, before: str, log: NoLog) -> str:
    """The checkpoint's path.  Raises Diverged, naming the one `before`, where the weights are not finite, and
    OutOfMemory where it cannot be written for want of that.
    """
    try:
        return job.save(saver, done)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        seen = "out of memory while the checkpoint after step %d was written: %s" % (done, told_by(error))
        do = "Go on with --resume auto when more is free; %s says what a step takes." % job.memory.plan
        raise _no_memory(OutOfMemory(seen, "", do), before, log) from error
    except Diverged as error:
        log.say("Training stopped after step %d: %s." % (done, error.seen))
        raise Diverged(
            "Training stopped after step %d: %s." % (done, error.seen),
            "Nothing of that is saved; the last good checkpoint is %s." % before,
            ADVICE,
        ) from None


def progress_text(terms: Dict[str, float], lr: float, device: torch.device) -> str:
    """`loss 2.31 (cls 1.02, bbox 1.29)  lr 1.0e-03  0.8 GiB`: the terms of the last decoder layer."""
    parts = ["%s %.2f" % (name[5:], terms[name]) for name in ("loss_cls", "loss_bbox") if name in terms]
    memory = peak_gib(device)
    return "%s%s  lr %.1e%s" % (
        "loss %.2f" % terms["loss"] if "loss" in terms else "step left out: the loss overflowed",
        " (%s)" % ", ".join(parts) if parts else "",
        lr,
        "" if memory is None else "  %.1f GiB" % memory,
    )


def _diverged(error: Diverged, step: int, path: str, log: NoLog) -> Diverged:
    seen = "Training stopped at step %d: %s." % (step + 1, error.seen)
    log.say(seen)
    return Diverged(
        seen,
        "The weights before this step are finite; the last good checkpoint is %s." % path,
        ADVICE,
    )


def _no_memory(error: OutOfMemory, path: str, log: NoLog) -> OutOfMemory:
    log.say("Training stopped: %s." % error.seen)
    why = ("%s The last checkpoint, %s, is whole." % (error.why, path)).strip()
    return OutOfMemory("Training stopped: %s." % error.seen, why, error.do)


def _interrupted(number: int, done: int, total: int, path: str, log: NoLog) -> Interrupted:
    name = signal.Signals(number).name
    seen = "Stopped by %s after step %d of %d." % (name, done, total)
    log.say(seen)
    return Interrupted(
        number, seen, "Everything is saved in %s." % path, "Continue with the same command and --resume auto."
    )
