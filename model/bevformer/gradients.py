"""Where the gradients of a step lie (`ops.gradients`): each in memory of its own, or all in one buffer.

own: made by the backward pass and given back before the next step, so the forward pass has their room; with
several processes a bucket at a time is copied, added up and copied back.

flat: one buffer per kind of number, made once, of which every gradient is a view.  Processes add it up in
place, and the allocator never has to find room for hundreds of tensors between those of the backward pass
(nothing can be torn up).  It is there during the forward pass as well: one more copy of the trained weights
at the worst moment, see `plan --cfg-options ops.gradients=flat`.

Both give the same bits in one process and in two; more add up a buffer and a bucket in another order.
"""

from typing import Callable, Dict, Iterator, List, Set, Tuple

import torch
from torch import Tensor, nn

from .errors import ConfigError
from .memory import forget_gradients
from .ranks import BUCKET_B, Ranks

KINDS = ("auto", "own", "flat")
ALIGNED_B = 256  # where a gradient may begin: kernels that take 16 bytes at a time stay possible


class OwnGradients:
    """Each parameter's own."""

    kind = "own"

    def clear(self, model: nn.Module) -> None:
        """Before a step's backward passes; also where an attempt was given up."""
        forget_gradients(model)

    def sum(self, model: nn.Module, ranks: Ranks) -> None:
        """After them: the sum over all processes.  A parameter without a gradient in any keeps None."""
        ranks.sum_gradients(model)


OWN = OwnGradients()


class FlatGradients(OwnGradients):
    """Of one model: views of a buffer."""

    kind = "flat"

    def __init__(self) -> None:
        self._parameters: List[nn.Parameter] = []
        self._views: List[Tensor] = []
        self._buffers: List[Tensor] = []
        self._used: Set[int] = set()

    def clear(self, model: nn.Module) -> None:
        """All zero, and in their place, wherever they were."""
        if not self._parameters:
            self._lay_out(model)
        for buffer in self._buffers:
            buffer.zero_()
        for parameter, view in zip(self._parameters, self._views):
            parameter.grad = view
        self._used.clear()

    def sum(self, model: nn.Module, ranks: Ranks) -> None:
        """In place.  What no process used has no gradient then, so AdamW leaves it alone as ever."""
        counts = ranks.sum([float(place in self._used) for place in range(len(self._parameters))])
        for part in self._parts() if ranks.processes > 1 else ():
            ranks.add_up(part)
        for parameter, count in zip(self._parameters, counts):
            if not count:
                parameter.grad = None

    def _parts(self) -> Iterator[Tensor]:
        for buffer in self._buffers:
            yield from buffer.split(BUCKET_B // buffer.element_size())

    def _lay_out(self, model: nn.Module) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        places, sizes = _places(self._parameters)
        of_kind = {}
        for kind, size in sizes.items():
            of_kind[kind] = torch.zeros(size, dtype=kind[0], device=kind[1])
        self._buffers = list(of_kind.values())
        for place, (parameter, start) in enumerate(zip(self._parameters, places)):
            # With the strides of the weight (channels last, say), for the sake of fused optimisers.
            strides = torch.empty_like(parameter, device="meta").stride()
            buffer = of_kind[parameter.dtype, parameter.device]
            self._views.append(buffer.as_strided(parameter.shape, strides, start))
            parameter.register_hook(_marking(self._used, place))


def build_gradients(kind: str) -> OwnGradients:
    """Raises ConfigError for an unknown one.  auto: `own`, which needs less memory."""
    if kind not in KINDS:
        raise ConfigError("ops.gradients=%s" % kind, do="It is one of %s." % ", ".join(KINDS))
    return FlatGradients() if kind == "flat" else OWN


def _marking(used: Set[int], place: int) -> Callable[[Tensor], None]:
    """A hook that says that a gradient came; it holds no buffer."""

    def mark(gradient: Tensor) -> None:
        used.add(place)

    return mark


def _places(
    parameters: List[nn.Parameter],
) -> Tuple[List[int], Dict[Tuple[torch.dtype, torch.device], int]]:
    """Where each begins in the buffer of its kind, in numbers, and how long those buffers are."""
    places = []
    sizes: Dict[Tuple[torch.dtype, torch.device], int] = {}
    for p in parameters:
        kind, step = (p.dtype, p.device), ALIGNED_B // p.element_size()
        places.append(sizes.get(kind, 0))
        sizes[kind] = places[-1] + -(-p.numel() // step) * step
    return places, sizes
