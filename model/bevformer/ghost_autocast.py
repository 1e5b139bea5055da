"""Autocast for tensors on the meta device, which torch's own leaves alone.

Intercepts torch's functions as Python calls them and casts their arguments as CUDA's autocast does, without
its cache of weights.  Only the functions that this model calls are told apart; the lists are CUDA's (torch
documentation, "Autocast Op Reference").
"""

from typing import Any, Dict, Tuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_map

LOW = ("conv2d", "linear", "matmul", "__matmul__", "__rmatmul__", "bmm", "mm", "addmm")
# Written in Python of such functions; its inner calls cannot be seen from here.
LOW_AS_A_WHOLE = ("multi_head_attention_forward", "scaled_dot_product_attention")
FULL = ("layer_norm", "group_norm", "exp", "log", "pow", "reciprocal", "rsqrt", "norm")
FULL_RESULT = ("softmax", "sum")  # take what they get and give float32
WIDEST = ("grid_sample", "addcmul", "index_add", "cat", "stack")


class GhostAutocast(TorchFunctionMode):  # type: ignore[misc]
    """In the block, functions run as under torch.autocast("cuda", dtype, cache_enabled=False)."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "") or str(resolve_name(func)).rsplit(".", 1)[-1]
        if name in LOW or name in LOW_AS_A_WHOLE:
            args, kwargs = _cast(args, kwargs, self.dtype)
        elif name in FULL:
            args, kwargs = _cast(args, kwargs, torch.float32)
        elif name in FULL_RESULT and kwargs.get("dtype") is None and args[0].dtype == self.dtype:
            kwargs = dict(kwargs, dtype=torch.float32)
        elif name in WIDEST:
            args, kwargs = _cast(args, kwargs, _widest(args))
        return func(*args, **kwargs)


def _cast(args: Any, kwargs: Dict[str, Any], dtype: torch.dtype) -> Tuple[Any, Dict[str, Any]]:
    def cast(value: Any) -> Any:
        low = isinstance(value, Tensor) and value.is_floating_point() and value.device.type == "meta"
        return value.to(dtype) if low else value

    return tree_map(cast, args), tree_map(cast, kwargs)


def _widest(args: Any) -> torch.dtype:
    found = torch.float16
    for value in args:
        for tensor in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                found = tensor.dtype if found is torch.float16 else torch.promote_types(found, tensor.dtype)
    return found
