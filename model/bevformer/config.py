"""The full configuration of a run as frozen dataclasses, and the presets.

Every number comes from the reference's config files at 66b65f3 (facts: bevformer.md, Presets) except
`bevformer_micro`, which was measured here (facts: micro.md).
"""

import ast
import dataclasses
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Optional, Tuple

from .errors import ConfigError

PC_RANGE_M = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)


@dataclass(frozen=True)
class BackboneConfig:
    """kind: `resnet` or `micro`.  Stages are counted 0..3; `dcn_stages` use DCNv2 in their 3x3."""

    kind: str = "resnet"
    depth: int = 50
    style: str = "pytorch"
    dcn_stages: Tuple[int, ...] = ()
    out_stages: Tuple[int, ...] = (3,)
    frozen_stages: int = 1
    checkpoint_blocks: bool = False
    dcn_backend: str = "auto"  # reference, torchvision or mmcv: see ops/dcn_backends.py
    widths: Tuple[int, ...] = ()


@dataclass(frozen=True)
class NeckConfig:
    in_channels: Tuple[int, ...] = (2048,)
    num_outs: int = 1


@dataclass(frozen=True)
class EncoderConfig:
    """`rotate_center`: (x, y) in cells, upstream's fixed (100, 100); None rotates about the grid's centre."""

    bev_h: int = 50
    bev_w: int = 50
    num_layers: int = 3
    num_points_in_pillar: int = 4
    tsa_points: int = 4
    sca_points: int = 8
    rotate_center: Optional[Tuple[float, float]] = (100.0, 100.0)
    shift_current_reference: bool = False


@dataclass(frozen=True)
class DecoderConfig:
    num_layers: int = 6
    num_points: int = 4


@dataclass(frozen=True)
class HeadConfig:
    num_query: int = 900
    num_classes: int = 10
    max_per_img: int = 300
    pc_range_m: Tuple[float, ...] = PC_RANGE_M
    post_center_range_m: Tuple[float, ...] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    code_weights: Tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)
    cls_weight: float = 2.0
    bbox_weight: float = 0.25


@dataclass(frozen=True)
class TransformerConfig:
    embed_dims: int = 256
    num_heads: int = 8
    ffn_dims: int = 512
    dropout: float = 0.1
    num_cams: int = 6
    num_level_embeds: int = 4


@dataclass(frozen=True)
class DataConfig:
    """`label_every` 2 trains on every second frame of a scene (positions 1, 3, ...); 1 on all."""

    queue_length: int = 3
    mean: Tuple[float, ...] = (123.675, 116.28, 103.53)
    std: Tuple[float, ...] = (58.395, 57.12, 57.375)
    to_rgb: bool = True
    scale: float = 0.5
    pad_divisor: int = 32
    photometric: bool = True
    grid_mask: bool = True
    label_every: int = 1


@dataclass(frozen=True)
class ScheduleConfig:
    """`max_steps` > 0 fixes the number of optimiser steps and the cosine runs per step; else epochs."""

    max_epochs: int = 24
    max_steps: int = 0
    lr: float = 2e-4
    backbone_lr_mult: float = 0.1
    betas: Tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    grad_clip: float = 35.0
    warmup_steps: int = 500
    warmup_ratio: float = 1.0 / 3.0
    min_lr_ratio: float = 1e-3
    samples_per_gpu: int = 1
    world_size: int = 8
    fp16_loss_scale: float = 0.0


@dataclass(frozen=True)
class OpsConfig:
    """How the same model is computed; what each does to the result is in docs/performance.md.

    attention: see ops/backends.py.  deterministic: Triton's backward pass without floating-point atomics.
    pixels: where decoded images are finished, `worker` or `device`; decoder: `cv2`, `simplejpeg` or
    `cv2-half`.  channels_last, folded_norms: `on` or `off`; on folds frozen norms in training too, auto only
    where no gradient is asked for.  cameras_at_once: images that go through the backbone together there, 0
    chooses.  adamw: `fused`, `foreach` or `loop`.  gradients: `own` or `flat`, see gradients.py.  auto is the
    best that the device has.
    """

    attention: str = "auto"
    deterministic: bool = False
    pixels: str = "auto"
    decoder: str = "cv2"
    channels_last: str = "auto"
    folded_norms: str = "auto"
    cameras_at_once: int = 0
    adamw: str = "auto"
    gradients: str = "auto"


@dataclass(frozen=True)
class Config:
    name: str = "bevformer_tiny"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    neck: NeckConfig = field(default_factory=NeckConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    data: DataConfig = field(default_factory=DataConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ops: OpsConfig = field(default_factory=OpsConfig)


def bevformer_tiny() -> Config:
    """ResNet-50, one level, 50x50; published 0.354 NDS / 0.252 mAP."""
    return Config()


def bevformer_tiny_fp16() -> Config:
    """Tiny with 2 samples per GPU, lr 2.8e-4 and a fixed loss scale; published 0.359 / 0.257."""
    return dataclasses.replace(
        bevformer_tiny(),
        name="bevformer_tiny_fp16",
        schedule=ScheduleConfig(lr=2.8e-4, samples_per_gpu=2, fp16_loss_scale=512.0),
    )


_CAFFE = dict(mean=(103.530, 116.280, 123.675), std=(1.0, 1.0, 1.0), to_rgb=False)


def bevformer_small() -> Config:
    """ResNet-101 with DCNv2, one level, 150x150; published 0.479 / 0.370."""
    return Config(
        name="bevformer_small",
        backbone=BackboneConfig(depth=101, style="caffe", dcn_stages=(2, 3), checkpoint_blocks=True),
        encoder=EncoderConfig(bev_h=150, bev_w=150),
        data=DataConfig(scale=0.8, **_CAFFE),
    )  # type: ignore[arg-type]


def bevformer_base() -> Config:
    """ResNet-101 with DCNv2, four levels, 200x200, six encoder layers; published 0.517 / 0.416."""
    return Config(
        name="bevformer_base",
        backbone=BackboneConfig(depth=101, style="caffe", dcn_stages=(2, 3), out_stages=(1, 2, 3)),
        neck=NeckConfig(in_channels=(512, 1024, 2048), num_outs=4),
        encoder=EncoderConfig(bev_h=200, bev_w=200, num_layers=6),
        data=DataConfig(queue_length=4, scale=1.0, **_CAFFE),
    )  # type: ignore[arg-type]


def bevformer_micro() -> Config:
    """Learns the synthetic set on two CPU cores in minutes (facts: micro.md).

    The same encoder, decoder, head, losses and loop; only the backbone is small with GroupNorm, and the
    history turns about the grid's own centre (upstream's fixed centre is 62 cells off a 25x25 grid).
    """
    return Config(
        name="bevformer_micro",
        backbone=BackboneConfig(kind="micro", depth=0, out_stages=(2,), frozen_stages=0, widths=(16, 32, 64)),
        neck=NeckConfig(in_channels=(64,)),
        transformer=TransformerConfig(embed_dims=128, ffn_dims=256, dropout=0.0),
        encoder=EncoderConfig(bev_h=25, bev_w=25, num_layers=1, rotate_center=None),
        decoder=DecoderConfig(num_layers=2),
        head=HeadConfig(num_query=100, max_per_img=100),
        data=DataConfig(
            queue_length=2, scale=1.0, pad_divisor=16, photometric=False, grid_mask=False, label_every=2
        ),
        schedule=ScheduleConfig(
            max_epochs=0,
            max_steps=1400,
            lr=1e-3,
            backbone_lr_mult=1.0,
            warmup_steps=42,
            min_lr_ratio=0.01,
            world_size=1,
        ),
    )


PRESETS = {
    make.__name__: make
    for make in (bevformer_tiny, bevformer_tiny_fp16, bevformer_small, bevformer_base, bevformer_micro)
}


def preset(name: str) -> Config:
    """The configuration of a preset.  Raises ConfigError naming the known ones."""
    if name not in PRESETS:
        raise ConfigError("unknown preset: %r" % name, do="Known presets: " + ", ".join(PRESETS))
    return PRESETS[name]()


def override(config: Config, options: Iterable[str]) -> Config:
    """`key.sub=value` applied one by one; unknown names and wrong types are refused."""
    for option in options:
        path, equals, text = option.partition("=")
        if not equals:
            raise ConfigError("not an override: %r" % option, do="Write it as head.num_query=300.")
        config = _set(config, path.strip().split("."), text.strip(), path.strip())
    return config


def _set(node: Any, keys: Any, text: str, path: str) -> Any:
    names = [f.name for f in dataclasses.fields(node)]
    if keys[0] not in names:
        raise ConfigError(
            "unknown option: %s" % path, do="%s has: %s" % (type(node).__name__, ", ".join(names))
        )
    old = getattr(node, keys[0])
    if dataclasses.is_dataclass(old):
        if len(keys) == 1:
            raise ConfigError("%s is a group, not a value" % path, do="Name one of its fields.")
        return dataclasses.replace(node, **{keys[0]: _set(old, keys[1:], text, path)})
    if len(keys) > 1:
        raise ConfigError("unknown option: %s" % path, "%s is a value, not a group." % keys[0])
    return dataclasses.replace(node, **{keys[0]: _parse(text, old, path)})


def _parse(text: str, old: Any, path: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(old, bool) and text.lower() in ("true", "false"):
        value = text.lower() == "true"
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(old, float) and type(value) is int:
        value = float(value)
    if old is not None and type(value) is not type(old) and not (value is None and path.endswith("center")):
        raise ConfigError(
            "%s=%s is a %s" % (path, text, type(value).__name__),
            "It has to be a %s like %r." % (type(old).__name__, old),
        )
    return value


def to_dict(config: Config) -> Dict[str, Any]:
    return dataclasses.asdict(config)


def from_dict(data: Dict[str, Any]) -> Config:
    """The inverse of `to_dict`, also after a trip through JSON (lists become tuples)."""

    def build(cls: Any, values: Dict[str, Any]) -> Any:
        known = {f.name for f in dataclasses.fields(cls)}
        if set(values) - known:
            raise ConfigError("unknown fields in a stored configuration: %s" % sorted(set(values) - known))
        default = cls()
        return cls(
            **{
                key: build(type(getattr(default, key)), value)
                if dataclasses.is_dataclass(getattr(default, key))
                else tuple(value)
                if isinstance(value, list)
                else value
                for key, value in values.items()
            }
        )

    config = build(Config, data)
    assert isinstance(config, Config)
    return config
