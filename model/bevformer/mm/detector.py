"""The bundled detector as mmdet3d's: built from upstream's section `model`, run by mmcv's runners.

B batch, T frames of a queue, N cameras.
"""

import os
import tempfile
from typing import Any, Dict, List, Optional, Sequence

import mmdet3d
import numpy as np
import torch
from mmcv.runner import CheckpointLoader, auto_fp16
from mmdet.core import reduce_mean
from mmdet3d.core import bbox3d2result
from mmdet3d.models.detectors import Base3DDetector
from torch import Tensor

from .. import detector
from ..attention import use_operators
from ..box_convention import LEGACY, convention_of, of_checkpoint, reordered
from ..checkpoint import load_checkpoint, load_weights
from ..errors import CheckpointError, ConfigError
from ..init_weights import InitReport, initialise
from ..types import Detections, Frame, VideoMemory
from . import own_head
from .boxes import to_mmdet3d
from .config import read_model
from .frames import meta_of, samples_of
from .reader import warn_of_boxes

BOXES = convention_of(mmdet3d.__version__)


class BEVFormer(detector.BEVFormer, Base3DDetector):  # type: ignore[misc]
    """Keys of the state_dict as upstream's.  Boxes that come and go are those of the mmdet3d that is here.

    `memory` is the history of the video that is evaluated: mmcv's interface has no other place for it.
    """

    def __init__(
        self,
        preset: Optional[str] = None,
        options: Sequence[str] = (),
        **model: Any,
    ) -> None:
        """model: the section as upstream's files have it; or `preset`, the name of one of ours.

        options: such as "ops.attention=mmcv".  Raises ConfigError naming what cannot be honoured.
        """
        head = own_head.build(model)
        sections = model if head is None else {**model, "pts_bbox_head": head.section}
        config, start = read_model(sections, preset, options)
        self.memory: Optional[VideoMemory] = None
        super().__init__(config)
        self.start, self.has_own_head = start, head is not None
        if head is not None:
            own_head.require_agreement(head, config)
            self.pts_bbox_head = head
            use_operators(self, config.ops)

    def init_weights(self) -> List[InitReport]:
        """Loads what `pretrained` or init_cfg name; all else was drawn when the model was built.

        Raises CheckpointError for a file that is missing or of another network.
        """
        done = []
        if self.has_own_head and not self.start.whole:
            self.pts_bbox_head.init_weights()
        for source in filter(None, (self.start.backbone, self.start.whole)):
            if os.path.exists(source):
                done.append(self._start_from(source, source))
                continue
            if "://" not in source:
                raise CheckpointError("no weights at %s" % source, "The configuration starts from them.")
            with tempfile.TemporaryDirectory() as folder:  # torchvision:// and the like
                path = os.path.join(folder, "weights.pth")
                torch.save(_fetched(source), path)
                done.append(self._start_from(path, source))
        return done

    def _start_from(self, path: str, source: str) -> InitReport:
        report = initialise(self, path)
        if source == self.start.whole:
            warn_of_boxes(load_checkpoint(path)["meta"], source)
        return report

    def train(self, mode: bool = True) -> "BEVFormer":
        """Also what mmcv's test loops begin with, through eval(): a second pass starts without history."""
        self.memory = None
        super().train(mode)
        return self

    def forward(self, *inputs: Any, return_loss: bool = True, **data: Any) -> Any:
        """As mmcv calls it, with names; with positions it is one time step, as `loss` calls it."""
        if inputs:
            self._require_bundled_head("forward with positions")
            return detector.BEVFormer.forward(self, *inputs)
        return self.forward_train(**data) if return_loss else self.forward_test(**data)

    @auto_fp16(apply_to=())
    def forward_train(
        self, img: Tensor, img_metas: Any, gt_bboxes_3d: Any, gt_labels_3d: Any, **others: Any
    ) -> Dict[str, Tensor]:
        """img: (B, T, N, 3, H, W); the losses under upstream's names."""
        _refuse(others, "training")
        samples = samples_of(img, img_metas, gt_bboxes_3d, gt_labels_3d, BOXES)
        if self.has_own_head:
            return own_head.losses(self, samples, img_metas, gt_bboxes_3d, gt_labels_3d, np.random)
        positives = sum(len(sample.truth.labels_G) for sample in samples)
        mean = reduce_mean(torch.tensor([float(positives)], device=img.device))
        return self.loss(samples, np.random, float(mean))

    @auto_fp16(apply_to=())
    def forward_test(
        self, img: Sequence[Tensor], img_metas: Sequence[Any], rescale: bool = True, **others: Any
    ) -> List[Dict[str, Any]]:
        """One frame of a video, in the order of time: img [(1, N, 3, H, W)], img_metas [[meta]]."""
        _refuse(others, "evaluation")
        if isinstance(img, Tensor):
            raise ConfigError(
                "evaluation was handed one tensor %s instead of a list of them" % (tuple(img.shape),),
                "The test pipeline has no MultiScaleFlipAug3D around its last steps.",
                "As upstream's files have it: after the normalisation dict(type='MultiScaleFlipAug3D', "
                "img_scale=(1600, 900), pts_scale_ratio=1, flip=False, transforms=[the others]).",
            )
        if len(img) != 1 or len(img_metas) != 1:
            raise ConfigError(
                "%d augmented copies of a frame" % len(img), "Upstream's evaluation has no augmentation."
            )
        return self.simple_test(img[0], img_metas[0], rescale)

    def simple_test(
        self, img: Tensor, img_metas: Sequence[Any], rescale: bool = True
    ) -> List[Dict[str, Any]]:
        """[{"pts_bbox": {boxes_3d, scores_3d, labels_3d}}], on the CPU."""
        if len(img) != 1:
            raise ConfigError(
                "%d frames at a time" % len(img),
                "History goes from one frame to the next.",
                "Evaluate with samples_per_gpu=1.",
            )
        if self.has_own_head:
            result, self.memory = own_head.detections(self, img[0], img_metas[0], self.memory, rescale)
            return [{"pts_bbox": result}]
        found, self.memory = self.step(Frame(img[0], meta_of(img_metas[0])), self.memory)
        return [{"pts_bbox": to_result(found, img_metas[0]["box_type_3d"])}]

    def step(self, *inputs: Any, **options: Any) -> Any:
        """As the bundled one; ConfigError with a head of somebody's own, whose methods it does not call."""
        self._require_bundled_head("step")
        return super().step(*inputs, **options)

    def _require_bundled_head(self, what: str) -> None:
        if self.has_own_head:
            raise ConfigError(
                "%s with %s" % (what, type(self.pts_bbox_head).__name__),
                "It runs the bundled head without asking for the loss or get_bboxes of another.",
                "Call the detector as mmcv does: model(img=..., img_metas=..., return_loss=...).",
            )

    def aug_test(self, *args: Any, **kwargs: Any) -> Any:
        raise ConfigError("test-time augmentation", "Upstream's evaluation has none.")

    def extract_feat(self, img: Tensor, img_metas: Any = None) -> List[Tensor]:
        """Levels of (B, N, C, h, w) of (B, N, 3, H, W)."""
        return self.features(img)


def to_result(found: Detections, box_class: Any) -> Dict[str, Any]:
    """As mmdet3d's data sets and tools take it."""
    boxes = to_mmdet3d(found.boxes_K9, box_class, BOXES)
    result: Dict[str, Any] = bbox3d2result(boxes, found.scores_K, found.labels_K)
    return result


def _refuse(others: Dict[str, Any], what: str) -> None:
    given = sorted(name for name, value in others.items() if value is not None)
    if given:
        raise ConfigError(
            "%s was handed %s" % (what, ", ".join(given)),
            "The bundled model sees camera images only.",
            "Take them out of the keys that CustomCollect3D collects.",
        )


def load(model: BEVFormer, path: str, boxes: Optional[str] = None) -> Dict[str, Any]:
    """Every weight of a checkpoint of upstream's or of ours; returns its meta, and says what it assumed.

    boxes: the convention that it learned, where it is not what `box_convention.of_checkpoint` says.
    """
    content = load_checkpoint(path)
    learned, state = of_checkpoint(content["meta"], boxes), content["state_dict"]
    load_weights(model, state if learned == LEGACY else reordered(state), path)
    meta: Dict[str, Any] = content["meta"]
    if boxes is None:
        warn_of_boxes(meta, path)
    return meta


def _fetched(source: str) -> Any:
    """What mmcv makes of an address.  Raises CheckpointError for one that it does not know or reach."""
    try:
        return CheckpointLoader.load_checkpoint(source, map_location="cpu")
    except (KeyError, OSError, ImportError) as error:  # torchvision:// needs torchvision
        scheme = source.split("://")[0]
        why = "mmcv knows no such name under %s://." % scheme if isinstance(error, KeyError) else str(error)
        raise CheckpointError(
            "no weights at %s" % source,
            why,
            "Correct the name, or give the path of a file that is here.",
        ) from error
