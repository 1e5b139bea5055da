"""What mmcv's data loaders bring, as our frames and samples.

B batch, T frames of a queue, N cameras.
"""

from typing import Any, List, Mapping, Sequence

import numpy as np
from torch import Tensor

from ..errors import ConfigError
from ..types import Frame, FrameMeta, GroundTruth, Sample
from .boxes import from_mmdet3d

NEEDED = ("lidar2img", "can_bus", "img_shape", "scene_token", "sample_idx")


def meta_of(meta: Mapping[str, Any]) -> FrameMeta:
    """Of one frame's img_metas.  Raises ConfigError for one without what BEVFormer needs."""
    missing = [key for key in NEEDED if key not in meta]
    if missing:
        raise ConfigError(
            "the img_metas of a frame have no %s" % ", ".join(missing),
            "The model needs ego motion and projection of every frame.",
            "Collect them with CustomCollect3D from a CustomNuScenesDataset.",
        )
    shape = meta["img_shape"]
    height, width = (shape[0] if isinstance(shape, list) else shape)[:2]
    # Upstream's key was prev_bev until it told scenes apart.
    history = meta.get("prev_bev_exists", meta.get("prev_bev", False))
    return FrameMeta(
        sample_token=str(meta["sample_idx"]),
        scene_token=str(meta["scene_token"]),
        timestamp_s=float(meta.get("timestamp", 0.0)),
        lidar2img_N44=np.stack([np.asarray(each, np.float64) for each in meta["lidar2img"]]),
        can_bus_18=np.array(meta["can_bus"], np.float64),
        prev_bev_exists=bool(history),
        img_shape_hw=(int(height), int(width)),
    )


def samples_of(
    img_BTN3HW: Tensor, img_metas: Sequence[Any], boxes: Sequence[Any], labels: Sequence[Any], convention: str
) -> List[Sample]:
    """A training batch: img_metas are a list of {place in the queue: meta}."""
    out = []
    for queue, metas, box, label in zip(img_BTN3HW, img_metas, boxes, labels):
        if len(metas) != len(queue):
            raise ConfigError(
                "a queue of %d images with %d img_metas" % (len(queue), len(metas)),
                "Training takes queues of frames, as CustomNuScenesDataset with test_mode=False gives them.",
            )
        frames = tuple(
            Frame(images, meta_of(metas[place])) for images, place in zip(queue, sorted(_places(metas)))
        )
        truth = GroundTruth(from_mmdet3d(box, convention).to(label.device), label.long())
        out.append(Sample(frames, truth))
    return out


def _places(metas: Any) -> Sequence[Any]:
    return list(metas) if isinstance(metas, Mapping) else range(len(metas))
