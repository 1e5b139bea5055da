"""How many bytes of tensors are alive while a piece of code runs, and who made those of the worst moment.

Works on the meta device too, where tensors have shapes and storages but no memory: a step that needs
50 GB is measured on a laptop.
"""

import weakref
from typing import Any, Dict, Iterable, Set, Tuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from .watched import Watched


class LiveBytes(Watched, TorchDispatchMode):  # type: ignore[misc]
    """Bytes of every storage made in the block, from the operator that makes it until nothing holds it.

    What a kernel takes and gives back inside (a convolution's workspace) is not seen.

    >>> live = LiveBytes(model.parameters())      # tensors that are there anyway are not counted
    >>> live.watch(model.neck, "neck")
    >>> with live:
    ...     loss = model(images)
    >>> live.peak_b, live.peak_by_label
    """

    def __init__(self, leave_out: Iterable[Tensor]) -> None:
        super().__init__()
        self.label = "the rest"  # of what no watched module makes
        self.peak_b, self.now_b = 0, 0
        self.peak_by_label: Dict[str, int] = {}
        self._by_label: Dict[str, int] = {}
        self._kept = [tensor.untyped_storage() for tensor in leave_out]
        self._seen: Set[int] = {storage._cdata for storage in self._kept}

    def take_peak(self) -> Tuple[int, Dict[str, int]]:
        """(bytes, bytes by label) of the worst moment since the last call; the next peak begins here."""
        taken = self.peak_b, self.peak_by_label
        self.peak_b, self.peak_by_label = self.now_b, dict(self._by_label)
        return taken

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = _sampled(args) if _is_ghostly_sampling(func, args) else func(*args, **(kwargs or {}))
        for tensor in tree_flatten(out)[0]:
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        if self.now_b > self.peak_b:
            self.peak_b, self.peak_by_label = self.now_b, dict(self._by_label)
        return out

    def _add(self, storage: Any) -> None:
        key, size_b = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        label = self._labels[-1] if self._labels else self.label
        self._seen.add(key)
        self._change(label, size_b)
        weakref.finalize(storage, self._gone, key, label, size_b)

    def _gone(self, key: int, label: str, size_b: int) -> None:
        self._seen.discard(key)
        self._change(label, -size_b)

    def _change(self, label: str, size_b: int) -> None:
        self.now_b += size_b
        self._by_label[label] = self._by_label.get(label, 0) + size_b


def _is_ghostly_sampling(func: Any, args: Any) -> bool:
    return func is torch.ops.aten.grid_sampler_2d.default and args[0].device.type == "meta"


def _sampled(args: Any) -> Tensor:
    """What grid_sample gives, by its shape alone: torch writes it out for the meta device, 100 ms a call."""
    plane, grid = args[:2]
    out: Tensor = plane.new_empty(*plane.shape[:2], *grid.shape[1:3])
    return out
