"""From the bytes of an image to what the backbone sees, step for step as BEVFormer's pipeline.

Images are (H, W, 3) BGR; everything after `decode` is float32.  Order: distort, normalise, scale, pad.
Scaling *after* normalising, on floats, is upstream's order and matters in the last digits.
"""

from typing import Sequence, Tuple, Union

import cv2
import numpy as np

from bevformer.config import DataConfig
from bevformer.errors import DataError

BRIGHTNESS_DELTA = 32.0
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
HUE_DELTA = 18.0


def decode(data: Union[bytes, memoryview], name: str) -> np.ndarray:
    """JPEG or PNG -> (H, W, 3) uint8 BGR; EXIF turns are ignored, as upstream.  DataError names the file."""
    image = None
    if data:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise DataError(
            "%s is not a readable image (%d bytes)" % (name, len(data)),
            "It is cut or of another format.",
            "Fetch it again and compare its checksum.",
        )
    return image


def photometric_distortion(image: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """mmdet's PhotoMetricDistortion on one float32 image; the same draws in the same order.

    Values leave [0, 255] unclipped, as upstream.
    """
    image = image.copy()
    if rng.randint(2):
        image += rng.uniform(-BRIGHTNESS_DELTA, BRIGHTNESS_DELTA)
    contrast_last = rng.randint(2) == 0
    if not contrast_last and rng.randint(2):
        image *= rng.uniform(*CONTRAST)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    if rng.randint(2):
        image[..., 1] *= rng.uniform(*SATURATION)
    if rng.randint(2):
        hue = image[..., 0]  # degrees; a view
        hue += rng.uniform(-HUE_DELTA, HUE_DELTA)
        hue[hue > 360] -= 360
        hue[hue < 0] += 360
    image = cv2.cvtColor(image, cv2.COLOR_HSV2BGR)
    if contrast_last and rng.randint(2):
        image *= rng.uniform(*CONTRAST)
    if rng.randint(2):
        image = image[..., rng.permutation(3)]
    return image


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


def scaled_hw(hw: Tuple[int, int], factor: float) -> Tuple[int, int]:
    return int(hw[0] * factor), int(hw[1] * factor)


def padded_planes(images: Sequence[np.ndarray], divisor: int) -> np.ndarray:
    """N (H, W, 3) of one size -> (N, 3, H', W') with zeros right and below up to multiples of `divisor`."""
    height, width = images[0].shape[:2]
    out = np.zeros((len(images), 3) + padded_hw((height, width), divisor), dtype=images[0].dtype)
    for planes, image in zip(out, images):
        for plane, channel in zip(planes, cv2.split(image)):  # four times as fast as a transpose
            plane[:height, :width] = channel
    return out


def padded_hw(hw: Tuple[int, int], divisor: int) -> Tuple[int, int]:
    return -(-hw[0] // divisor) * divisor, -(-hw[1] // divisor) * divisor


def scaled_lidar2img(lidar2img_N44: np.ndarray, factor: float) -> np.ndarray:
    """The same projection in pixels of the scaled image."""
    return np.diag([factor, factor, 1.0, 1.0]) @ lidar2img_N44
