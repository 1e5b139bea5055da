"""Which ranks of a data-parallel training this process stands for, and what passes between processes.

N ranks can be trained by fewer processes: each runs its share of them one after another and adds up their
gradients. That gives the gradient of N-rank data parallelism, not something like it, because

* the losses of all ranks are divided by the same number, the mean number of true boxes over the ranks, which
  is known from the labels before any forward pass (facts: reproduction.md);
* every rank has its own random streams (`runstate`) and its own part of the sampler's order;
* batch norm is frozen.  A live one would see fewer samples at a time: refused.

One process needs no process group. With several, gradients are added by one all_reduce per bucket after the
last backward pass, which keeps torch's DistributedDataParallel (and how it ends) out of the way.
"""

import datetime
import math
import os
import re
import signal
import sys
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

import torch
from torch import nn

from .errors import ChildError, ConfigError
from .forked import end_with

BUCKET_B = 25 << 20  # as DistributedDataParallel's
TIMEOUT_S = 1800.0  # a process that is gone is noticed at once; this is for one that hangs


@dataclass(frozen=True)
class Ranks:
    """`world` ranks on `processes` processes, of which this is number `process`."""

    world: int = 1
    processes: int = 1
    process: int = 0

    def __post_init__(self) -> None:
        if self.world < 1 or self.world % self.processes:
            raise ConfigError(
                "%d ranks cannot be shared by %d processes" % (self.world, self.processes),
                "Every process has to stand for the same number of ranks.",
                "Give --emulate-gpus a multiple of %d." % self.processes,
            )

    @property
    def mine(self) -> range:
        """The ranks that this process runs."""
        share = self.world // self.processes
        return range(self.process * share, (self.process + 1) * share)

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and talks."""
        return self.process == 0

    def sum(self, numbers: Sequence[float]) -> List[float]:
        """Element by element over all processes, in float64."""
        if self.processes == 1:
            return list(numbers)
        tensor = torch.tensor(list(numbers), dtype=torch.float64, device=_device_of_group())
        self.add_up(tensor)
        return [float(number) for number in tensor.cpu()]

    def gather(self, value: Any) -> List[Any]:
        """Everybody's value, by process; plain data."""
        if self.processes == 1:
            return [value]
        values: List[Any] = [None] * self.processes
        self._together(lambda: torch.distributed.all_gather_object(values, value))
        return values

    def sum_gradients(self, model: nn.Module) -> None:
        """Each parameter's gradient becomes its sum over all processes; one that none has stays None."""
        if self.processes == 1:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        used = self.sum([float(p.grad is not None) for p in parameters])
        for bucket in _buckets([p for p, count in zip(parameters, used) if count]):
            flat = torch.cat([_gradient(p).reshape(-1) for p in bucket])
            self.add_up(flat)
            for p, summed in zip(bucket, flat.split([p.numel() for p in bucket])):
                p.grad = summed.view_as(p).clone()

    def any_signal(self, number: Optional[int]) -> Optional[int]:
        """The signal that any process received, the same answer in all of them: it reaches them at
        different steps, and they have to stop after the same one.
        """
        if self.processes == 1:
            return number
        numbers = self.sum([float(number or 0) if p == self.process else 0.0 for p in range(self.processes)])
        return int(max(numbers)) or None

    def require_equal(self, digest: str, what: str) -> None:
        """Raises ConfigError where the processes do not have the same `what` (hex digest)."""
        number = float(int(digest[:12], 16))
        mean = self.sum([number])[0] / self.processes
        spread = self.sum([abs(number - mean)])[0]
        if spread:
            raise ConfigError(
                "the %d processes start with different %s" % (self.processes, what),
                "They would train different models.",
                "Give all of them the same files and options.",
            )

    def add_up(self, tensor: torch.Tensor) -> None:
        """In place, the sum over all processes; on the group's device."""
        self._together(lambda: torch.distributed.all_reduce(tensor))

    def _together(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except RuntimeError as error:
            first = re.sub(r"^\[[^\]]*\] ", "", str(error).strip().split("\n")[0])
            raise ChildError(
                "process %d lost the others: %s" % (self.process, first.split(". This is typically")[0]),
                "Another process of this run ended or cannot be reached; what it said first is the cause.",
                "Mend that, then run the same command again with --resume auto.",
            ) from error


ALONE = Ranks()


def refuse_live_batch_norm(model: nn.Module, ranks: Ranks) -> None:
    """Raises ConfigError when ranks share a process and a batch norm of the (training) model is live."""
    if len(ranks.mine) == 1:
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise ConfigError(
                "%d ranks on one device need frozen batch norm, and %s is live" % (len(ranks.mine), name),
                "It would take its statistics from one rank's samples at a time: another training.",
                "Give --emulate-gpus %d, or as many devices as the recipe asks for." % ranks.processes,
            )


def started_by_torchrun() -> bool:
    """Whether torchrun (or something like it) started this as one of several processes."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def join(world: int, on_gpus: bool, timeout_s: Optional[float] = None) -> Ranks:
    """The ranks of this process; joins the group where torchrun started several.  `leave` it after.

    timeout_s: how long one process waits for another before it gives up.
    """
    if not started_by_torchrun():
        return Ranks(world)
    processes, process = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    if sys.platform == "linux":
        end_with(os.getppid(), signal.SIGTERM)  # a torchrun that was killed leaves no orphans on the devices
    ranks = Ranks(max(world, processes), processes, process)
    if on_gpus:
        torch.cuda.set_device(local_device(on_gpus))
    if on_gpus:
        # End with an error when the others are gone instead of waiting; two names, torch 2.2 changed it.
        os.environ.setdefault("NCCL_ASYNC_ERROR_HANDLING", "1")
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    if torch.distributed.is_initialized():
        return ranks  # a run that begins again with less memory
    try:
        torch.distributed.init_process_group(
            "nccl" if on_gpus else "gloo", timeout=datetime.timedelta(seconds=timeout_s or TIMEOUT_S)
        )
    except RuntimeError as error:
        raise _no_meeting(error) from error
    return ranks


def _no_meeting(error: RuntimeError) -> ChildError:
    first = str(error).strip().split("\n")[0]
    if "in use" in str(error) or "EADDRINUSE" in str(error):
        return ChildError(
            "the port %s is taken: %s" % (os.environ.get("MASTER_PORT", "for the processes"), first),
            "Another run on this machine uses it, perhaps one that was left over.",
            "Unset PORT and MASTER_PORT, so that a free one is found, or name another.",
        )
    return ChildError(
        "the processes of this run did not find each other: %s" % first,
        do="Check that each was started by the same torchrun and that HOST:PORT can be reached.",
    )


def local_device(on_gpus: bool) -> torch.device:
    """This process's device: the CPU, or the GPU of its place on the machine."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK") or 0)) if on_gpus else torch.device("cpu")


def leave() -> None:
    """Leave the process group, if one was joined."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def mean_terms(by_rank: Sequence[Dict[str, float]], ranks: Ranks) -> Dict[str, float]:
    """Loss terms averaged over all ranks of all processes; {"loss": nan} where a rank has no terms."""
    if ranks.sum([float(not all(by_rank))])[0]:
        return {"loss": math.nan}
    keys = list(by_rank[0])
    sums = ranks.sum([sum(terms[key] for terms in by_rank) for key in keys])
    return {key: total / ranks.world for key, total in zip(keys, sums)}


def _device_of_group() -> torch.device:
    nccl = torch.distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


def _gradient(parameter: Any) -> torch.Tensor:
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)


def _buckets(parameters: Sequence[Any]) -> Iterator[List[Any]]:
    """Parameters of one kind of number, together at most BUCKET_B, or one that is larger."""
    bucket: List[Any] = []
    size = 0
    for p in parameters:
        bytes_ = p.numel() * p.element_size()
        if bucket and (size + bytes_ > BUCKET_B or p.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(p)
        size += bytes_
    if bucket:
        yield bucket
