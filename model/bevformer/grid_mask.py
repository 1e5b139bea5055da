"""GridMask (Chen et al., 2020) as upstream applies it to the camera images."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .transfer import send

PROBABILITY = 0.7
RATIO = 0.5


def draw_mask(height: int, width: int, rng: Any) -> np.ndarray:
    """(height, width) of 0 and 1; the order of the draws is upstream's."""
    tall, wide = int(1.5 * height), int(1.5 * width)
    period = rng.randint(2, height)
    length = min(max(int(period * RATIO + 0.5), 1), period - 1)
    row_start, column_start = rng.randint(period), rng.randint(period)
    canvas = np.ones((tall, wide), np.float32)
    for i in range(tall // period):
        canvas[period * i + row_start : period * i + row_start + length] = 0
    for i in range(wide // period):
        canvas[:, period * i + column_start : period * i + column_start + length] = 0
    rng.randint(1)  # upstream's rotation, always 0: drawn to keep the stream aligned
    top, left = (tall - height) // 2, (wide - width) // 2
    return 1 - canvas[top : top + height, left : left + width]


def grid_mask(images: Tensor, rng: Any, training: bool) -> Tensor:
    """One mask over all images (..., H, W), drawn with probability 0.7 in training.

    rng: np.random or a RandomState.  In eval mode the first number is still drawn (kept quirk).
    """
    if rng.rand() > PROBABILITY or not training:
        return images
    mask: np.ndarray = draw_mask(int(images.shape[-2]), int(images.shape[-1]), rng)
    return images * send(torch.from_numpy(mask), images.device).to(images.dtype)
