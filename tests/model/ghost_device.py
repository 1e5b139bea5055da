"""A device that is not there: its tensors keep their numbers on the CPU but say they are elsewhere, so that
what the host would wait for on a GPU can be counted on any machine.
"""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
aten = torch.ops.aten
# The host needs a number, or how many there are, before it can go on.
WAITS = (aten._local_scalar_dense, aten.is_nonzero, aten.nonzero, aten.masked_select, aten.equal)
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
FROM_LISTS = (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)


class Ghost(torch.Tensor):
    """A tensor on the device; `numbers` holds its numbers."""

    @staticmethod
    def __new__(cls, real):
        return torch.Tensor._make_wrapper_subclass(
            cls, real.shape, real.stride(), real.storage_offset(), dtype=real.dtype, device=DEVICE
        )

    def __init__(self, real):
        self.numbers = real

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} outside of GhostDevice")


class GhostDevice(TorchDispatchMode):
    """In the block, operators on ghosts run; `waits` lists what the host waited for, `sent` what it sent."""

    def __init__(self):
        super().__init__()
        self.waits, self.sent = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        before = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Ghost)]
        target = kwargs.get("device")
        self._count(func.overloadpacket, args, kwargs, before, target)
        if target == DEVICE:
            kwargs["device"] = torch.device("cpu")
        out = func(*tree_map(_real, args), **tree_map(_real, kwargs))
        there = target == DEVICE or (bool(before) and target is None)
        same = {id(each.numbers): each for each in before}
        return tree_map(lambda x: _ghost(x, same) if there else x, out)

    def _count(self, op, args, kwargs, before, target):
        name = op.__name__
        if op in WAITS and before:
            self.waits.append(name)
        masks = args[1] if op in INDEXING else ()
        if any(isinstance(each, Ghost) and each.dtype == torch.bool for each in masks):
            self.waits.append(name + " with a mask")
        copied = (op is aten._to_copy and target is not None) or op is aten.copy_
        if not copied:
            return
        source = args[1] if op is aten.copy_ else args[0]
        goes = isinstance(args[0], Ghost) if op is aten.copy_ else target == DEVICE
        if isinstance(source, Ghost) and not goes:
            self.waits.append("copy to the host")
        elif goes and not isinstance(source, Ghost):
            self.sent.append(tuple(source.shape))
            if not (kwargs.get("non_blocking") or (op is aten.copy_ and len(args) > 2 and args[2])):
                self.waits.append("copy to the device")


class NoLists(TorchFunctionMode):
    """Tensors made of lists on the device are copied there with a wait; `seen` lists them."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get("device", args[0].device if func is torch.Tensor.new_tensor else None)
        if func in FROM_LISTS and device is not None and torch.device(device) == DEVICE:
            self.seen.append(func.__name__)
        return func(*args, **kwargs)


def _real(value):
    return value.numbers if isinstance(value, Ghost) else value


def _ghost(value, same):
    if not isinstance(value, torch.Tensor) or isinstance(value, Ghost):
        return value
    known = same.get(id(value))
    return Ghost(value) if known is None else known


def to_ghosts(model):
    """The model's parameters and buffers become ghosts, in place."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                ghost = Ghost(parameter.detach()).requires_grad_(parameter.requires_grad)
                ghost._is_param = True
                module._parameters[name] = ghost
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = Ghost(buffer)
    return model
