"""The reference's way from files to a batch of floats, step for step, for `bench loader` to compare with.

Source: BEVFormer at 66b65f3 (LoadMultiViewImageFromFiles, PhotoMetricDistortionMultiViewImage,
NormalizeMultiviewImage, RandomScaleImageMultiViewImage, PadMultiViewImage, DefaultFormatBundle3D,
`union2one`) and mmcv 1.x (imread, imnormalize, imresize, impad_to_multiple, collate).
"""

from typing import List, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data.dataloader import default_collate

from .config import DataConfig
from .data.distortion import draw_distortion
from .data.sizes import padded_hw, scaled_hw
from .data.transforms import distorted


def reference_batch(
    paths_by_frame: Sequence[Sequence[str]], data: DataConfig, rng: np.random.RandomState
) -> Tensor:
    """(1, queue, 6, 3, H', W') float32, as its training process gets it."""
    frames = [reference_frame(paths, data, rng) for paths in paths_by_frame]
    batch: Tensor = default_collate([torch.stack(frames)])
    return batch


def reference_frame(paths: Sequence[str], data: DataConfig, rng: np.random.RandomState) -> Tensor:
    """(6, 3, H', W') of one frame's files."""
    stack = np.stack([_read(path) for path in paths], axis=-1).astype(np.float32)
    images = [stack[..., i] for i in range(len(paths))]  # views with steps, as there
    if data.photometric:
        images = [distorted(image, draw_distortion(rng)) for image in images]
    images = [_padded(_scaled(_normalised(image, data), data.scale), data.pad_divisor) for image in images]
    planes = np.ascontiguousarray(np.stack([image.transpose(2, 0, 1) for image in images], axis=0))
    return torch.from_numpy(planes)


def _read(path: str) -> np.ndarray:
    with open(path, "rb") as file:
        data = np.frombuffer(file.read(), np.uint8)
    image: np.ndarray = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    return image


def _normalised(image: np.ndarray, data: DataConfig) -> np.ndarray:
    image = image.copy().astype(np.float32)
    mean = np.float64(np.array(data.mean).reshape(1, -1))
    inverse_std = 1 / np.float64(np.array(data.std).reshape(1, -1))
    if data.to_rgb:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    image = np.ascontiguousarray(image)
    cv2.subtract(image, mean, image)
    cv2.multiply(image, inverse_std, image)
    return image


def _scaled(image: np.ndarray, factor: float) -> np.ndarray:
    height, width = scaled_hw((image.shape[0], image.shape[1]), factor)
    scaled: np.ndarray = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return scaled


def _padded(image: np.ndarray, divisor: int) -> np.ndarray:
    height, width = padded_hw((image.shape[0], image.shape[1]), divisor)
    borders: List[int] = [0, height - image.shape[0], 0, width - image.shape[1]]
    padded: np.ndarray = cv2.copyMakeBorder(image, *borders, cv2.BORDER_CONSTANT, value=0)
    return padded
