"""The checkpoints of a work folder: written, pointed to, and thinned out."""

import errno
import os
import re
import time
from dataclasses import dataclass
from typing import IO, Any, Callable, Dict, List, Mapping, Optional

import torch
from torch import nn

from .atomic import link_latest
from .checkpoint import load_checkpoint, save_checkpoint
from .errors import CheckpointError, ConfigError, DiskError, UserError
from .runstate import DataOrder

SAVE_EVERY_STEPS = 500  # for recipes of a fixed number of steps; the others save once per epoch, as upstream
KEEP_LAST_STEPS = 5  # of those; every epoch of the others is kept, as upstream
LOCK = ".lock"
HALF_WRITTEN = r"\.((iter|epoch)_\d+\.pth|latest\.pth|run\.json|config\.json|frames\.txt)\."


def step_of(name: str, steps_per_epoch: int) -> Optional[int]:
    """Optimiser steps done when `name` was written; None for other files."""
    found = re.match(r"(iter|epoch)_(\d+)\.pth$", name)
    if not found:
        return None
    return int(found.group(2)) * (steps_per_epoch if found.group(1) == "epoch" else 1)


def newest_first(work_dir: str, steps_per_epoch: int) -> List[str]:
    """Paths of the numbered checkpoints."""
    found = []
    for name in os.listdir(work_dir) if os.path.isdir(work_dir) else ():
        step = step_of(name, steps_per_epoch)
        if step is not None:
            found.append((step, name))
    return [os.path.join(work_dir, name) for _, name in sorted(found, reverse=True)]


def open_work_dir(path: str) -> Optional[IO[str]]:
    """Make the folder, claim it for this process and clear away what a killed one left half written.

    The folder is claimed until the returned file is closed or the process ends, however it ends; None where
    the file system knows no locks.  Raises DiskError: in the first second, not after an epoch; and UserError
    where another training writes there.
    """
    try:
        os.makedirs(path, exist_ok=True)
        stream = open(os.path.join(path, LOCK), "a+", encoding="utf-8")  # noqa: SIM115 - the claim
        claimed = _claimed(stream, path)
        stream.truncate(0)
        stream.write("%d\n" % os.getpid())
        stream.flush()
        for name in os.listdir(path):
            if re.match(HALF_WRITTEN, name):
                os.unlink(os.path.join(path, name))
    except OSError as error:
        raise DiskError(
            "cannot write into the work folder %s: %s" % (path, error.strerror),
            "Checkpoints and logs have to go there.",
            "Name another --work-dir, or make room there.",
        ) from error
    return stream if claimed else None


def _claimed(stream: IO[str], path: str) -> bool:
    """A lock of the process, not of the file: the processes that read images do not inherit it."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return False
    for wait_s in (0.2, 0.8, 2.0, 0.0):  # one that was killed a moment ago may still be ending
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                return False
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
        time.sleep(wait_s)
    stream.seek(0)
    holder = stream.read().strip() or "unknown"
    raise UserError(
        "%s belongs to a training that still runs: process %s" % (path, holder),
        "Two of them would overwrite each other's checkpoints and logs.",
        "Wait for it, stop it (kill %s), or name another --work-dir." % holder,
    )


@dataclass(frozen=True)
class Saver:
    """Writes `iter_N.pth` or `epoch_N.pth` into the work folder and points latest.pth to it."""

    work_dir: str
    meta: Dict[str, Any]
    by_epoch: bool
    order: DataOrder
    leads: bool = True  # the other processes of a run only know the path
    keep_last: Optional[int] = None  # None: all
    tell: Callable[[str], None] = print

    def due(self, done: int, total: int) -> bool:
        """After `done` optimiser steps."""
        every = self.order.steps_per_epoch if self.by_epoch else SAVE_EVERY_STEPS
        return done == total or done % every == 0

    def path(self, done: int) -> str:
        epoch, rest = divmod(done, self.order.steps_per_epoch)
        name = "epoch_%d" % epoch if self.by_epoch and done and not rest else "iter_%d" % done
        return os.path.join(self.work_dir, name + ".pth")

    def save(
        self,
        done: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: Optional[Mapping[str, float]] = None,
        more: Optional[Mapping[str, Any]] = None,
    ) -> str:
        """`more`: goes into the meta besides what is the same in all checkpoints of the run."""
        path = self.path(done)
        if not self.leads:
            return path
        meta = dict(
            self.meta,
            iter=done,
            epoch=done // self.order.steps_per_epoch,
            time=time.strftime("%Y-%m-%d %H:%M:%S"),
            **(more or {}),
        )
        save_checkpoint(path, model, optimizer, meta, scaler)
        link_latest(path)
        self.thin_out(path)
        return path

    def thin_out(self, latest: str) -> None:
        """Delete what `keep_last` leaves over, once the newest file was read back whole; also where a run
        goes on from it, as a kill may have come between its writing and this.

        iter_0.pth, the initial weights, stays; a file of a later step than this one is somebody's as well.
        """
        here = os.path.abspath(os.path.dirname(latest)) == os.path.abspath(self.work_dir)
        if self.keep_last is None or not here:
            return
        done = step_of(os.path.basename(latest), self.order.steps_per_epoch) or 0
        older = [
            path
            for path in newest_first(self.work_dir, self.order.steps_per_epoch)
            if 0 < (step_of(os.path.basename(path), self.order.steps_per_epoch) or 0) <= done
        ]
        if not older[self.keep_last :]:
            return
        try:
            load_checkpoint(latest)
        except CheckpointError as error:
            self.tell("%s Nothing older is deleted." % error.seen)
            return
        for path in older[self.keep_last :]:
            os.unlink(path)


def keep_last_of(asked: Optional[int], by_epoch: bool) -> Optional[int]:
    """From --keep-last: so many; 0 is all; the default depends on the recipe."""
    if asked is None:
        return None if by_epoch else KEEP_LAST_STEPS
    if asked < 0:
        raise ConfigError("--keep-last %d is no number of checkpoints" % asked, do="0 keeps all.")
    return asked or None
