"""Sizes of an image on its way to the backbone, and the projection that goes with them.  Needs no OpenCV."""

from typing import Tuple

import numpy as np


def scaled_hw(hw: Tuple[int, int], factor: float) -> Tuple[int, int]:
    """Rounded down, as upstream."""
    return int(hw[0] * factor), int(hw[1] * factor)


def padded_hw(hw: Tuple[int, int], divisor: int) -> Tuple[int, int]:
    """Up to the next multiples of `divisor`."""
    return -(-hw[0] // divisor) * divisor, -(-hw[1] // divisor) * divisor


def scaled_lidar2img(lidar2img_N44: np.ndarray, factor: float) -> np.ndarray:
    """The same projection in pixels of the scaled image."""
    return np.diag([factor, factor, 1.0, 1.0]) @ lidar2img_N44
