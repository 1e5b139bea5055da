"""What kind of file a set of weights comes from: a pure function of keys and shapes, without torch.

Sources of the key patterns: facts of the reference models; BEVFormer issue 118 and GaussianFormer issue 58
for r101_dcn_fcos3d_pretrain (img_backbone, img_neck, bbox_head); upstream's BEVFormerV2 and transformerV2;
mmcv's EMAHook (`ema_` and dots as underscores).
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

Shape = Tuple[int, ...]
Shapes = Mapping[str, Shape]

_COUNTER = "num_batches_tracked"  # of batch norm; some files lack it, and it plays no part
_STEM, _BLOCK = "conv1.weight", "layer1.0.conv1.weight"
_DEPTHS = {2: "18", 6: "50", 23: "101", 36: "152"}  # blocks in layer3 -> ResNet (6 is 34 as well as 50)
_LIDAR = ("pts_voxel_encoder", "voxel_encoder", "pts_middle_encoder", "middle_encoder", "pts_backbone")
_DETECTOR = "pts_bbox_head."


@dataclass(frozen=True)
class Verdict:
    """`text` completes "It looks like ..."; `preset` fits exactly, `nearest` is the most alike.

    `starts`: the presets whose backbone these weights are.
    """

    kind: str
    text: str
    preset: Optional[str] = None
    nearest: Optional[str] = None
    starts: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Fit:
    """Where the keys of a file and of a model differ."""

    missing: Tuple[str, ...]
    unexpected: Tuple[str, ...]
    reshaped: Tuple[str, ...]

    def __bool__(self) -> bool:
        return not (self.missing or self.unexpected or self.reshaped)


def compare(theirs: Shapes, ours: Shapes) -> Fit:
    """A counter of batch norm that the file lacks is not missed."""
    return Fit(
        tuple(key for key in ours if key not in theirs and not key.endswith(_COUNTER)),
        tuple(key for key in theirs if key not in ours),
        tuple(key for key in theirs if key in ours and tuple(theirs[key]) != tuple(ours[key])),
    )


def diagnose(shapes: Shapes, presets: Optional[Mapping[str, Shapes]] = None) -> Verdict:
    """`presets`: key tables by name; without them a BEVFormer is described but not named."""
    presets = presets or {}
    tops = Counter(key.split(".")[0] for key in shapes)
    twins = [key for key in shapes if re.match(r"(model_)?ema[_.]", key)]
    if twins:
        alone = len(twins) == len(shapes)
        return Verdict(
            "ema",
            "an EMA twin alone (a moving average of the weights: all keys begin with %r)" % twins[0][:4]
            if alone
            else "weights with their EMA twin beside them (%d of %d keys, such as %s)"
            % (len(twins), len(shapes), twins[0]),
        )
    if _DETECTOR + "bev_embedding.weight" in shapes:
        return _bevformer(shapes, presets, tops)
    prefix = _prefix_of(shapes, _DETECTOR + "bev_embedding.weight")
    if prefix:
        inner = diagnose(_without(shapes, prefix), presets)
        return Verdict("prefixed", "%s, with %r before every key" % (inner.text, prefix))
    if "pts_bbox_head" in tops and "img_backbone" in tops:
        return Verdict("detector", "another multi-camera detector (no bev_embedding), such as DETR3D or PETR")
    if any(top in tops for top in _LIDAR):
        return Verdict("lidar", "a lidar detector")
    return _single_image(shapes, presets, tops)


def _bevformer(shapes: Shapes, presets: Mapping[str, Shapes], tops: Mapping[str, int]) -> Verdict:
    described = "a BEVFormer with " + describe_bevformer(shapes)
    head = _DETECTOR + "transformer."
    v2 = [key for key in shapes if key.startswith(("fcos3d_bbox_head.", head + "fusion."))]
    if v2 or not any(key.startswith(head + "can_bus_mlp.") for key in shapes):
        sign = "%s such as %s" % (_count(len(v2), "key"), v2[0]) if v2 else "no can_bus_mlp"
        return Verdict("bevformer_v2", "a BEVFormer v2 (%s), which is another model" % sign)
    fits = [name for name, table in presets.items() if compare(shapes, table)]
    if fits:
        return Verdict("bevformer", "%s: the preset %s" % (described, " or ".join(fits)), fits[0], fits[0])
    more = sorted(set(tops) - {"pts_bbox_head", "img_backbone", "img_neck"})
    if more:
        return Verdict("derived", "a model built on BEVFormer, with the modules %s besides" % ", ".join(more))
    nearest, share = _nearest(shapes, presets)
    if nearest is None:
        return Verdict("bevformer", described)
    return Verdict(
        "bevformer",
        "%s: no preset exactly; %d %% of its weights are as in %s" % (described, int(100 * share), nearest),
        None,
        nearest,
    )


def _nearest(shapes: Shapes, presets: Mapping[str, Shapes]) -> Tuple[Optional[str], float]:
    best: Tuple[Optional[str], float] = (None, 0.0)
    for name, table in presets.items():
        alike = sum(tuple(table[key]) == tuple(shape) for key, shape in shapes.items() if key in table)
        share = alike / float(len(set(table) | set(shapes)))
        if share > best[1]:
            best = (name, share)
    return best


def describe_bevformer(shapes: Shapes) -> str:
    """`ResNet-50, 1 feature level, 50x50 BEV cells of 256 channels, 3 encoder layers, 10 classes`."""
    embedding = shapes[_DETECTOR + "bev_embedding.weight"]
    rows = shapes.get(_DETECTOR + "positional_encoding.row_embed.weight")
    columns = shapes.get(_DETECTOR + "positional_encoding.col_embed.weight")
    grid = "%dx%d" % (rows[0], columns[0]) if rows and columns else "%d" % embedding[0]
    parts = [describe_backbone(_without(shapes, "img_backbone."))]
    parts.append(_count(_layers(shapes, r"img_neck\.fpn_convs\.(\d+)\."), "feature level"))
    parts.append("%s BEV cells of %d channels" % (grid, embedding[-1]))
    parts.append(
        _count(_layers(shapes, r"pts_bbox_head\.transformer\.encoder\.layers\.(\d+)\."), "encoder layer")
    )
    classes = shapes.get(_DETECTOR + "cls_branches.0.6.bias")
    return ", ".join([part for part in parts if part] + (["%d classes" % classes[0]] if classes else []))


def describe_backbone(shapes: Shapes) -> str:
    """`ResNet-101 with DCNv2`, by the keys below the backbone's prefix; empty for another kind."""
    blocks = _layers(shapes, r"layer3\.(\d+)\.")
    if not blocks or _BLOCK not in shapes:
        return ""
    basic = "layer1.0.conv3.weight" not in shapes
    depth = "34" if basic and blocks == 6 else _DEPTHS.get(blocks, "?")
    dcn = any("conv_offset" in key or "conv2_offset" in key for key in shapes)
    return "ResNet-%s%s" % (depth, " with DCNv2" if dcn else "")


def _single_image(shapes: Shapes, presets: Mapping[str, Shapes], tops: Mapping[str, int]) -> Verdict:
    prefix = backbone_prefix(shapes)
    backbone = _without(shapes, prefix) if prefix is not None else {}
    name, starts = describe_backbone(backbone), _with_backbone(backbone, presets)
    if "bbox_head" in tops and ("img_backbone" in tops or "backbone" in tops):
        mono = "img_backbone" in tops or any(
            key.startswith(("bbox_head.conv_dir_cls", "bbox_head.conv_attr")) for key in shapes
        )
        kind = "weights of FCOS3D (as r101_dcn_fcos3d_pretrain)" if mono else "a single-image detector"
        text = "%s%s: initial weights" % (kind, _of(name))
        return Verdict("fcos3d" if mono else "image_detector", text, starts=starts)
    if prefix is None:
        return Verdict("unknown", "nothing known; its modules are %s" % by_module(shapes))
    if prefix == "":
        text = "ImageNet weights of a %s (torchvision's names)" % (name or "ResNet")
        return Verdict("imagenet", text, starts=starts)
    text = "the weights of a backbone only (%s under %r)" % (name or "a ResNet", prefix)
    return Verdict("backbone", text, starts=starts)


def _with_backbone(backbone: Shapes, presets: Mapping[str, Shapes]) -> Tuple[str, ...]:
    found = []
    for name, table in presets.items():
        fit = compare(backbone, _without(table, "img_backbone."))
        if backbone and not (
            fit.missing or fit.reshaped or any(k.startswith("layer") for k in fit.unexpected)
        ):
            found.append(name)
    return tuple(found)


def backbone_prefix(shapes: Shapes) -> Optional[str]:
    """What stands before `layer1.0.conv1.weight` and the stem: `img_backbone.`, `backbone.`, ""; or None.

    With several the most telling one counts; twins of the same name length are not guessed between.
    """
    found = sorted(
        key[: -len(_BLOCK)]
        for key in shapes
        if key.endswith(_BLOCK) and key[: -len(_BLOCK)] + _STEM in shapes
    )
    for known in ("img_backbone.", "backbone.", ""):
        if known in found:
            return known
    return found[0] if len(found) == 1 and found[0].endswith(".") else None


def explain_shape(key: str, theirs: Shape, ours: Shape) -> str:
    """`a BEV grid of 2500 cells, not 22500`, where the shape says it; else empty."""
    for pattern, axis, words in _MEANINGS:
        if re.search(pattern, key) and len(theirs) == len(ours) and theirs[axis] != ours[axis]:
            return words % (theirs[axis], ours[axis])
    return ""


_MEANINGS: Sequence[Tuple[str, int, str]] = (
    (r"cls_branches\.\d+\.6\.", 0, "%d classes, not %d"),
    (r"bev_embedding\.weight$", 0, "a BEV grid of %d cells, not %d"),
    (r"row_embed\.weight$", 0, "a BEV grid of %d rows, not %d"),
    (r"col_embed\.weight$", 0, "a BEV grid of %d columns, not %d"),
    (r"bev_embedding\.weight$", 1, "%d channels, not %d"),
    (r"query_embedding\.weight$", 0, "%d object queries, not %d"),
    (r"(code_weights|reg_branches\.\d+\.4\.(weight|bias))$", 0, "%d numbers per box, not %d"),
    (r"cams_embeds$", 0, "%d cameras, not %d"),
    (r"level_embeds$", 0, "%d feature levels, not %d"),
    (r"lateral_convs\.\d+\.conv\.weight$", 1, "a backbone level of %d channels, not %d"),
)


def describe_shapes(keys: Sequence[str], theirs: Shapes, ours: Shapes, limit: int = 4) -> str:
    """Both shapes of the first key of each meaning, at most `limit` of them."""
    groups: Dict[str, List[str]] = {}
    for key in keys:
        meaning = explain_shape(key, theirs[key], ours[key])
        groups.setdefault(meaning or re.sub(r"\.\d+\.", ".*.", key), []).append(key)
    said = []
    for meaning, members in list(groups.items())[:limit]:
        key = members[0]
        told = "%s is %s, not %s" % (key, tuple(theirs[key]), tuple(ours[key]))
        told += ": " + meaning if meaning == explain_shape(key, theirs[key], ours[key]) else ""
        said.append(told + (" (and %d like it)" % (len(members) - 1) if len(members) > 1 else ""))
    more = sum(len(members) for members in list(groups.values())[limit:])
    return ", ".join(said + (["%d more" % more] if more else []))


def by_module(keys: Iterable[str]) -> str:
    """`pts_bbox_head.transformer 120, img_neck 4`: the five largest."""

    def place(key: str) -> str:
        parts = key.split(".")
        if key.startswith("ema_"):
            return "ema_*"
        return ".".join(parts[:2]) if parts[0] == "pts_bbox_head" and len(parts) > 2 else parts[0]

    counts = Counter(place(key) for key in keys)
    named = ["%s %d" % item for item in counts.most_common(5)]
    return ", ".join(named + (["%d more modules" % (len(counts) - 5)] if len(counts) > 5 else []))


def _prefix_of(shapes: Shapes, tail: str) -> str:
    return next((key[: -len(tail)] for key in shapes if key.endswith("." + tail)), "")


def _without(shapes: Shapes, prefix: str) -> Dict[str, Shape]:
    return {key[len(prefix) :]: shape for key, shape in shapes.items() if key.startswith(prefix)}


def _layers(shapes: Shapes, pattern: str) -> int:
    """How many different numbers the group of `pattern` takes at the start of the keys."""
    matches = (re.match(pattern, key) for key in shapes)
    return len({match.group(1) for match in matches if match})


def _count(number: int, noun: str) -> str:
    return "%d %s%s" % (number, noun, "" if number == 1 else "s") if number else ""


def _of(name: str) -> str:
    return " with a %s" % name if name else ""
