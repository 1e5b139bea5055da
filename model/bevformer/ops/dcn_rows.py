"""DCNv2 for inference on a CPU: the channels of a cell lie side by side and are sampled as one row.

B batch, C channels in, O channels out, K taps (row-major), H, W input height and width, h, w output's.
"""

import functools
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor


def modulated_deform_conv_rows(
    input_BCHW: Tensor,
    offset_B2Khw: Tensor,
    mask_BKhw: Tensor,
    weight_OCkk: Tensor,
    stride: int,
    padding: int,
    dilation: int,
) -> Tensor:
    """As `modulated_deform_conv`, up to rounding; without a backward pass.

    Every (cell, tap) is a weighted sum of four rows of the input, which is what an embedding bag is; then all
    taps are one matrix product.  Positions are computed in float32 at least, whatever the input is.
    """
    B, C = input_BCHW.shape[:2]
    outputs, size = weight_OCkk.shape[0], weight_OCkk.shape[-1]
    h, w = mask_BKhw.shape[-2:]
    index, weights = corners(offset_B2Khw, mask_BKhw, tuple(input_BCHW.shape[-2:]), stride, padding, dilation)
    rows = input_BCHW.permute(0, 2, 3, 1).reshape(B, -1, C)
    if not bags_take(rows.dtype):
        rows = rows.float()
    matrix = weight_OCkk.permute(0, 2, 3, 1).reshape(outputs, size * size * C)
    outs = []
    for sample in range(B):
        taps = F.embedding_bag(
            index[sample], rows[sample], per_sample_weights=weights[sample].to(rows.dtype), mode="sum"
        )
        outs.append(F.linear(taps.view(h * w, -1).to(matrix.dtype), matrix))
    return torch.stack(outs).view(B, h, w, outputs).permute(0, 3, 1, 2)


def corners(
    offset_B2Khw: Tensor, mask_BKhw: Tensor, hw: Tuple[int, ...], stride: int, padding: int, dilation: int
) -> Tuple[Tensor, Tensor]:
    """(B, h * w * K, 4): the cells around every sampled point, and their bilinear weights times the mask.

    A cell outside has weight 0 and stands for the nearest one inside.
    """
    (H, W), (B, K, h, w) = hw, mask_BKhw.shape
    exact = torch.promote_types(offset_B2Khw.dtype, torch.float32)
    moved = offset_B2Khw.to(exact).permute(0, 2, 3, 1).reshape(B, h, w, K, 2)
    size = int(K**0.5)
    tap = torch.arange(K, device=moved.device)
    tap_row = torch.div(tap, size, rounding_mode="floor")  # torch 1.10 warns of //
    row = torch.arange(h, device=moved.device).view(h, 1, 1) * stride - padding + tap_row * dilation
    column = torch.arange(w, device=moved.device).view(w, 1) * stride - padding + tap % size * dilation
    y, x = moved[..., 0] + row, moved[..., 1] + column
    top, left = y.floor(), x.floor()
    down, right = y - top, x - left
    ys, xs = torch.stack([top, top + 1], -1), torch.stack([left, left + 1], -1)
    weight_y = torch.stack([1 - down, down], -1) * ((ys >= 0) & (ys < H))
    weight_x = torch.stack([1 - right, right], -1) * ((xs >= 0) & (xs < W))
    mask = mask_BKhw.to(exact).permute(0, 2, 3, 1)[..., None, None]
    weights = weight_y.unsqueeze(-1) * weight_x.unsqueeze(-2) * mask
    cells = ys.clamp(0, H - 1).unsqueeze(-1) * W + xs.clamp(0, W - 1).unsqueeze(-2)
    cells = cells.nan_to_num(0)  # any cell: the weights are NaN there as well
    return cells.to(torch.int64).view(B, -1, 4), weights.reshape(B, -1, 4)


@functools.lru_cache(maxsize=None)
def bags_take(dtype: torch.dtype) -> bool:
    """Whether this torch has embedding bags of that kind of number, weighted."""
    table = torch.ones(1, 1, dtype=dtype)
    try:
        F.embedding_bag(torch.zeros(1, 1, dtype=torch.int64), table, per_sample_weights=table, mode="sum")
    except RuntimeError:
        return False
    return True
