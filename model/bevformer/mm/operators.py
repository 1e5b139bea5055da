"""mmcv's compiled operators as backends of ours."""

import importlib
from typing import Any, Callable, Dict

import torch
from torch import Tensor


def modulated_deform_conv2d() -> Callable[..., Tensor]:
    """mmcv's DCNv2 in our argument order.  Raises what importing mmcv.ops raises.

    It reads its inputs as if they lay row by row, whatever their strides say: channels-last maps gave other
    numbers without a word.  It knows no bf16, and positions in halves would be half pixels: so in float32.
    """
    conv: Any = importlib.import_module("mmcv.ops.modulated_deform_conv").modulated_deform_conv2d

    def run(
        x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, stride: int, pad: int, dil: int
    ) -> Tensor:
        kind = torch.promote_types(x.dtype, torch.float32)
        rows = [each.to(kind).contiguous() for each in (x, offset, mask, weight)]
        out: Tensor = conv(*rows, None, stride, pad, dil, 1, 1)
        return out.to(x.dtype)

    return run


def ms_deform_attn(device_type: str) -> Callable[..., Tensor]:
    """mmcv's multi-scale deformable attention: (value_MSHD, shapes_L2, locations_MQHLP2, weights_MQHLP).

    Its compiled kernel on a GPU, its own grid_sample version elsewhere, as mmcv itself chooses.  Raises
    what importing mmcv.ops raises.
    """
    module: Any = importlib.import_module("mmcv.ops.multi_scale_deform_attn")
    if device_type != "cuda":
        plain: Callable[..., Tensor] = module.multi_scale_deformable_attn_pytorch
        return plain

    def run(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        areas = shapes.prod(1)
        starts = areas.cumsum(0) - areas
        step = value.shape[0]
        out: Tensor = module.MultiScaleDeformableAttnFunction.apply(
            value, shapes, starts, locations, weights, step
        )
        return out

    return run


def import_openmmlab() -> Dict[str, str]:
    """Import what BEVFormer's official code needs of OpenMMLab 1.x; name -> version."""
    names = ("mmcv", "mmdet", "mmseg", "mmdet3d")
    found = {name: str(importlib.import_module(name).__version__) for name in names}
    for module in ("mmcv.ops", "mmcv.runner", "mmdet.models", "mmdet3d.models", "mmdet3d.datasets"):
        importlib.import_module(module)
    return found


def nms(boxes_N4: Tensor, scores_N: Tensor, iou: float) -> Tensor:
    """mmcv's compiled non-maximum suppression: indices that stay."""
    kept: Tensor = importlib.import_module("mmcv.ops").nms(boxes_N4, scores_N, iou)[1]
    return kept
