"""What autograd keeps for the backward pass, counted while a forward pass runs.

Works on the meta device too, where tensors have shapes and storages but no memory: a step that needs
50 GB is measured on a laptop.
"""

from contextlib import contextmanager
from typing import Any, Dict, Iterable, Iterator, List, Set

from torch import Tensor, nn

from .recompute import saving_through
from .watched import Watched


def _storage(tensor: Tensor) -> Any:
    return tensor.untyped_storage() if hasattr(tensor, "untyped_storage") else tensor.storage()


def storage_bytes(tensor: Tensor) -> int:
    storage = _storage(tensor)  # torch 1.10's counts elements
    return int(storage.nbytes() if hasattr(storage, "nbytes") else len(storage) * storage.element_size())


class SavedBytes(Watched):
    """Bytes saved for backward by label, each storage once, where it was saved first.

    >>> saved = SavedBytes(model)          # its parameters and buffers are not counted
    >>> saved.watch(model.neck, "neck")
    >>> with saved.counting("the rest"):
    ...     loss = model(images)
    >>> saved.by_label
    """

    def __init__(self, *models: nn.Module) -> None:
        super().__init__()
        self.by_label: Dict[str, int] = {}
        self._alive: List[Tensor] = []  # a storage's address is unique only while it lives
        self._seen: Set[int] = set()
        for model in models:
            self._leave_out(model.parameters())
            self._leave_out(model.buffers())

    @property
    def total(self) -> int:
        return sum(self.by_label.values())

    @contextmanager
    def counting(self, label: str) -> Iterator[None]:
        """In the block, saved tensors are counted; `label` is for what no watched module saves."""
        self._labels.append(label)
        try:
            with saving_through(self._pack, lambda tensor: tensor):
                yield
        finally:
            del self._labels[:]

    def _pack(self, tensor: Tensor) -> Tensor:
        key = _storage(tensor)._cdata
        if key not in self._seen:
            self._seen.add(key)
            self._alive.append(tensor)
            label = self._labels[-1]
            self.by_label[label] = self.by_label.get(label, 0) + storage_bytes(tensor)
        return tensor

    def _leave_out(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            self._alive.append(tensor)
            self._seen.add(_storage(tensor)._cdata)
