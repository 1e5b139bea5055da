"""The only file that touches mmcv: its compiled operators as backends of ours."""

import importlib
from typing import Any, Callable

from torch import Tensor


def modulated_deform_conv2d() -> Callable[..., Tensor]:
    """mmcv's DCNv2 in our argument order.  Raises what importing mmcv.ops raises."""
    conv: Any = importlib.import_module("mmcv.ops.modulated_deform_conv").modulated_deform_conv2d

    def run(
        x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, stride: int, pad: int, dil: int
    ) -> Tensor:
        out: Tensor = conv(x, offset, mask, weight, None, stride, pad, dil, 1, 1)
        return out

    return run
