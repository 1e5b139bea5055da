"""Decoded bytes to what the backbone sees, in batch and on any device: distort, normalise, scale, pad.

The same steps in the same order as `data.transforms` does them with OpenCV.  The arithmetic is that of
OpenCV's own code: without distortion the numbers are its own bit for bit, where OpenCV does not hand the
scaling to Intel's IPP; with IPP, and in HSV, the last digits differ (tests/model/test_pixels.py has bounds).

N images, H W as decoded, h w as the backbone sees them.
"""

import dataclasses
import functools
import warnings
from typing import Callable, List, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .config import Config, DataConfig
from .data.distortion import Distortion, draw_distortion
from .data.sizes import padded_hw, scaled_hw
from .errors import ConfigError
from .transfer import send, tensor_on
from .types import Frame

CHOICES = ("auto", "device", "worker")
Coloured = Callable[[Tensor, DataConfig, Sequence[Distortion]], Tensor]
AGREES = 1e-4  # of the kernel with separate operations, in units of a standard deviation
EPSILON = float(np.finfo(np.float32).eps)  # OpenCV's guard against division by zero


def choose(asked: str, device_type: str) -> str:
    """`device` or `worker`: where images are finished.  auto: on a GPU there, for a CPU in the workers.

    On the CPU OpenCV is ten times as fast (benchmarks/bench_loader.json).  Raises ConfigError.
    """
    if asked not in CHOICES:
        raise ConfigError("ops.pixels=%s" % asked, do="It is one of %s." % ", ".join(CHOICES))
    if asked != "auto":
        return asked
    return "worker" if device_type == "cpu" else "device"


def data_after_decoding(config: Config) -> DataConfig:
    """What is left to do: an image that was decoded at half size is scaled half as much."""
    data = config.data
    if config.ops.decoder != "cv2-half":
        return data
    if data.scale > 0.5:
        raise ConfigError(
            "ops.decoder=cv2-half with data.scale=%s" % data.scale,
            "Images decoded at half size would be enlarged again.",
            "It is for scales of 0.5 and below; leave ops.decoder at cv2.",
        )
    return dataclasses.replace(data, scale=2 * data.scale)


def stacked(frames: Sequence[Frame], device: torch.device, data: DataConfig) -> Tensor:
    """(B, N, 3, h, w) on the device, of frames that are finished (floats) or not (uint8)."""
    images = [images_of(frame, device, data) for frame in frames]
    return images[0][None] if len(images) == 1 else torch.stack(images)


def images_of(frame: Frame, device: torch.device, data: DataConfig) -> Tensor:
    """(N, 3, h, w) floats on the device."""
    images = send(frame.images_NCHW, device)
    if images.dtype != torch.uint8:
        return images
    return finished(images, data, frame.distortions)


@torch.no_grad()
def finished(bgr_NCHW: Tensor, data: DataConfig, distortions: Sequence[Distortion] = ()) -> Tensor:
    """(N, 3, H, W) uint8 BGR as decoded -> (N, 3, h, w) float32 as the backbone sees them.

    distortions: one for each image, or none.
    """
    planes = _fastest(bgr_NCHW.device.type)(bgr_NCHW, data, distortions)
    return padded(scaled(planes, data.scale), data.pad_divisor)


def coloured(bgr_NCHW: Tensor, data: DataConfig, distortions: Sequence[Distortion] = ()) -> Tensor:
    """(N, 3, H, W) float32: distorted, in the order of channels that the backbone wants, normalised."""
    planes = bgr_NCHW.to(torch.float32, memory_format=torch.contiguous_format)
    if distortions:
        planes = distorted(planes, distortions)
    return normalised(_reordered(planes, _channels(len(planes), data, distortions)), data)


def coloured_at_once(bgr_NCHW: Tensor, data: DataConfig, distortions: Sequence[Distortion] = ()) -> Tensor:
    """The same by one Triton kernel."""
    from .ops import triton_pixels

    device, count = bgr_NCHW.device, len(bgr_NCHW)
    channels = np.array(_channels(count, data, distortions), np.int32)
    drawn = np.array([each[:5] for each in distortions] or np.zeros((count, 5)), np.float32)
    stats = np.stack([np.float64(data.mean), 1 / np.float64(data.std)])
    numbers = (tensor_on(each, device) for each in (drawn, channels, stats))
    bgr_NHWC = bgr_NCHW.permute(0, 2, 3, 1).contiguous()
    return triton_pixels.coloured(bgr_NHWC, *numbers, bool(distortions))


@functools.lru_cache(maxsize=None)
def _fastest(device_type: str) -> Coloured:
    """The kernel on a GPU where Triton runs and agrees on a small example, else separate operations."""
    from .ops import triton_backend

    if device_type != "cuda":
        return coloured
    try:
        triton_backend.load(device_type)
    except ConfigError:  # no Triton here: the attentions tell
        return coloured
    try:
        apart = disagreement(torch.device(device_type))
        why = "it is %g off" % apart
    except Exception as error:  # a broken one raises what it likes
        apart, why = float("inf"), "%s: %s" % (type(error).__name__, error)
    if apart <= AGREES:
        return coloured_at_once
    warnings.warn("images are finished without Triton's kernel: %s" % why, stacklevel=2)
    return coloured


def disagreement(device: torch.device) -> float:
    """The largest difference between the two on a small example."""
    rng, data = np.random.RandomState(0), DataConfig()
    images = torch.from_numpy(rng.randint(0, 256, (8, 9, 31, 3)).astype(np.uint8)).permute(0, 3, 1, 2)
    drawn = [draw_distortion(rng) for _ in images]
    one, two = (each(images.to(device), data, drawn) for each in (coloured, coloured_at_once))
    return float((one - two).abs().max())


def _channels(count: int, data: DataConfig, distortions: Sequence[Distortion]) -> List[Tuple[int, ...]]:
    """Which channel of the decoded image each of the result is."""
    channels = [each.channels for each in distortions] or [(0, 1, 2)] * count
    return [each[::-1] if data.to_rgb else each for each in channels]


def distorted(bgr_NCHW: Tensor, distortions: Sequence[Distortion]) -> Tensor:
    """All of mmdet's PhotoMetricDistortion but its last step, the order of the channels."""
    drawn = np.array([each[:5] for each in distortions], dtype=np.float32).T.copy()  # (5, N)
    on_device = tensor_on(drawn, bgr_NCHW.device)
    brightness, before, saturation, hue_deg, after = on_device[..., None, None]
    needed = [bool((row != neutral).any()) for row, neutral in zip(drawn, Distortion()[:5])]
    if needed[0]:
        bgr_NCHW = bgr_NCHW + brightness[:, None]
    if needed[1]:
        bgr_NCHW = bgr_NCHW * before[:, None]
    hue, grey, value = bgr_to_hsv(bgr_NCHW)
    if needed[2]:
        grey = grey * saturation
    if needed[3]:
        hue = hue + hue_deg
        hue = torch.where(hue > 360, hue - 360, hue)
        hue = torch.where(hue < 0, hue + 360, hue)
    bgr_NCHW = hsv_to_bgr(hue, grey, value)
    return bgr_NCHW * after[:, None] if needed[4] else bgr_NCHW


def bgr_to_hsv(bgr_NCHW: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Hue in degrees [0, 360], saturation, value, (N, H, W) each, as OpenCV's COLOR_BGR2HSV on floats.

    Values outside [0, 255] are converted by the same formulas, as upstream has them.
    """
    blue, green, red = bgr_NCHW.unbind(1)
    value = torch.max(torch.max(red, green), blue)
    span = value - torch.min(torch.min(red, green), blue)
    per_span = torch.full_like(span, 60.0) / (span + EPSILON)  # 60 / x is 60 times a reciprocal in torch
    from_red = (green - blue) * per_span + (green < blue).to(span.dtype) * 360
    from_green = (blue - red) * per_span + 120
    from_blue = (red - green) * per_span + 240
    hue = torch.where(value == red, from_red, torch.where(value == green, from_green, from_blue))
    return hue, span / (value.abs() + EPSILON), value


def hsv_to_bgr(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """(N, 3, H, W); the inverse, as OpenCV's COLOR_HSV2BGR on floats."""
    sixth = hue * (6 / 360)
    sector = sixth.trunc()
    rest = sixth - sector
    sector = torch.where(sector >= 6, sector - 6, sector)
    low = value * (1 - saturation)
    falling = value * (1 - saturation * rest)
    rising = value * ((1 - saturation) + saturation * rest)
    odd = sector.remainder(2) == 1
    between = torch.where(odd, falling, rising)  # what is neither the largest nor the smallest
    blue = torch.where(sector < 2, low, torch.where((sector == 2) | (sector == 5), between, value))
    green = torch.where(sector >= 4, low, torch.where((sector == 0) | (sector == 3), between, value))
    at_red = (sector == 0) | (sector == 5)
    red = torch.where(at_red, value, torch.where((sector == 1) | (sector == 4), between, low))
    return torch.stack([blue, green, red], 1)


def normalised(planes_NCHW: Tensor, data: DataConfig) -> Tensor:
    """(x - mean) / std as mmcv has OpenCV do it: minus in float32, times 1 / std in float64, rounded."""
    device = planes_NCHW.device
    planes_NCHW = planes_NCHW - tensor_on(np.float32(data.mean), device)[:, None, None]
    if any(each != 1.0 for each in data.std):
        planes_NCHW.mul_(tensor_on(1 / np.float64(data.std), device)[:, None, None])
    return planes_NCHW


def scaled(planes_NCHW: Tensor, factor: float) -> Tensor:
    """OpenCV's bilinear on floats; exactly a half is the mean of four there."""
    if factor == 1.0:
        return planes_NCHW
    height, width = planes_NCHW.shape[-2:]
    new_height, new_width = scaled_hw((height, width), factor)
    if (height, width) == (2 * new_height, 2 * new_width):
        return F.avg_pool2d(planes_NCHW, 2)
    columns, rows = _taps(width, new_width, False), _taps(height, new_height, True)
    return _blend(_blend(planes_NCHW, 3, *columns), 2, *rows)


def padded(planes_NCHW: Tensor, divisor: int) -> Tensor:
    """Zeros right and below."""
    height, width = planes_NCHW.shape[-2:]
    to_height, to_width = padded_hw((height, width), divisor)
    if (height, width) == (to_height, to_width):
        return planes_NCHW
    return F.pad(planes_NCHW, (0, to_width - width, 0, to_height - height))


def _reordered(planes_NCHW: Tensor, channels: Sequence[Tuple[int, ...]]) -> Tensor:
    """Channel c of image n becomes its channel channels[n][c]."""
    if all(each == (0, 1, 2) for each in channels):
        return planes_NCHW
    count, flat = len(channels), planes_NCHW.flatten(0, 1)
    places = [3 * image + channel for image, each in enumerate(channels) for channel in each]
    return flat.index_select(0, tensor_on(places, flat.device)).view(count, 3, *flat.shape[1:])


def _taps(size: int, new_size: int, rows: bool) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index of the first and of the second pixel, and the weight of the second, of each new pixel."""
    place = ((np.arange(new_size) + 0.5) * (1 / (new_size / size)) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int64)
    weight = place - first.astype(np.float32)
    if not rows:  # OpenCV only clips the indices of rows
        weight[(first < 0) | (first >= size - 1)] = 0
    return first.clip(0, size - 1), (first + 1).clip(0, size - 1), weight.astype(np.float32)


def _blend(
    planes_NCHW: Tensor, dim: int, first: np.ndarray, second: np.ndarray, weight: np.ndarray
) -> Tensor:
    device, shape = planes_NCHW.device, (-1,) + (1,) * (3 - dim)
    both = tensor_on(np.stack([1 - weight, weight]), device)
    parts = [
        planes_NCHW.index_select(dim, tensor_on(places, device)) * part.view(shape)
        for places, part in zip((first, second), both)
    ]
    return parts[0] + parts[1]
