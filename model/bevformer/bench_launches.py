"""How much a step asks of the device one by one: kernels on a GPU, torch's operators on a CPU.

What limits a small model on a fast GPU is the number of launches, not what they compute.  On a GPU kernels
are counted as the driver reports them.  On a CPU there are none; there the operators are counted that would
launch at least one each: views and empty tensors are left out, and an attention by `cpp` is a call that
torch does not see, as `triton` would be one kernel.
"""

import contextlib
from typing import Any, Callable, Dict, Iterator, List, Optional

import torch
from torch.profiler import ProfilerActivity, profile

KERNELS, OPERATORS = "kernels of a training step", "torch operators of a training step"
# What is on a GPU's time line and no kernel: copies, and what a host calls the time that others cover.
OTHERS = ("Memcpy", "Memset", "ProfilerStep", "Optimizer.", "aten::")


def launches_row(device: torch.device) -> Dict[str, str]:
    """`what` and `unit` of the row."""
    on_gpu = device.type == "cuda"
    return dict(what=KERNELS if on_gpu else OPERATORS, unit="kernels" if on_gpu else "operators")


def kernels_of(work: Callable[[], object], device: torch.device) -> Optional[int]:
    """Launched on a GPU while `work` ran; None where the driver reports none to a profiler."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        work()
        torch.cuda.synchronize(device)
    return len(on_the_gpu(recorded.profiler.kineto_results.events())) or None


def on_the_gpu(events: Any) -> List[str]:
    """The names of the kernels among a profile's events."""
    there = [each for each in events if each.device_type() == torch.autograd.DeviceType.CUDA]
    return [each.name() for each in there if not each.name().startswith(OTHERS)]


@contextlib.contextmanager
def counting() -> Iterator[Callable[[], Optional[int]]]:
    """Of the block's operators, in this thread, as a CPU's backward pass is; None before torch 2.0."""
    try:
        from torch.utils._python_dispatch import TorchDispatchMode
    except ImportError:
        yield lambda: None
        return
    counts = [0]

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            counts[0] += launches(func)
            return func(*args, **(kwargs or {}))

    with Count():
        yield lambda: counts[0]


def launches(func: Any) -> bool:
    """Whether an operator computes: what it returns is new or changed in place, not only made room for."""
    if func.overloadpacket.__name__.startswith(("empty", "new_empty")):
        return False
    looked_at = [each.alias_info for each in func._schema.returns if each.alias_info is not None]
    return not looked_at or any(each.is_write for each in looked_at)
