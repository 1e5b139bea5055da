"""The samples of each step, read here or ahead of time by worker processes: the same samples either way.

What a step trains on is a pure function of (seed, step, rank).  The frames are drawn in this process; a
worker gets them with the state of the rank's random stream and sends the images and the stream's new state
back.  So neither the number of workers nor how far they are ahead can be seen in the result.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Deque, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from .errors import ChildError, DataError, UserError
from .forked import end_with
from .prefetch import Prefetch, ToDevice
from .ranks import Ranks
from .runstate import DataOrder, step_rng
from .types import Sample

AHEAD = 2  # samples that each worker has ready
SHM = "/dev/shm"
CPU = torch.device("cpu")
NOTICED_S = 10.0  # until a process that died is known to be dead, on a busy machine


@dataclass(frozen=True)
class Drawn:
    """What one rank's step will train on, its images not read yet."""

    rank: int
    queues: List[List[int]]
    rng: np.random.RandomState

    def positives(self, dataset: Any) -> int:
        """True boxes in the batch."""
        return sum(len(dataset.truth(queue[-1]).labels_G) for queue in self.queues)


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


def draw_step(dataset: Any, order: DataOrder, step: int, ranks: Ranks) -> List[Drawn]:
    """One entry for each rank of this process."""
    drawn = []
    for rank in ranks.mine:
        rng = step_rng(order.seed, step, rank)
        drawn.append(Drawn(rank, draw_queues(dataset, order.at(step, rank), order.indices, rng), rng))
    return drawn


class Loader:
    """Step by step: `draw()`, then `load(drawn)` for each of what it gave.  Without workers."""

    def __init__(self, dataset: Any, order: DataOrder, ranks: Ranks, steps: Sequence[int]) -> None:
        self.dataset, self.order, self.ranks = dataset, order, ranks
        self._steps = iter(steps)

    def draw(self) -> List[Drawn]:
        return draw_step(self.dataset, self.order, next(self._steps), self.ranks)

    def load(self, drawn: Drawn) -> List[Sample]:
        """The images and boxes; afterwards the rank's stream is where reading left it."""
        return [self.dataset.load_queue(queue, drawn.rng) for queue in drawn.queues]

    def close(self) -> None: ...


def take_back_sigchld() -> None:
    """Undo the handler that the first DataLoader with workers installs, whoever made it.

    It raises wherever the program happens to be, in an optimiser step for example.  A dead worker
    is noticed in `load` as well.
    """
    module = getattr(signal.getsignal(signal.SIGCHLD), "__module__", None) or ""
    if module.startswith("torch.utils.data") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


class WorkerLoader(Loader):
    """The same with worker processes that read ahead, in order; for a GPU one sample is copied ahead."""

    def __init__(
        self,
        dataset: Any,
        order: DataOrder,
        ranks: Ranks,
        steps: Sequence[int],
        workers: int,
        device: torch.device = CPU,
    ) -> None:
        super().__init__(dataset, order, ranks, steps)
        self._drawn: Deque[List[Drawn]] = deque()
        forked = "fork" in multiprocessing.get_all_start_methods()
        self._loaded = iter(
            DataLoader(
                _Jobs(dataset),
                batch_size=None,
                sampler=_Ahead(self),
                num_workers=workers,
                prefetch_factor=AHEAD,
                collate_fn=_as_it_is,
                worker_init_fn=_Quiet(os.getpid()),
                multiprocessing_context="fork" if forked else None,
                generator=torch.Generator(),
            )
        )
        take_back_sigchld()
        self._moved = Prefetch(self._loaded, ToDevice(device)) if device.type == "cuda" else None

    def ahead(self) -> Iterator[Tuple[List[List[int]], Any]]:
        """The jobs of all steps in order; runs ahead of `draw`."""
        for step in self._steps:
            drawn = draw_step(self.dataset, self.order, step, self.ranks)
            self._drawn.append(drawn)
            for each in drawn:
                yield each.queues, each.rng.get_state()

    def draw(self) -> List[Drawn]:
        return self._drawn.popleft()

    def load(self, drawn: Drawn) -> List[Sample]:
        try:
            loaded = next(self._loaded if self._moved is None else self._moved)
        except (RuntimeError, OSError, EOFError) as error:  # the last two: it died with an image half sent
            raise self._died(error) from error
        if isinstance(loaded, UserError):
            raise loaded
        samples, state = loaded
        drawn.rng.set_state(state)
        return list(samples)

    def close(self) -> None:
        if self._moved is not None:
            self._moved.close()
        stop = getattr(self._loaded, "_shutdown_workers", None)
        if stop is not None:
            stop()

    def _exit_codes(self, wait_s: float) -> List[int]:
        """Of the workers that did not end well; a broken pipe is seen before the system tells of a death."""
        end_s = time.monotonic() + wait_s
        while True:
            codes = [worker.exitcode for worker in getattr(self._loaded, "_workers", ())]
            ended = [code for code in codes if code]
            if ended or time.monotonic() >= end_s:
                return ended
            time.sleep(0.02)

    def _died(self, error: Exception) -> Exception:
        """A sentence for a dead worker; any other error as it is."""
        # What a worker itself met comes as "Caught ... in DataLoader worker process"; any other error may be
        # the first sign of a death: a broken pipe, or torch's RuntimeError over a handle half received.
        ended = self._exit_codes(0.0 if str(error).startswith("Caught ") else NOTICED_S)
        if not ended and "worker" not in str(error):
            return error
        name = signal.Signals(-ended[0]).name if ended and ended[0] < 0 else None
        full = "SIGBUS" if "shared memory" in str(error) or "No space left" in str(error) else ""
        seen = (
            "a process that reads images was ended by %s" % name
            if name
            else "a process that reads images died"
        )
        why = {
            "SIGKILL": "Most often the system ran out of memory and ended it.",
            "SIGBUS": "%s is full: it carries the images between the processes." % SHM,
        }.get(name or full, "It said: %s" % str(error).strip().split("\n")[0])
        return ChildError(seen, why, "Go on with --resume auto and fewer --workers; --workers 0 needs none.")


def open_loader(
    dataset: Any,
    order: DataOrder,
    ranks: Ranks,
    steps: Sequence[int],
    workers: int,
    device: torch.device = CPU,
) -> Loader:
    """With `workers` processes, or without any; `device`: where the model is."""
    if not workers or not steps:
        return Loader(dataset, order, ranks, steps)
    return WorkerLoader(dataset, order, ranks, steps, workers, device)


def free_shared_memory_b() -> Optional[int]:
    """Bytes that are free for images on their way; None where the system has no such place."""
    try:
        found = os.statvfs(SHM)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def workers_that_fit(asked: Optional[int], usual: int, sample_b: int, free_b: Optional[int]) -> int:
    """`asked`, or as many of the `usual` as have room for their images in /dev/shm.

    Raises ChildError where those asked for have none: one of them would be ended in the middle of a run.
    """
    fit = usual if free_b is None else int(free_b // max(sample_b * AHEAD, 1))
    if asked is None:
        return min(usual, fit)
    need_b = sample_b * asked * AHEAD
    if free_b is None or need_b <= free_b:
        return asked
    raise ChildError(
        "%d workers need %d MiB in %s, %d MiB are free" % (asked, need_b >> 20, SHM, free_b >> 20),
        "Images go through it from the workers; without room one of them is ended by SIGBUS.",
        "Give --workers %d, or the container more room there (docker run --shm-size=8g)." % fit,
    )


class _Jobs(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """What a worker does with a job.  An error that a person can mend travels as a value."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitem__(self, job: Tuple[List[List[int]], Any]) -> Any:
        queues, state = job
        rng = np.random.RandomState()
        rng.set_state(state)
        try:
            samples = [self._dataset.load_queue(queue, rng) for queue in queues]
        except UserError as error:
            return error
        return samples, rng.get_state()


class _Ahead:
    """A sampler for DataLoader, which wants something it can iterate over."""

    def __init__(self, loader: WorkerLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return self._loader.ahead()


class _Quiet:
    """At a worker's start: it ends with its parent, and leaves Ctrl-C and a job's end to it."""

    def __init__(self, parent: int) -> None:
        self._parent = parent

    def __call__(self, worker: int) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if os.name == "posix" and os.uname().sysname == "Linux":
            end_with(self._parent)


def _as_it_is(loaded: Any) -> Any:
    return loaded
