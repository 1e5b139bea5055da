"""A checkpoint, read without torch: what it is, and whether it is whole."""

import base64
import re
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from bevrepro import facts
from bevrepro.core.finding import Finding
from bevrepro.doctor.check import Check, Verdict, fail, info, issue, warn
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.readable import readable_check
from bevrepro.probe.ckpt import Checkpoint, probe_ckpt

Shapes = Mapping[str, tuple[int, ...]]
COUNTER = "num_batches_tracked"  # of batch norm; some files lack it, and it plays no part
ALIKE = 0.9  # from this share of equal keys on, a file is told as that preset with differences
HEAD = "pts_bbox_head."
EMA = re.compile(r"(model_)?ema[_.]")
DOWNLOAD_AGAIN = "Download or copy it again."


@cache
def preset_shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Keys and shapes by preset, from facts/keys.toml."""
    found = {}
    for row in facts.table("keys"):
        lines = zlib.decompress(base64.b64decode(row["packed"])).decode().splitlines()
        pairs = (line.partition(" ")[::2] for line in lines)
        found[row["id"]] = {key: tuple(int(each) for each in dims.split("x") if each) for key, dims in pairs}
    return found


def differences(theirs: Shapes, ours: Shapes) -> tuple[list[str], list[str], list[str]]:
    """(missing, unexpected, of another shape); a counter of batch norm that the file lacks is not missed."""
    missing = [key for key in ours if key not in theirs and not key.endswith(COUNTER)]
    unexpected = [key for key in theirs if key not in ours]
    return missing, unexpected, [key for key in ours if key in theirs and tuple(theirs[key]) != ours[key]]


def nearest(shapes: Shapes) -> tuple[str, float]:
    """(preset, share of keys that are equal in name and shape)."""

    def share(ours: Shapes) -> float:
        alike = sum(tuple(shapes[key]) == shape for key, shape in ours.items() if key in shapes)
        return alike / max(len(set(ours) | set(shapes)), 1)

    return max(((name, share(ours)) for name, ours in preset_shapes().items()), key=lambda each: each[1])


def plain_weights(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Without mmcv's moving averages, which lie beside the weights under names of their own."""
    return {key: shape for key, shape in shapes.items() if not EMA.match(key)}


def kind_of(shapes: Shapes) -> str:
    """What the keys say: a preset's name, or "ema", "v2", "bevformer", "fcos3d", "detector", "lidar",
    "backbone", "imagenet", "unknown"."""
    shapes = plain_weights(shapes)
    if not shapes:
        return "ema"
    tops = {key.split(".")[0] for key in shapes}
    if f"{HEAD}bev_embedding.weight" in shapes:
        if any(key.startswith(("fcos3d_bbox_head.", f"{HEAD}transformer.fusion.")) for key in shapes):
            return "v2"
        name = nearest(shapes)[0]
        return "bevformer" if any(differences(shapes, preset_shapes()[name])) else name
    if "bbox_head" in tops and tops & {"img_backbone", "backbone"}:
        return "fcos3d"
    if "pts_bbox_head" in tops and "img_backbone" in tops:
        return "detector"
    if tops & {"pts_voxel_encoder", "voxel_encoder", "pts_middle_encoder", "middle_encoder", "pts_backbone"}:
        return "lidar"
    if "layer1.0.conv1.weight" in shapes and "conv1.weight" in shapes:
        return "imagenet"
    if any(key.endswith(".layer1.0.conv1.weight") for key in shapes):
        return "backbone"
    return "unknown"


def _refused(found: Checkpoint) -> Iterator[Verdict]:
    if found.refused:
        yield fail(
            f"{found.place.path} asks for {found.refused}; it was not read further and nothing was run",
            "Do not load it with torch. Take it from someone you trust.",
        )


def _broken(found: Checkpoint) -> Iterator[Verdict]:
    if found.broken:
        yield fail(f"{found.place.path} {found.broken}", DOWNLOAD_AGAIN)
    elif found.short:
        yield fail(f"{found.place.path}: {len(found.short)} record(s) are missing or shorter than declared",
                   DOWNLOAD_AGAIN)  # fmt: skip


def _fits(found: Checkpoint) -> Iterator[Verdict]:
    if found.shapes and kind_of(found.shapes) in preset_shapes():
        trained = "" if found.epoch is None else f", after epoch {found.epoch}"
        state = ", with its optimiser" if found.optimizer else ""
        yield info(f"all {len(plain_weights(found.shapes))} keys fit {kind_of(found.shapes)}{trained}{state}")


def _differs(found: Checkpoint) -> Iterator[Verdict]:
    if not found.shapes or kind_of(found.shapes) != "bevformer":
        return
    plain = plain_weights(found.shapes)
    name, share = nearest(plain)
    missing, unexpected, reshaped = differences(plain, preset_shapes()[name])
    told = [
        f"{len(keys)} {what} ({keys[0]})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if keys
    ]
    if share >= ALIKE:
        yield fail(f"nearly {name}, but {', '.join(told)}", "Use the checkpoint of the same code and preset.")
    else:
        yield warn(
            f"a BEVFormer of its own size, {share:.0%} like {name}: {', '.join(told)}",
            "Evaluate it with the configuration it was trained with.",
        )


def _other_model(found: Checkpoint) -> Iterator[Verdict]:
    kind = kind_of(found.shapes) if found.shapes else None
    names = {
        "v2": "a BEVFormer v2", "detector": "another multi-camera detector", "lidar": "a lidar detector",
        "unknown": "weights of a model unknown here",
    }  # fmt: skip
    if kind in names:
        first = next(iter(found.shapes or ()), "")
        yield fail(f"{found.place.path} holds {names[kind]} (first key: {first})",
                   "Use a checkpoint of BEVFormer v1: tiny, small or base.")  # fmt: skip


def _initial(found: Checkpoint) -> Iterator[Verdict]:
    kind = kind_of(found.shapes) if found.shapes else None
    names = {
        "fcos3d": "weights of FCOS3D (as r101_dcn_fcos3d_pretrain): backbone and neck are of use",
        "imagenet": "ImageNet weights of a ResNet",
        "backbone": "the weights of a backbone only",
    }
    if kind in names:
        yield warn(
            f"{found.place.path} holds {names[kind]}, no detector",
            "Give it as initial weights for training; evaluated as a detector it finds nothing.",
            f"bevrepro train CONFIG --init-from {found.place.path}",
        )


def _ema(found: Checkpoint) -> Iterator[Verdict]:
    if found.shapes and kind_of(found.shapes) == "ema":
        yield fail("every key begins with ema_: the moving average alone, under mmcv's names for it",
                   "Use the checkpoint that holds the weights under their own names.")  # fmt: skip
    elif found.twin and found.twin.rpartition(".")[0].endswith("_ema"):
        yield warn(f"{found.twin} lies beside it",
                   "Recipes with a moving average publish that one's numbers: evaluate it.")  # fmt: skip
    elif found.shapes and any(map(EMA.match, found.shapes)):
        yield info("it holds the moving average of the weights, too; the plain ones are used")


def _digest(found: Checkpoint) -> Iterator[Verdict]:
    if found.sha256:
        yield info(f"sha256 {found.sha256}", "Keep it with the result; compare it with the publisher's.")


CHECKS = (
    readable_check("ckpt", "the checkpoint"),
    Check("ckpt-refused", "ckpt", "whether it is plain data",
          "A checkpoint is a pickle: torch.load would run what it carries.", _refused),
    Check("ckpt-broken", "ckpt", "whether it is whole", "Loading stops, or reads rubbish.", _broken),
    Check("ckpt-fits", "ckpt", "which preset it fits", "No key is missing, none unexpected.", _fits),
    Check("ckpt-keys", "ckpt", "keys and shapes against the presets",
          "mmcv prints a warning and goes on: layers keep their random values, and mAP is near 0.", _differs,
          (issue("fundamentalvision/BEVFormer", 118),)),
    Check("ckpt-other-model", "ckpt", "whether it is BEVFormer's", "No key would match.", _other_model),
    Check("ckpt-initial-weights", "ckpt", "whether it is a detector or only its beginning",
          "Evaluated as a detector it gives mAP near 0 without any error.", _initial),
    Check("ckpt-ema", "ckpt", "a moving average of the weights beside them",
          "The raw weights of such a recipe are 2 to 3 points of NDS worse.", _ema),
    Check("ckpt-digest", "ckpt", "its sha256 (--deep)", "The only name of a file that cannot be mistaken.",
          _digest),
)  # fmt: skip


def examine_ckpt(path: Path, deep: bool = False) -> tuple[Finding, ...]:
    """All findings about `path`; `deep` hashes the file."""
    return judge_all(probe_ckpt(path, deep), CHECKS)
