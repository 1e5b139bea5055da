"""From a decoded image to what the backbone sees, step for step as BEVFormer's pipeline, with OpenCV.

Images are (H, W, 3) BGR, float32 from the first step on.  Order: distort, normalise, scale, pad.  Scaling
*after* normalising, on floats, is upstream's order and matters in the last digits.  `bevformer.pixels` does
the same in batch, on any device.
"""

from typing import Sequence

import cv2
import numpy as np

from bevformer.config import DataConfig

from .distortion import Distortion, draw_distortion
from .sizes import padded_hw, scaled_hw


def photometric_distortion(image: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """mmdet's PhotoMetricDistortion on one float32 image; the same draws in the same order.

    Values leave [0, 255] unclipped, as upstream.
    """
    return distorted(image, draw_distortion(rng))


def distorted(image: np.ndarray, drawn: Distortion) -> np.ndarray:
    """What was drawn, on a copy of the float32 image."""
    image = image.copy()
    if drawn.brightness:
        image += drawn.brightness
    if drawn.contrast_before != 1.0:
        image *= drawn.contrast_before
    image = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    if drawn.saturation != 1.0:
        image[..., 1] *= drawn.saturation
    if drawn.hue_deg:
        hue = image[..., 0]  # degrees; a view
        hue += drawn.hue_deg
        hue[hue > 360] -= 360
        hue[hue < 0] += 360
    image = cv2.cvtColor(image, cv2.COLOR_HSV2BGR)
    if drawn.contrast_after != 1.0:
        image *= drawn.contrast_after
    return image if drawn.channels == (0, 1, 2) else image[..., list(drawn.channels)]


def normalise(image: np.ndarray, config: DataConfig) -> np.ndarray:
    """(x - mean) / std per channel in float32, by OpenCV as mmcv does; `to_rgb` swaps the channels first."""
    image = np.array(image, dtype=np.float32, order="C")
    if config.to_rgb:
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
    mean = np.array(config.mean, dtype=np.float64).reshape(1, -1)
    inverse_std = 1 / np.array(config.std, dtype=np.float64).reshape(1, -1)
    cv2.subtract(image, mean, image)
    cv2.multiply(image, inverse_std, image)
    return image


def scale(image: np.ndarray, factor: float) -> np.ndarray:
    """OpenCV's bilinear; the size is rounded down."""
    if factor == 1.0:
        return image
    height, width = scaled_hw(image.shape[:2], factor)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def padded_planes(images: Sequence[np.ndarray], divisor: int) -> np.ndarray:
    """N (H, W, 3) of one size -> (N, 3, H', W') with zeros right and below up to multiples of `divisor`."""
    height, width = images[0].shape[:2]
    out = np.zeros((len(images), 3) + padded_hw((height, width), divisor), dtype=images[0].dtype)
    for planes, image in zip(out, images):
        for plane, channel in zip(planes, cv2.split(image)):  # four times as fast as a transpose
            plane[:height, :width] = channel
    return out
