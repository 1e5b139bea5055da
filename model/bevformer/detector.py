"""BEVFormer: backbone, neck and head, with history as an argument and a return value.

B batch, N cameras, Q BEV queries, C channels.
"""

import dataclasses
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor, nn

from .attention import use_operators
from .backbone import build_backbone
from .config import Config
from .extractor import Extractor, arranged, prepare
from .grid_mask import grid_mask
from .head import BEVFormerHead, HeadOutputs
from .losses import detection_losses
from .neck import FPN
from .pixels import data_after_decoding, stacked
from .types import Detections, Frame, FrameMeta, Sample, VideoMemory


class BEVFormer(nn.Module):
    """Keys pts_bbox_head, img_backbone, img_neck: a published checkpoint loads with none left over."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self._finishing = data_after_decoding(config)
        self.pts_bbox_head = BEVFormerHead(config)
        self.img_backbone = build_backbone(config.backbone)
        self.img_neck = FPN(config.neck, config.transformer.embed_dims)
        prepare(self.img_backbone, config.ops)
        use_operators(self, config.ops)

    @property
    def device(self) -> torch.device:
        return self.pts_bbox_head.code_weights.device

    def features(self, images_BNCHW: Tensor, rng: Any = None) -> List[Tensor]:
        """Levels of (B, N, C, h, w), finest first.  GridMask acts only with an rng (see `draws_mask`)."""
        B, N = images_BNCHW.shape[:2]
        images = images_BNCHW.flatten(0, 1)
        if rng is not None and self.config.data.grid_mask:
            images = grid_mask(images, rng, self.training)
        images = arranged(images, self.img_backbone, self.config.ops)
        levels = self.img_neck(self.img_backbone(images))
        return [level.view(B, N, *level.shape[1:]) for level in levels]

    def extractor(self) -> Extractor:
        """`features` for frames without gradients, made ready with the weights as they are now."""
        return Extractor(self.img_backbone, self.img_neck, self.config.ops)

    def _stack(self, frames: Sequence[Frame]) -> Tuple[Tensor, List[FrameMeta]]:
        images = stacked(frames, self.device, self._finishing).to(self.pts_bbox_head.code_weights.dtype)
        return images, [frame.meta for frame in frames]

    def forward(
        self,
        images_BNCHW: Tensor,
        metas: Sequence[FrameMeta],
        prev_bev_BQC: Optional[Tensor] = None,
        rng: Any = None,
    ) -> HeadOutputs:
        """One time step.  `metas` carry can_bus as differences to the frame of `prev_bev_BQC`."""
        outputs: HeadOutputs = self.pts_bbox_head(self.features(images_BNCHW, rng), metas, prev_bev_BQC)
        return outputs

    @torch.no_grad()
    def history(self, samples: Sequence[Sample], rng: Any = None) -> Optional[Tensor]:
        """The BEV map (B, Q, C) before the last frame: earlier frames one by one, in eval mode.

        None when the queue holds a single frame.  Upstream runs all history images as one batch, which
        draws one number for GridMask; that draw is kept, the peak of memory is not.
        """
        earlier = len(samples[0].frames) - 1
        if earlier == 0:
            return None
        was_training = self.training
        self.eval()
        try:
            if rng is not None and self.config.data.grid_mask:
                rng.rand()
            bev, extract = None, self.extractor()
            for step in range(earlier):
                images, metas = self._stack([sample.frames[step] for sample in samples])
                bev = self.pts_bbox_head.bev(extract(images), metas, bev)
            return bev
        finally:
            self.train(was_training)

    def loss(
        self,
        samples: Union[Sample, Sequence[Sample]],
        rng: Any = None,
        mean_positives: Optional[float] = None,
    ) -> Dict[str, Tensor]:
        """Losses of a batch of training queues of one length; their sum is to be minimised.

        rng: NumPy random state for GridMask.  mean_positives: see `losses.detection_losses`.
        """
        batch = [samples] if isinstance(samples, Sample) else list(samples)
        prev_bev = self.history(batch, rng)
        images, metas = self._stack([sample.frames[-1] for sample in batch])
        outputs = self(images, metas, prev_bev, rng)
        truths = [sample.truth for sample in batch]
        return detection_losses(
            outputs.logits_LBOK, outputs.codes_LBOD, truths, self.config.head, mean_positives
        )

    @torch.no_grad()
    def step(
        self, frame: Frame, memory: Optional[VideoMemory] = None, extract: Optional[Extractor] = None
    ) -> Tuple[Detections, VideoMemory]:
        """One frame of a video in eval mode: `frame` carries the absolute can_bus.

        Another scene than the memory's drops the history.  A wrap of the yaw gives a difference of about
        360 degrees and is kept, as upstream does.

        extract: of `extractor`, for many frames with the same weights.
        """
        if self.training:
            raise RuntimeError("step() is for inference: call model.eval() first")
        meta, prev_bev = relative_meta(frame.meta, memory)
        images, _ = self._stack([frame])
        levels = (extract or self.features)(images)
        outputs: HeadOutputs = self.pts_bbox_head(levels, [meta], prev_bev)
        absolute = frame.meta.can_bus_18
        kept = VideoMemory(frame.meta.scene_token, outputs.bev_BQC, absolute[:3].copy(), float(absolute[17]))
        return self.pts_bbox_head.decode(outputs)[0], kept


def relative_meta(meta: FrameMeta, memory: Optional[VideoMemory]) -> Tuple[FrameMeta, Optional[Tensor]]:
    """The meta with can_bus [0:3] and [17] as differences to the last evaluated frame, and its BEV map."""
    can_bus = np.array(meta.can_bus_18, np.float64)
    if memory is None or memory.bev_BQC is None or memory.scene_token != meta.scene_token:
        can_bus[:3], can_bus[17] = 0, 0
        return dataclasses.replace(meta, can_bus_18=can_bus, prev_bev_exists=False), None
    can_bus[:3] -= memory.position_m
    can_bus[17] -= memory.yaw_deg
    return dataclasses.replace(meta, can_bus_18=can_bus, prev_bev_exists=True), memory.bev_BQC


def build_model(config: Config) -> BEVFormer:
    """The detector of a configuration with fresh weights (drawn from torch's global generator)."""
    return BEVFormer(config)
