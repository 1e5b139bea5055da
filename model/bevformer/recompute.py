"""Recomputation: a part of the forward pass keeps its inputs only and runs again in the backward pass.

The autograd graph stays the one it would be; only what it saved is dropped and made again.  So gradients add
up in the same order and are the same to the bit wherever the forward pass can be repeated to the bit.  Parts
may lie in parts: the inner one's inputs are then made again by the outer one.

The idea is torch.utils.checkpoint's without reentrance, which torch 1.10 does not have.
"""

import threading
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
from torch import Tensor

Pack, Unpack = Callable[[Tensor], Any], Callable[[Any], Tensor]


def recompute(function: Callable[..., Any], *args: Any, draws: bool = True) -> Any:
    """`function(*args)`; what it saves for the backward pass is made again there.

    The random stream continues as if nothing were recomputed.  draws: whether the function draws random
    numbers on the way (dropout); its state is then kept.  Autocast is as it was.  Calls the function and
    nothing else where no gradient is asked for.
    """
    if not torch.is_grad_enabled():
        return function(*args)
    part = _Part(function, args, draws)
    with saving_through(part.pack, part.unpack):
        return function(*args)


class _Inputs(torch.autograd.Function):
    """Holds tensors as saved ones, so that a part around this one drops them too."""

    @staticmethod
    def forward(ctx: Any, grip: Tensor, *tensors: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(*tensors)
        return grip.new_empty(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # type: ignore[override]
        raise RuntimeError("the inputs of a recomputed part have no backward pass of their own")


class _Part:
    """One call of a function: how to run it again, and what that made until the graph has asked for it."""

    def __init__(self, function: Callable[..., Any], args: Tuple[Any, ...], draws: bool) -> None:
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        self._function = function
        self._others = [None if isinstance(arg, Tensor) else (arg,) for arg in args]
        # The tensor and not its grad_fn, which in torch 1.10 does not keep what it saved alive.
        self._inputs: Any = _Inputs.apply(torch.empty(0, requires_grad=True), *tensors)
        device = next((tensor.device for tensor in tensors), torch.device("cpu"))
        self._kind = "cuda" if device.type == "cuda" else "cpu"
        self._autocast = _autocast_state(self._kind)
        self._cuda = [device] if draws and device.type == "cuda" else []
        self._random = _random_state(self._cuda) if draws else None
        self._count = 0
        self._again: Dict[int, Tensor] = {}

    def pack(self, tensor: Tensor) -> int:
        self._count += 1
        return self._count - 1

    def unpack(self, index: int) -> Tensor:
        if index not in self._again:
            self._run_again()
        return self._again.pop(index)

    def _run_again(self) -> None:
        saved = iter(self._inputs.grad_fn.saved_tensors)
        args = [next(saved) if other is None else other[0] for other in self._others]
        made: Dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> None:
            made[len(made)] = tensor.detach()

        with saving_through(keep, _never), torch.enable_grad(), _autocast_as(self._autocast, self._kind):
            with _random_as(self._random, self._cuda):
                self._function(*args)
        if len(made) != self._count:
            raise RuntimeError(
                "recomputing saved %d tensors instead of %d: the function is not repeatable"
                % (len(made), self._count)
            )
        self._again = made


def _never(packed: Any) -> Tensor:
    raise RuntimeError("a recomputed part has no backward pass of its own")


class _Pairs(threading.local):
    """The pairs of hooks that are in use, for torch 1.10."""

    def __init__(self) -> None:
        self.stack: List[Tuple[Pack, Unpack]] = []


_PAIRS = _Pairs()


@contextmanager
def saving_through(pack: Pack, unpack: Unpack) -> Iterator[None]:
    """torch.autograd.graph.saved_tensors_hooks; on torch 1.10, which knows one pair at a time, nested too."""
    if hasattr(torch._C._autograd, "_push_saved_tensors_default_hooks"):
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield
        return
    register: Any = getattr(torch._C._autograd, "_register_saved_tensors_default_hooks")  # noqa: B009
    reset: Any = getattr(torch._C._autograd, "_reset_saved_tensors_default_hooks")  # noqa: B009
    stack = _PAIRS.stack
    if stack:
        reset()
    register(pack, unpack)
    stack.append((pack, unpack))
    try:
        yield
    finally:
        reset()
        stack.pop()
        if stack:
            register(*stack[-1])


def _random_state(cuda: List[torch.device]) -> List[Tensor]:
    """Of the CPU's generator, then of the device's."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in cuda)]


@contextmanager
def _random_as(states: Optional[List[Tensor]], cuda: List[torch.device]) -> Iterator[None]:
    """Random numbers as at `states`; afterwards the stream goes on where it was."""
    if states is None:
        yield
        return
    before = _random_state(cuda)
    _set_random(states, cuda)
    try:
        yield
    finally:
        _set_random(before, cuda)


def _set_random(states: List[Tensor], cuda: List[torch.device]) -> None:
    torch.set_rng_state(states[0])
    for state, device in zip(states[1:], cuda):
        torch.cuda.set_rng_state(state, device)


def _autocast_state(kind: str) -> Tuple[bool, torch.dtype]:
    if hasattr(torch, "get_autocast_dtype"):
        return torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    if kind == "cuda":
        return torch.is_autocast_enabled(), torch.get_autocast_gpu_dtype()
    return torch.is_autocast_cpu_enabled(), torch.get_autocast_cpu_dtype()


@contextmanager
def _autocast_as(state: Tuple[bool, torch.dtype], kind: str) -> Iterator[None]:
    if state == _autocast_state(kind):
        yield
        return
    with torch.autocast(kind, enabled=state[0], dtype=state[1], cache_enabled=False):
        yield
