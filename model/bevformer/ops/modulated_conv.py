"""Modulated deformable convolution, DCNv2 (Zhu et al., 2019), in plain torch.

B batch, C channels in, O channels out, K taps (row-major), h, w output height and width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..recompute import recompute


def modulated_deform_conv(
    input_BCHW: Tensor,
    offset_B2Khw: Tensor,
    mask_BKhw: Tensor,
    weight_OCkk: Tensor,
    stride: int,
    padding: int,
    dilation: int,
    again: bool = False,
) -> Tensor:
    """One group, no bias.  offset: (dy, dx) per tap in input pixels; outside is zero.

    Tap by tap, so that at most one sampled copy of the input is alive in inference.  again: in training too;
    each tap is sampled again in the backward pass.  Positions and samples are float32 at least.
    Source: facts bevformer.md, Backbone and neck; mmcv modulated_deform_conv.
    """
    B, C, H, W = input_BCHW.shape
    size = weight_OCkk.shape[-1]
    h, w = mask_BKhw.shape[-2:]
    # In bf16 a column beyond 64 could only be sampled at halves of a pixel.
    exact = torch.promote_types(input_BCHW.dtype, torch.float32)
    source, offset_B2Khw = input_BCHW.to(exact), offset_B2Khw.to(exact)
    rows = torch.arange(h, device=input_BCHW.device, dtype=exact).view(1, h, 1) * stride - padding
    cols = torch.arange(w, device=input_BCHW.device, dtype=exact).view(1, 1, w) * stride - padding
    out = input_BCHW.new_zeros(B, weight_OCkk.shape[0], h * w)
    for tap in range(size * size):
        y = rows + (tap // size) * dilation + offset_B2Khw[:, 2 * tap]
        x = cols + (tap % size) * dilation + offset_B2Khw[:, 2 * tap + 1]
        grid = torch.stack([(2 * x + 1) / W - 1, (2 * y + 1) / H - 1], dim=-1)
        args = (source, grid, mask_BKhw[:, tap : tap + 1], weight_OCkk[:, :, tap // size, tap % size])
        out = out + (recompute(_tap, *args, draws=False) if again else _tap(*args))
    return out.view(B, -1, h, w)


def _tap(input_BCHW: Tensor, grid_Bhw2: Tensor, mask_B1hw: Tensor, weight_OC: Tensor) -> Tensor:
    """What one of the taps adds, (B, O, h * w)."""
    sampled = F.grid_sample(input_BCHW, grid_Bhw2, mode="bilinear", padding_mode="zeros", align_corners=False)
    return weight_OC @ (sampled * mask_B1hw).flatten(2).to(weight_OC.dtype)
