"""A head of somebody's own that derives from the bundled one, in the bundled detector.

The detector runs it as upstream's does: `forward` on mmcv's img_metas, then `loss` or `get_bboxes`.
"""

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from mmdet3d.core import bbox3d2result
from mmdet3d.models import build_head
from torch import Tensor

from ..config import Config
from ..detector import relative_meta
from ..errors import ConfigError
from ..types import Frame, Sample, VideoMemory
from .frames import meta_of
from .head import BEVFormerHead
from .registries import named, names_in, unknown

WHERE = "model.pts_bbox_head"


def is_own(section: Any) -> bool:
    """Whether the section names a head that derives from the bundled one.  ConfigError: nobody knows it."""
    kind = section.get("type", "BEVFormerHead") if isinstance(section, Mapping) else "BEVFormerHead"
    if kind in ("BEVFormerHead", BEVFormerHead):
        return False
    found = kind
    if isinstance(kind, str):
        heads = named("models")
        found = next(filter(None, (each.get(kind) for each in heads)), None)
        if found is None:
            raise unknown(kind, WHERE + ".type", names_in(heads))
    return isinstance(found, type) and issubclass(found, BEVFormerHead)


def build(model: Mapping[str, Any]) -> Optional[BEVFormerHead]:
    """The head of a section `model` where it is somebody's own, built as mmdet3d's detectors build it.

    Raises ConfigError for one that did not call the bundled constructor.
    """
    section = model.get("pts_bbox_head")
    if not is_own(section):
        return None
    both = {name: (model.get(name) or {}).get("pts") for name in ("train_cfg", "test_cfg")}
    head: BEVFormerHead = build_head({**section, **both})
    if getattr(head, "read", None) is None:
        raise ConfigError(
            "%s: %s has no section that was read" % (WHERE, type(head).__name__),
            "Its __init__ did not call that of bevformer.mm.head.BEVFormerHead.",
            "super().__init__(train_cfg=..., test_cfg=..., **section), without what is its own.",
        )
    return head


def require_agreement(head: BEVFormerHead, config: Config) -> None:
    """Raises ConfigError where `options` of the detector say of the head what it was not built with."""
    for part in ("transformer", "encoder", "decoder", "head"):
        if getattr(head.read, part) != getattr(config, part):
            raise ConfigError(
                "options: %s.* cannot be honoured by %s" % (part, type(head).__name__),
                "A head of your own is built from its section alone.",
                "Write the value into %s." % WHERE,
            )


def losses(
    model: Any, samples: Sequence[Sample], img_metas: Sequence[Any], boxes: Any, labels: Any, rng: Any
) -> Dict[str, Tensor]:
    """What its `loss` makes of a batch of training queues."""
    last = len(samples[0].frames) - 1
    metas = [[_at(queue, place) for queue in img_metas] for place in range(last + 1)]
    prev_bev = _history(model, samples, metas[:-1], rng)
    levels = model.features(_images(model, [sample.frames[last] for sample in samples]), rng)
    outs = _run(model.pts_bbox_head, levels, metas[-1], prev_bev)
    found: Dict[str, Tensor] = model.pts_bbox_head.loss(boxes, labels, outs, img_metas=metas[-1])
    return found


@torch.no_grad()
def detections(
    model: Any, img_N3HW: Tensor, meta: Mapping[str, Any], memory: Optional[VideoMemory], rescale: bool
) -> Tuple[Dict[str, Any], VideoMemory]:
    """What its `get_bboxes` makes of a frame of a video, and the memory for the next one."""
    frame = Frame(img_N3HW, meta_of(meta))
    relative, prev_bev = relative_meta(frame.meta, memory)
    metas = [dict(meta, can_bus=relative.can_bus_18, prev_bev_exists=relative.prev_bev_exists)]
    outs = _run(model.pts_bbox_head, model.features(_images(model, [frame])), metas, prev_bev)
    absolute = frame.meta.can_bus_18
    kept = VideoMemory(
        frame.meta.scene_token, outs["bev_embed"].detach(), absolute[:3].copy(), float(absolute[17])
    )
    ((found, scores, classes),) = model.pts_bbox_head.get_bboxes(outs, metas, rescale=rescale)
    return bbox3d2result(found, scores, classes), kept


@torch.no_grad()
def _history(model: Any, samples: Sequence[Sample], metas: Sequence[Any], rng: Any) -> Optional[Tensor]:
    """As `BEVFormer.history`, one draw for GridMask included."""
    if not metas:
        return None
    was_training = model.training
    model.eval()
    try:
        if rng is not None and model.config.data.grid_mask:
            rng.rand()
        bev, extract = None, model.extractor()
        for step, here in enumerate(metas):
            levels = extract(_images(model, [sample.frames[step] for sample in samples]))
            bev = model.pts_bbox_head(levels, here, bev, only_bev=True)
        return bev
    finally:
        model.train(was_training)


def _run(head: Any, levels: List[Tensor], metas: Sequence[Any], prev_bev: Optional[Tensor]) -> Any:
    outs = head(levels, metas, prev_bev)
    if not isinstance(outs, Mapping) or "bev_embed" not in outs:
        raise ConfigError(
            "the forward of %s gives no bev_embed" % type(head).__name__,
            "It is the history of the next frame.",
            "Return the dict of BEVFormerHead.forward, with what is new beside it.",
        )
    return outs


def _images(model: Any, frames: Sequence[Frame]) -> Tensor:
    images: Tensor = model._stack(frames)[0]
    return images


def _at(queue: Any, place: int) -> Any:
    return queue[sorted(queue)[place]] if isinstance(queue, Mapping) else queue[place]
