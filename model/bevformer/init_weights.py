"""Initial weights: `train --init-from FILE`, apart from resuming a run and from evaluating a checkpoint.

Understood layouts: ImageNet (conv1, layer1 ...), FCOS3D as mmdet3d writes it (backbone., neck.) and as
upstream's r101_dcn_fcos3d_pretrain has it (img_backbone., img_neck.), and detectors of this model.  As
upstream's load_from does, a tensor is taken when its key and shape fit; unlike there, what was not taken
is counted, and a backbone that stays random is an error.
"""

import hashlib
import re
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch
from torch import nn

from .checkpoint import check_finite, check_values, load_checkpoint, misfit
from .config import BackboneConfig, Config
from .errors import CheckpointError
from .key_tables import preset_tables, shapes_of
from .kinds import Shapes, backbone_prefix, compare, describe_shapes, diagnose

# Of the backbone's tensors, and of the file's: ResNet-101 holds all that ResNet-50 asks for, and is another.
MIN_COVERAGE = 0.95
_BACKBONE, _NECK = "img_backbone.", "img_neck."
_COUNTER = "num_batches_tracked"
_PART = re.compile(r"img_backbone\.(conv1|bn1|layer\d+)\.")  # a classifier is no part of the backbone

# sha256 begins with what torchvision has in the file's name.  V2 is another training of the same network.
KNOWN_FILES = {
    "0676ba61": "torchvision's resnet50, IMAGENET1K_V1",
    "19c8e357": "torchvision's resnet50, IMAGENET1K_V1",
    "11ad3fa6": "torchvision's resnet50, IMAGENET1K_V2",
}
_RECIPES_RESNET50 = ("0676ba61", "19c8e357")  # the same weights with and without num_batches_tracked


@dataclass(frozen=True)
class InitReport:
    """What was taken from where.  Counters of batch norm do not count.

    `not_loaded`: backbone tensors that the file lacks; `surplus`: those of the file's backbone that this one
    lacks; `reshaped`: sentences; `ignored`: how many keys of the file have no place here at all.
    """

    path: str
    sha256: str
    kind: str
    looks_like: str
    backbone_loaded: int
    backbone_total: int
    loaded: int
    total: int
    not_loaded: Tuple[str, ...]
    reshaped: Tuple[str, ...]
    surplus: Tuple[str, ...]
    ignored: int

    @property
    def coverage(self) -> float:
        return self.backbone_loaded / float(self.backbone_total) if self.backbone_total else 0.0

    @property
    def used(self) -> float:
        """The share of the file's own backbone that has a place here."""
        return self.backbone_loaded / float(max(1, self.backbone_loaded + len(self.surplus)))

    def record(self) -> Dict[str, Any]:
        """For run.json and the checkpoint's meta: plain data; of long lists the first ten."""
        fields = asdict(self)
        fields.update(
            coverage=round(self.coverage, 6),
            known_as=KNOWN_FILES.get(self.sha256[:8]),
            not_loaded=list(self.not_loaded[:10]),
            reshaped=list(self.reshaped[:10]),
            surplus=list(self.surplus[:10]),
        )
        return fields

    def sentence(self) -> str:
        text = "Initial weights from %s (%s): %d of %d backbone tensors, %d of %d in all." % (
            self.path,
            self.looks_like,
            self.backbone_loaded,
            self.backbone_total,
            self.loaded,
            self.total,
        )
        if self.reshaped:
            text += " Of another shape: %s." % "; ".join(self.reshaped[:3])
        if self.ignored:
            text += " %d keys of the file have no place here." % self.ignored
        return text


def initialise(model: nn.Module, path: str, allow_partial: bool = False) -> InitReport:
    """Copy what fits from `path` into the model.

    Raises CheckpointError for an unreadable file, for less than MIN_COVERAGE of the backbone, and for a
    detector of this model that does not fit as a whole; `allow_partial` lifts the last two.
    """
    state = load_checkpoint(path)["state_dict"]
    own = {key: value for key, value in model.state_dict().items() if not key.endswith(_COUNTER)}
    theirs, ours = shapes_of(state), shapes_of(own)
    names = model_keys(theirs)
    taken = {name: state[key] for key, name in names.items() if name in own and theirs[key] == ours[name]}
    report = _report(path, theirs, ours, names, taken)
    if not allow_partial:
        _require_enough(model, state, report)
    elif not taken:
        raise CheckpointError("nothing in %s fits the model" % path, "It looks like %s." % report.looks_like)
    check_values(taken, own, path)
    check_finite(taken, path)
    model.load_state_dict(taken, strict=False)
    return report


def model_keys(shapes: Shapes) -> Dict[str, str]:
    """The name in the model for every key of a file that has a sensible one.

    A detector's keys stay.  Else the backbone's prefix becomes `img_backbone.`, the neck beside it
    `img_neck.`, and everything else is left out.  `conv2_offset` is how mmdet < 2 spelt DCN's branch.
    """
    if any(key.startswith("pts_bbox_head.") for key in shapes):
        return {key: key for key in shapes if not key.endswith(_COUNTER)}
    prefix = backbone_prefix(shapes)
    if prefix is None:
        return {}
    neck = prefix.replace("backbone", "neck") if "backbone" in prefix else None
    names = {}
    for key in shapes:
        if key.endswith(_COUNTER):
            continue
        if neck and key.startswith(neck):
            names[key] = _NECK + key[len(neck) :]
        elif key.startswith(prefix):
            inner = key[len(prefix) :].replace(".conv2_offset.", ".conv2.conv_offset.")
            names[key] = _BACKBONE + inner
    return names


def _report(
    path: str, theirs: Shapes, ours: Shapes, names: Mapping[str, str], taken: Mapping[str, torch.Tensor]
) -> InitReport:
    backbone = [key for key in ours if key.startswith(_BACKBONE)]
    by_name = {name: theirs[key] for key, name in names.items() if name in ours}
    reshaped = [name for name in by_name if name not in taken]
    verdict = diagnose(theirs, preset_tables())
    return InitReport(
        path=path,
        sha256=file_digest(path),
        kind=verdict.kind,
        looks_like=verdict.text,
        backbone_loaded=sum(key in taken for key in backbone),
        backbone_total=len(backbone),
        loaded=len(taken),
        total=len(ours),
        not_loaded=tuple(key for key in backbone if key not in taken),
        surplus=tuple(name for name in names.values() if _PART.match(name) and name not in ours),
        reshaped=tuple(describe_shapes([name], by_name, ours) for name in reshaped),
        ignored=sum(not key.endswith(_COUNTER) and names.get(key) not in ours for key in theirs),
    )


def _require_enough(model: nn.Module, state: Dict[str, torch.Tensor], report: InitReport) -> None:
    if any(key.startswith("pts_bbox_head.") for key in state):
        fit = compare(shapes_of(state), shapes_of(model.state_dict()))
        if not fit:
            error = misfit(model, state, fit, report.path)
            error.do = "To start from what fits, add --allow-partial-init. " + error.do
            raise error
        return
    if report.coverage >= MIN_COVERAGE > report.used:
        raise CheckpointError(
            "%s holds another backbone: %d of its tensors have no place in this one, such as %s"
            % (report.path, len(report.surplus), report.surplus[0]),
            "It looks like %s. Parts of one network are not the start of another." % report.looks_like,
            "Give weights of the same backbone, or say --allow-partial-init.",
        )
    if report.coverage < MIN_COVERAGE:
        raise CheckpointError(
            "%s covers %d of the %d backbone tensors; not in it: %s"
            % (report.path, report.backbone_loaded, report.backbone_total, _first(report)),
            "It looks like %s. The rest would stay random, and most of the accuracy with it."
            % report.looks_like,
            "Give weights of the same backbone, or say --allow-partial-init.",
        )


def _first(report: InitReport, limit: int = 4) -> str:
    named = ", ".join(report.not_loaded[:limit])
    more = len(report.not_loaded) - limit
    return named + (" and %d more" % more if more > 0 else "")


def expected(backbone: BackboneConfig) -> Optional[Tuple[str, str]]:
    """(kind, words) of what the published recipe starts from; None where it starts from nothing."""
    if backbone.kind != "resnet":
        return None
    if backbone.dcn_stages:
        return "fcos3d", "r101_dcn_fcos3d_pretrain.pth (FCOS3D on nuScenes)"
    return "imagenet", "torchvision's resnet%d, IMAGENET1K_V1" % backbone.depth


def departures(config: Config, init: Optional[Mapping[str, Any]]) -> List[Tuple[str, str]]:
    """(what, why) for the fidelity ledger; all of it changes the result.  `init`: `InitReport.record()`."""
    recipe = expected(config.backbone)
    kind, wanted = recipe or ("", "random weights")
    if init is None:
        why = "the recipe starts from %s; without --init-from the result cannot match the published numbers"
        return [("backbone starts from random weights", why % wanted)] if recipe else []
    found = []
    if init["kind"].startswith("bevformer"):
        found.append(("starts from a trained detector", "fine-tuning it is another recipe"))
    elif init["kind"] != kind:
        found.append(("starts from other weights than the recipe", "the recipe starts from " + wanted))
    elif kind == "imagenet" and init["sha256"][:8] not in _RECIPES_RESNET50:
        what = init["known_as"] or "ImageNet weights of unknown origin"
        found.append(("starts from " + what, "the recipe starts from " + wanted))
    short = init["backbone_total"] - init["backbone_loaded"]
    if short:
        what = "%d backbone tensors start from random weights" % short
        found.append((what, "the file has none for them"))
    if init["surplus"]:
        found.append(("starts from parts of another backbone", "the recipe's file fits as a whole"))
    return found


def file_digest(path: str) -> str:
    """sha256 of a file in hexadecimal."""
    total = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(2**20), b""):
            total.update(block)
    return total.hexdigest()
