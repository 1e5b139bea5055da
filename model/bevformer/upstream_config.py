"""Maps an upstream configuration (mmdet3d 1.x style) onto ours, or refuses the line it cannot honour.

Every leaf of the sections that steer the result must be mapped, be the value the bundled model has built
in, or be known not to change the result.  Nothing is ignored silently.
"""

import dataclasses
import difflib
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

from .config import (
    BackboneConfig,
    Config,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    HeadConfig,
    NeckConfig,
    ScheduleConfig,
    TransformerConfig,
)
from .errors import ConfigError
from .types import CLASSES
from .upstream_reader import Located, read_upstream

Leaf = Tuple[str, Any, str]  # dotted path, value, "file:line"

_HEAD = "model.pts_bbox_head."
_TRANSFORMER = _HEAD + "transformer."
_ENCODER = _TRANSFORMER + "encoder."
_DECODER = _TRANSFORMER + "decoder."
_LAYER = "transformerlayers."
_ASSIGNER = "model.train_cfg.pts.assigner."

# upstream path -> our dotted option
MAPPED = {
    "model.use_grid_mask": "data.grid_mask",
    "model.img_backbone.depth": "backbone.depth",
    "model.img_backbone.style": "backbone.style",
    "model.img_backbone.out_indices": "backbone.out_stages",
    "model.img_backbone.frozen_stages": "backbone.frozen_stages",
    "model.img_backbone.with_cp": "backbone.checkpoint_blocks",
    "model.img_neck.in_channels": "neck.in_channels",
    "model.img_neck.num_outs": "neck.num_outs",
    _HEAD + "bev_h": "encoder.bev_h",
    _HEAD + "bev_w": "encoder.bev_w",
    _HEAD + "num_query": "head.num_query",
    _HEAD + "num_classes": "head.num_classes",
    _HEAD + "code_weights": "head.code_weights",
    _TRANSFORMER + "embed_dims": "transformer.embed_dims",
    _ENCODER + "num_layers": "encoder.num_layers",
    _ENCODER + "pc_range": "head.pc_range_m",
    _ENCODER + "num_points_in_pillar": "encoder.num_points_in_pillar",
    _ENCODER + _LAYER + "attn_cfgs.1.deformable_attention.num_points": "encoder.sca_points",
    _ENCODER + _LAYER + "feedforward_channels": "transformer.ffn_dims",
    _ENCODER + _LAYER + "ffn_dropout": "transformer.dropout",
    _DECODER + "num_layers": "decoder.num_layers",
    _HEAD + "bbox_coder.post_center_range": "head.post_center_range_m",
    _HEAD + "bbox_coder.max_num": "head.max_per_img",
    _HEAD + "loss_cls.loss_weight": "head.cls_weight",
    _HEAD + "loss_bbox.loss_weight": "head.bbox_weight",
    "data.train.queue_length": "data.queue_length",
    "data.samples_per_gpu": "schedule.samples_per_gpu",
    "optimizer.lr": "schedule.lr",
    "optimizer.betas": "schedule.betas",
    "optimizer.weight_decay": "schedule.weight_decay",
    "optimizer.paramwise_cfg.custom_keys.img_backbone.lr_mult": "schedule.backbone_lr_mult",
    "optimizer_config.grad_clip.max_norm": "schedule.grad_clip",
    "lr_config.warmup_iters": "schedule.warmup_steps",
    "lr_config.warmup_ratio": "schedule.warmup_ratio",
    "lr_config.min_lr_ratio": "schedule.min_lr_ratio",
    "runner.max_epochs": "schedule.max_epochs",
    "total_epochs": "schedule.max_epochs",
    "fp16.loss_scale": "schedule.fp16_loss_scale",
}

# upstream path -> the values that the bundled model has built in
BUILT_IN: Dict[str, Tuple[Any, ...]] = {
    "model.type": ("BEVFormer", "BEVFormer_fp16"),
    "model.video_test_mode": (True,),
    "model.img_backbone.type": ("ResNet",),
    "model.img_backbone.num_stages": (4,),
    "model.img_backbone.norm_cfg.type": ("BN", "BN2d"),
    "model.img_backbone.norm_cfg.requires_grad": (False,),
    "model.img_backbone.norm_eval": (True,),
    "model.img_backbone.dcn.type": ("DCNv2",),
    "model.img_backbone.dcn.deform_groups": (1,),
    "model.img_backbone.dcn.fallback_on_stride": (False,),
    "model.img_neck.type": ("FPN",),
    "model.img_neck.start_level": (0,),
    "model.img_neck.add_extra_convs": ("on_output",),
    "model.img_neck.relu_before_extra_convs": (True,),
    _HEAD + "type": ("BEVFormerHead",),
    _HEAD + "sync_cls_avg_factor": (True,),
    _HEAD + "with_box_refine": (True,),
    _HEAD + "as_two_stage": (False,),
    _TRANSFORMER + "type": ("PerceptionTransformer",),
    _TRANSFORMER + "rotate_prev_bev": (True,),
    _TRANSFORMER + "use_shift": (True,),
    _TRANSFORMER + "use_can_bus": (True,),
    _ENCODER + "type": ("BEVFormerEncoder",),
    _ENCODER + "return_intermediate": (False,),
    _ENCODER + _LAYER + "type": ("BEVFormerLayer",),
    _ENCODER + _LAYER + "attn_cfgs.0.type": ("TemporalSelfAttention",),
    _ENCODER + _LAYER + "attn_cfgs.0.num_levels": (1,),
    _ENCODER + _LAYER + "attn_cfgs.1.type": ("SpatialCrossAttention",),
    _ENCODER + _LAYER + "attn_cfgs.1.deformable_attention.type": ("MSDeformableAttention3D",),
    _DECODER + "type": ("DetectionTransformerDecoder",),
    _DECODER + "return_intermediate": (True,),
    _DECODER + _LAYER + "type": ("DetrTransformerDecoderLayer",),
    _DECODER + _LAYER + "attn_cfgs.0.type": ("MultiheadAttention",),
    _DECODER + _LAYER + "attn_cfgs.0.num_heads": (8,),
    _DECODER + _LAYER + "attn_cfgs.1.type": ("CustomMSDeformableAttention",),
    _DECODER + _LAYER + "attn_cfgs.1.num_levels": (1,),
    _HEAD + "bbox_coder.type": ("NMSFreeCoder",),
    _HEAD + "positional_encoding.type": ("LearnedPositionalEncoding",),
    _HEAD + "loss_cls.type": ("FocalLoss",),
    _HEAD + "loss_cls.use_sigmoid": (True,),
    _HEAD + "loss_cls.gamma": (2.0,),
    _HEAD + "loss_cls.alpha": (0.25,),
    _HEAD + "loss_bbox.type": ("L1Loss",),
    _HEAD + "loss_iou.loss_weight": (0.0,),
    _ASSIGNER + "type": ("HungarianAssigner3D",),
    _ASSIGNER + "cls_cost.type": ("FocalLossCost",),
    _ASSIGNER + "cls_cost.weight": (2.0,),
    _ASSIGNER + "reg_cost.type": ("BBox3DL1Cost",),
    _ASSIGNER + "reg_cost.weight": (0.25,),
    _ASSIGNER + "iou_cost.weight": (0.0,),
    "data.train.use_valid_flag": (True,),
    "data.train.box_type_3d": ("LiDAR",),
    "data.train.test_mode": (False,),
    "optimizer.type": ("AdamW",),
    "optimizer_config.grad_clip.norm_type": (2,),
    "lr_config.policy": ("CosineAnnealing",),
    "lr_config.warmup": ("linear",),
    "runner.type": ("EpochBasedRunner", "EpochBasedRunner_video"),
}
for _stage, _attention in ((_ENCODER, "encoder"), (_DECODER, "decoder")):
    BUILT_IN[_stage + _LAYER + "operation_order"] = (
        ["self_attn", "norm", "cross_attn", "norm", "ffn", "norm"],
    )

# upstream path -> our option it repeats: both have to agree
REPEATED = {
    "model.img_neck.out_channels": "transformer.embed_dims",
    _HEAD + "in_channels": "transformer.embed_dims",
    _ENCODER + _LAYER + "attn_cfgs.0.embed_dims": "transformer.embed_dims",
    _ENCODER + _LAYER + "attn_cfgs.1.embed_dims": "transformer.embed_dims",
    _ENCODER + _LAYER + "attn_cfgs.1.pc_range": "head.pc_range_m",
    _ENCODER + _LAYER + "attn_cfgs.1.deformable_attention.embed_dims": "transformer.embed_dims",
    _ENCODER + _LAYER + "attn_cfgs.1.deformable_attention.num_levels": "neck.num_outs",
    _DECODER + _LAYER + "attn_cfgs.0.embed_dims": "transformer.embed_dims",
    _DECODER + _LAYER + "attn_cfgs.0.dropout": "transformer.dropout",
    _DECODER + _LAYER + "attn_cfgs.1.embed_dims": "transformer.embed_dims",
    _DECODER + _LAYER + "feedforward_channels": "transformer.ffn_dims",
    _DECODER + _LAYER + "ffn_dropout": "transformer.dropout",
    _HEAD + "bbox_coder.pc_range": "head.pc_range_m",
    _HEAD + "bbox_coder.num_classes": "head.num_classes",
    _HEAD + "positional_encoding.row_num_embed": "encoder.bev_h",
    _HEAD + "positional_encoding.col_num_embed": "encoder.bev_w",
    _ASSIGNER + "pc_range": "head.pc_range_m",
    "model.train_cfg.pts.point_cloud_range": "head.pc_range_m",
}

# Sections and leaves that do not steer the numbers: voxel sizes of a lidar branch that BEVFormer does not
# have, names of losses with weight 0, loading, logging and saving.
WITHOUT_EFFECT = (
    "model.train_cfg.pts.grid_size",
    "model.train_cfg.pts.voxel_size",
    "model.train_cfg.pts.out_size_factor",
    _HEAD + "bbox_coder.voxel_size",
    _HEAD + "loss_iou.type",
    _ASSIGNER + "iou_cost.type",
    _HEAD + "positional_encoding.num_feats",
    "model.pretrained",
    "data.workers_per_gpu",
    "data.val",
    "data.test",
    "data.shuffler_sampler",
    "data.nonshuffler_sampler",
    "data.train.type",
    "data.train.data_root",
    "data.train.ann_file",
    "data.train.modality",
    "data.train.bev_size",
)

# The only top-level names with an effect in mmdet3d 1.x; all others are variables of the file.
SECTIONS = (
    "model",
    "data",
    "optimizer",
    "optimizer_config",
    "lr_config",
    "runner",
    "total_epochs",
    "fp16",
    "custom_hooks",
    "momentum_config",
)


def leaves(value: Any, path: str, where: str) -> Iterator[Leaf]:
    """Every value that is not a dict or a list of dicts, with its dotted path."""
    if isinstance(value, Located):
        for key, inner in value.items():
            yield from leaves(inner, "%s.%s" % (path, key), value.where[key])
    elif isinstance(value, (list, tuple)) and value and all(isinstance(item, Located) for item in value):
        for index, inner in enumerate(value):
            yield from leaves(inner, "%s.%d" % (path, index), where)
    else:
        yield path, value, where


def _refuse(leaf: Leaf, why: str) -> ConfigError:
    return ConfigError(
        "%s: %s = %r cannot be honoured" % (leaf[2], leaf[0], leaf[1]),
        why,
        "Change the line, or start from the nearest preset with --cfg-options.",
    )


def _get(config: Config, option: str) -> Any:
    group, _, name = option.partition(".")
    return getattr(getattr(config, group), name)


def _put(config: Config, option: str, leaf: Leaf) -> Config:
    group, _, name = option.partition(".")
    old, value = _get(config, option), _plain(leaf[1])
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(old):
        raise _refuse(leaf, "It has to be like %r." % (old,))
    return dataclasses.replace(
        config, **{group: dataclasses.replace(getattr(config, group), **{name: value})}
    )


def _plain(value: Any) -> Any:
    return tuple(_plain(item) for item in value) if isinstance(value, (list, tuple)) else value


def _same(a: Any, b: Any) -> bool:
    return bool(_plain(a) == _plain(b)) and isinstance(a, bool) == isinstance(b, bool)


def _special() -> Dict[str, Callable[[Config, Leaf], Config]]:
    """Leaves that need a thought of their own."""

    def dcn_stages(config: Config, leaf: Leaf) -> Config:
        stages = tuple(index for index, used in enumerate(leaf[1]) if used)
        return dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, dcn_stages=stages))

    def classes(config: Config, leaf: Leaf) -> Config:
        if tuple(leaf[1]) != CLASSES:
            raise _refuse(leaf, "The bundled data set has the ten nuScenes classes in upstream's order.")
        return config

    return {"model.img_backbone.stage_with_dcn": dcn_stages, "data.train.classes": classes}


def _defaults() -> Config:
    """What upstream's classes assume where a file says nothing; everything else the file has to say."""
    return Config(
        name="upstream",
        backbone=BackboneConfig(),
        neck=NeckConfig(),
        transformer=TransformerConfig(),
        encoder=EncoderConfig(),
        decoder=DecoderConfig(),
        head=HeadConfig(),
        data=DataConfig(photometric=False, grid_mask=False),
        schedule=ScheduleConfig(),
    )


def read_config(path: Path) -> Tuple[Config, List[str]]:
    """(configuration, notes to show) of an upstream file.  Raises ConfigError with file and line."""
    tree = read_upstream(Path(path))
    for section in ("model", "data", "optimizer"):
        if not isinstance(tree.get(section), Located):
            raise ConfigError(
                "%s has no section %r" % (path, section),
                "A configuration of BEVFormer (mmdet3d 1.x style) has model, data and optimizer.",
            )
    config = map_sections(tree)
    from .upstream_pipeline import read_pipelines

    config = read_pipelines(config, tree)
    return dataclasses.replace(config, name=Path(path).stem), _notes(tree)


def map_sections(tree: Located) -> Config:
    """Our configuration of the sections that the tree has; what a file does not say is upstream's default.

    Raises ConfigError naming the leaf that cannot be honoured, and where it was written.
    """
    config, repeated, special = _defaults(), [], _special()
    for section in SECTIONS:
        if section not in tree:
            continue
        for leaf in leaves(tree[section], section, tree.where[section]):
            if leaf[0] in MAPPED:
                config = _put(config, MAPPED[leaf[0]], leaf)
            elif leaf[0] in special:
                config = special[leaf[0]](config, leaf)
            elif leaf[0] in REPEATED:
                repeated.append(leaf)
            else:
                _check_fixed(leaf)
    for leaf in repeated:
        if not _same(leaf[1], _get(config, REPEATED[leaf[0]])):
            raise _refuse(
                leaf, "It has to repeat %s = %r." % (REPEATED[leaf[0]], _get(config, REPEATED[leaf[0]]))
            )
    return config


def _check_fixed(leaf: Leaf) -> None:
    path = leaf[0]
    if path in BUILT_IN:
        if not any(_same(leaf[1], value) for value in BUILT_IN[path]):
            raise _refuse(leaf, "The bundled model has %s built in." % " or ".join(map(repr, BUILT_IN[path])))
        return
    if path.startswith("data.train.pipeline"):
        return  # upstream_pipeline reads it
    if any(path == name or path.startswith(name + ".") for name in WITHOUT_EFFECT):
        return
    if path.startswith("custom_hooks") and leaf[1] in ("TransferWeight", "LOWEST"):
        return  # hands the weights to the evaluation copy of the fp16 variant; nothing to do here
    raise _refuse(leaf, "The bundled model has no such option.%s" % _near(path))


def _near(path: str) -> str:
    """What may have been meant."""
    known = [*MAPPED, *_special(), *REPEATED, *BUILT_IN, *WITHOUT_EFFECT]
    near = difflib.get_close_matches(path, known, 2, 0.85)
    return " Known are: %s." % ", ".join(near) if near else ""


def _notes(tree: Located) -> List[str]:
    notes = []
    if isinstance(tree.get("load_from"), str):
        notes.append(
            "%s: load_from = %r is not followed; give the file with --init-from."
            % (tree.where["load_from"], tree["load_from"])
        )
    return notes
