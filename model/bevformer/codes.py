"""The ten numbers the head predicts per box: cx, cy, log w, log l, cz, log h, sin, cos, vx, vy."""

from typing import Sequence

import torch
from torch import Tensor

from .transfer import tensor_on


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision tensors as float32; float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def encode_boxes(boxes_G9: Tensor) -> Tensor:
    """(G, 9) gravity-centred x, y, z, w, l, h, yaw, vx, vy in metres -> (G, 10) targets."""
    x, y, z, w, length, h, yaw, vx, vy = boxes_G9.unbind(-1)
    return torch.stack([x, y, w.log(), length.log(), z, h.log(), yaw.sin(), yaw.cos(), vx, vy], -1)


def decode_boxes(codes_K10: Tensor) -> Tensor:
    """The inverse, centres already in metres; yaw = atan2(sin, cos)."""
    x, y, w, length, z, h, sin, cos, vx, vy = codes_K10.unbind(-1)
    return torch.stack([x, y, z, w.exp(), length.exp(), h.exp(), torch.atan2(sin, cos), vx, vy], -1)


def scale_centres(codes: Tensor, pc_range_m: Sequence[float]) -> Tensor:
    """cx, cy, cz from [0, 1] to metres of the lidar frame."""
    low, high = (tensor_on(pc_range_m[at : at + 3], codes.device, codes.dtype) for at in (0, 3))
    span = high - low
    xy = codes[..., 0:2] * span[:2] + low[:2]
    z = codes[..., 4:5] * span[2:] + low[2:]
    return torch.cat([xy, codes[..., 2:4], z, codes[..., 5:]], -1)
