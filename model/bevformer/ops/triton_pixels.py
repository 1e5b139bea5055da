"""Distorted and normalised images from bytes, in one pass over them: `pixels.coloured` as a Triton kernel.

One program takes BLOCK pixels of one image.  Divisions round as IEEE has them and no product is fused with a
sum, so that the numbers are those of the separate operations.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512


def coloured(
    bgr_NHWC: Tensor, drawn_N5: Tensor, channels_N3: Tensor, stats_23: Tensor, distort: bool
) -> Tensor:
    """(N, 3, H, W) float32 of contiguous (N, H, W, 3) uint8.

    drawn: a Distortion's numbers, float32.  channels: int32, the image's channel that each of the result is.
    stats: mean and 1 / std, float64.
    """
    N, H, W, _ = bgr_NHWC.shape
    out_NCHW = torch.empty((N, 3, H, W), dtype=torch.float32, device=bgr_NHWC.device)
    grid = (triton.cdiv(H * W, BLOCK), N)
    _colour[grid](
        bgr_NHWC, out_NCHW, drawn_N5, channels_N3, stats_23, H * W,
        DISTORT=distort, BLOCK=BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    return out_NCHW


@triton.jit
def _colour(bgr, out, drawn, channels, stats, PIXELS, DISTORT: tl.constexpr, BLOCK: tl.constexpr):
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < PIXELS
    first = bgr + (image * PIXELS + pixel) * 3
    blue = tl.load(first, mask=inside, other=0).to(tl.float32)
    green = tl.load(first + 1, mask=inside, other=0).to(tl.float32)
    red = tl.load(first + 2, mask=inside, other=0).to(tl.float32)
    if DISTORT:
        blue, green, red = _distorted(blue, green, red, drawn + image * 5)
    for c in tl.static_range(3):
        source = tl.load(channels + image * 3 + c)
        plane = tl.where(source == 0, blue, tl.where(source == 1, green, red))
        plane = plane - tl.load(stats + c).to(tl.float32)
        plane = (plane.to(tl.float64) * tl.load(stats + 3 + c)).to(tl.float32)
        tl.store(out + (image * 3 + c) * PIXELS + pixel, plane, mask=inside)


@triton.jit
def _distorted(blue, green, red, drawn):
    """Brightness, contrast, saturation, hue, contrast: what was not drawn is neutral."""
    brightness, before = tl.load(drawn), tl.load(drawn + 1)
    hue, saturation, value = _to_hsv(
        (blue + brightness) * before, (green + brightness) * before, (red + brightness) * before
    )
    saturation = saturation * tl.load(drawn + 2)
    hue = hue + tl.load(drawn + 3)
    hue = tl.where(hue > 360, hue - 360, hue)
    hue = tl.where(hue < 0, hue + 360, hue)
    blue, green, red = _to_bgr(hue, saturation, value)
    after = tl.load(drawn + 4)
    return blue * after, green * after, red * after


@triton.jit
def _to_hsv(blue, green, red):
    """As `pixels.bgr_to_hsv`."""
    EPSILON: tl.constexpr = 1.1920928955078125e-07
    value = tl.maximum(tl.maximum(red, green), blue)
    span = value - tl.minimum(tl.minimum(red, green), blue)
    per_span = tl.div_rn(span * 0 + 60.0, span + EPSILON)
    from_red = (green - blue) * per_span + tl.where(green < blue, 360.0, 0.0)
    from_green = (blue - red) * per_span + 120.0
    from_blue = (red - green) * per_span + 240.0
    hue = tl.where(value == red, from_red, tl.where(value == green, from_green, from_blue))
    return hue, tl.div_rn(span, tl.abs(value) + EPSILON), value


@triton.jit
def _to_bgr(hue, saturation, value):
    """As `pixels.hsv_to_bgr`."""
    sixth = hue * (6 / 360)
    sector = tl.floor(sixth)
    rest = sixth - sector
    sector = tl.where(sector >= 6, sector - 6, sector)
    low = value * (1 - saturation)
    falling = value * (1 - saturation * rest)
    rising = value * ((1 - saturation) + saturation * rest)
    odd = (sector == 1) | (sector == 3) | (sector == 5)
    between = tl.where(odd, falling, rising)
    blue = tl.where(sector < 2, low, tl.where((sector == 2) | (sector == 5), between, value))
    green = tl.where(sector >= 4, low, tl.where((sector == 0) | (sector == 3), between, value))
    at_red = (sector == 0) | (sector == 5)
    red = tl.where(at_red, value, tl.where((sector == 1) | (sector == 4), between, low))
    return blue, green, red
