"""Upstream's pipeline steps on multi-view images, by the functions that the bundled data set uses."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from mmcv.parallel import DataContainer

from ..config import DataConfig
from ..data import distortion, transforms
from ..data.sizes import padded_hw, scaled_lidar2img
from ..errors import ConfigError

Results = Dict[str, Any]
META_KEYS = (
    "filename ori_shape img_shape lidar2img depth2img cam2img pad_shape scale_factor flip pcd_horizontal_flip"
    " pcd_vertical_flip box_mode_3d box_type_3d img_norm_cfg pcd_trans sample_idx prev_idx next_idx"
    " pcd_scale_factor pcd_rotation pts_filename transformation_3d_flow scene_token can_bus timestamp"
    " prev_bev_exists"
).split()


def _refuse(step: str, what: str, why: str) -> ConfigError:
    return ConfigError("%s: %s cannot be honoured" % (step, what), why)


class PhotoMetricDistortionMultiViewImage:
    """Draws from np.random, for one image after the other."""

    def __init__(
        self,
        brightness_delta: float = distortion.BRIGHTNESS_DELTA,
        contrast_range: Sequence[float] = distortion.CONTRAST,
        saturation_range: Sequence[float] = distortion.SATURATION,
        hue_delta: float = distortion.HUE_DELTA,
    ) -> None:
        given = (brightness_delta, tuple(contrast_range), tuple(saturation_range), hue_delta)
        built_in = (
            distortion.BRIGHTNESS_DELTA,
            distortion.CONTRAST,
            distortion.SATURATION,
            distortion.HUE_DELTA,
        )
        if given != built_in:
            raise _refuse(type(self).__name__, repr(given), "Built in is %r." % (built_in,))

    def __call__(self, results: Results) -> Results:
        rng: Any = np.random
        results["img"] = [
            transforms.distorted(np.asarray(image, np.float32), distortion.draw_distortion(rng))
            for image in results["img"]
        ]
        return results


class NormalizeMultiviewImage:
    """(x - mean) / std, channels swapped first where `to_rgb`."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], to_rgb: bool = True) -> None:
        self._data = DataConfig(mean=tuple(map(float, mean)), std=tuple(map(float, std)), to_rgb=bool(to_rgb))

    def __call__(self, results: Results) -> Results:
        results["img"] = [transforms.normalise(image, self._data) for image in results["img"]]
        mean, std = (np.array(each, np.float32) for each in (self._data.mean, self._data.std))
        results["img_norm_cfg"] = dict(mean=mean, std=std, to_rgb=self._data.to_rgb)
        return results


class RandomScaleImageMultiViewImage:
    """One fixed scale, of images and projections; upstream asserts that it is one."""

    def __init__(self, scales: Sequence[float] = ()) -> None:
        if len(scales) != 1:
            raise _refuse(type(self).__name__, "scales = %r" % (scales,), "It takes one fixed scale.")
        self.scale = float(scales[0])

    def __call__(self, results: Results) -> Results:
        results["img"] = [transforms.scale(image, self.scale) for image in results["img"]]
        results["lidar2img"] = [scaled_lidar2img(each, self.scale) for each in results["lidar2img"]]
        results["img_shape"] = results["ori_shape"] = [image.shape for image in results["img"]]
        return results


class PadMultiViewImage:
    """Right and below, to a size or up to multiples of a number."""

    def __init__(
        self,
        size: Optional[Tuple[int, int]] = None,
        size_divisor: Optional[int] = None,
        pad_val: float = 0,
    ) -> None:
        if (size is None) == (size_divisor is None):
            raise _refuse(
                type(self).__name__, "size = %r, size_divisor = %r" % (size, size_divisor), "Give one."
            )
        self.size, self.size_divisor, self.pad_val = size, size_divisor, pad_val

    def __call__(self, results: Results) -> Results:
        images = results["img"]
        results["ori_shape"] = [image.shape for image in images]
        results["img"] = [self._padded(image) for image in images]
        results["img_shape"] = results["pad_shape"] = [image.shape for image in results["img"]]
        results["pad_fixed_size"], results["pad_size_divisor"] = self.size, self.size_divisor
        return results

    def _padded(self, image: np.ndarray) -> np.ndarray:
        height, width = self.size or padded_hw(image.shape[:2], self.size_divisor or 1)
        out = np.full((height, width, *image.shape[2:]), self.pad_val, dtype=image.dtype)
        out[: image.shape[0], : image.shape[1]] = image
        return out


class CustomCollect3D:
    """The keys as they are, and of everything else what the model reads as img_metas."""

    def __init__(self, keys: Sequence[str], meta_keys: Sequence[str] = tuple(META_KEYS)) -> None:
        self.keys, self.meta_keys = keys, meta_keys

    def __call__(self, results: Results) -> Results:
        """Raises ConfigError naming the keys that no step before has made."""
        missing = [key for key in self.keys if key not in results]
        if missing:
            raise ConfigError(
                "CustomCollect3D: there is no %s to collect" % ", ".join(missing),
                "The steps before it left: %s." % ", ".join(sorted(map(str, results))),
                "Take it out of keys=[...], or add the step that loads it (boxes: LoadAnnotations3D, with "
                "test_mode=False).",
            )
        metas = {key: results[key] for key in self.meta_keys if key in results}
        data: Results = {"img_metas": DataContainer(metas, cpu_only=True)}
        data.update((key, results[key]) for key in self.keys)
        return data


STEPS: List[type] = [
    PhotoMetricDistortionMultiViewImage,
    NormalizeMultiviewImage,
    RandomScaleImageMultiViewImage,
    PadMultiViewImage,
    CustomCollect3D,
]
