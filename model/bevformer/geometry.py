"""Where BEV queries stand, what the cameras see of them, and how history moves under the ego vehicle.

B batch, Q = bev_h * bev_w queries (index = row(y) * bev_w + column(x)), N cameras, Z heights per pillar.
Source of every formula: facts bevformer.md, "BEV features".
"""

import math
from typing import Any, Optional, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .codes import at_least_float32
from .ops.visible import Visibility, gather_visible
from .transfer import send, tensor_on
from .types import FrameMeta

_MIN_DEPTH_M = 1e-5


def reference_2d(bev_h: int, bev_w: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(Q, 2) cell centres (x, y) in [0, 1]."""
    y = torch.linspace(0.5, bev_h - 0.5, bev_h, dtype=dtype, device=device) / bev_h
    x = torch.linspace(0.5, bev_w - 0.5, bev_w, dtype=dtype, device=device) / bev_w
    return torch.stack([x.expand(bev_h, -1), y.unsqueeze(1).expand(-1, bev_w)], -1).flatten(0, 1)


def pillar_points(
    bev_h: int,
    bev_w: int,
    heights: int,
    pc_range_m: Sequence[float],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(Q, Z, 3) points in lidar metres: every cell centre at every height of its pillar."""
    depth_m = pc_range_m[5] - pc_range_m[2]
    z = torch.linspace(0.5, depth_m - 0.5, heights, dtype=dtype, device=device) / depth_m
    xy = reference_2d(bev_h, bev_w, device, dtype)
    unit = torch.cat(
        [xy.unsqueeze(1).expand(-1, heights, -1), z.view(1, heights, 1).expand(len(xy), -1, -1)], -1
    )
    low = tensor_on(pc_range_m[:3], device, dtype)
    high = tensor_on(pc_range_m[3:], device, dtype)
    return unit * (high - low) + low


def project(points_QZ3: Tensor, metas: Sequence[FrameMeta]) -> Tuple[Tensor, Tensor]:
    """(B, N, Q, Z, 2) in [0, 1] of the padded image, and (B, N, Q, Z) whether the camera sees the point.

    At least float32 and without a matrix product, so that TF32 or autocast cannot touch it.  Width and
    height are the *padded* ones of the first camera (kept quirk).
    """
    kind = at_least_float32(points_QZ3).dtype
    matrices = torch.from_numpy(np.stack([meta.lidar2img_N44 for meta in metas])).to(kind)
    matrices = send(matrices, points_QZ3.device)[:, :, None, None]  # (B, N, 1, 1, 4, 4)
    points = torch.cat([points_QZ3.to(kind), torch.ones_like(points_QZ3[..., :1])], -1)
    x, y, depth = ((matrices[..., row, :] * points).sum(-1) for row in range(3))
    safe = depth.clamp(min=_MIN_DEPTH_M)
    sizes = tensor_on([[meta.img_shape_hw[1], meta.img_shape_hw[0]] for meta in metas], points.device, kind)[
        :, None, None, None
    ]
    uv = torch.stack([x / safe, y / safe], -1) / sizes
    inside = (uv > 0).all(-1) & (uv < 1).all(-1)
    return uv, inside & (depth > _MIN_DEPTH_M)


def visibility(points_QZ3: Tensor, metas: Sequence[FrameMeta]) -> Visibility:
    """Per (sample, camera) the queries of which any height is seen.

    The reference takes the visible set of the batch's first sample for all; here each has its own.
    """
    uv, seen = project(points_QZ3, metas)
    return gather_visible(uv, seen.any(-1))


def bev_shift(metas: Sequence[FrameMeta], bev_h: int, bev_w: int, pc_range_m: Sequence[float]) -> np.ndarray:
    """(B, 2) float64: ego motion (x, y) since the last frame in fractions of the BEV map."""
    can_bus = np.stack([meta.can_bus_18 for meta in metas])
    dx, dy = can_bus[:, 0], can_bus[:, 1]
    angle_deg = can_bus[:, 16] / math.pi * 180 - np.arctan2(dy, dx) / math.pi * 180
    length_m = np.sqrt(dx**2 + dy**2)
    cell_x_m = (pc_range_m[3] - pc_range_m[0]) / bev_w
    cell_y_m = (pc_range_m[4] - pc_range_m[1]) / bev_h
    shift_y = length_m * np.cos(angle_deg / 180 * math.pi) / cell_y_m / bev_h
    shift_x = length_m * np.sin(angle_deg / 180 * math.pi) / cell_x_m / bev_w
    return np.stack([shift_x, shift_y], -1)


def rotate_bev(
    bev_QC: Tensor, angle_deg: float, bev_h: int, bev_w: int, center_xy: Optional[Tuple[float, float]]
) -> Tensor:
    """History turned by `angle_deg`, counter-clockwise with row 0 on top; nearest cell, outside is zero.

    As torchvision's rotate(..., center=[100, 100]) computes it, to the bit, in float32 at least.  Upstream's
    centre is fixed, also on the 50x50 and 150x150 grids (kept quirk); None is the grid's own centre.
    """
    cx, cy = (0.0, 0.0) if center_xy is None else (center_xy[0] - bev_w * 0.5, center_xy[1] - bev_h * 0.5)
    kind: Any = {"device": bev_QC.device, "dtype": at_least_float32(bev_QC).dtype}
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    theta = tensor_on(
        [[cos, -sin, cx - cos * cx + sin * cy], [sin, cos, cy - sin * cx - cos * cy]],
        **kind,
    )
    base = torch.ones(bev_h, bev_w, 3, **kind)
    base[..., 0] = torch.linspace(-bev_w * 0.5 + 0.5, bev_w * 0.5 - 0.5, bev_w, **kind)
    base[..., 1] = torch.linspace(-bev_h * 0.5 + 0.5, bev_h * 0.5 - 0.5, bev_h, **kind).unsqueeze(1)
    scale = tensor_on([0.5 * bev_w, 0.5 * bev_h], **kind)
    grid = (base.view(1, -1, 3) @ (theta.t() / scale).unsqueeze(0)).view(1, bev_h, bev_w, 2)
    plane = bev_QC.view(bev_h, bev_w, -1).permute(2, 0, 1).unsqueeze(0)
    turned = F.grid_sample(
        plane, grid.to(plane.dtype), mode="nearest", padding_mode="zeros", align_corners=False
    )
    return turned[0].permute(1, 2, 0).reshape(bev_h * bev_w, -1)
