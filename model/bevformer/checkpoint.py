"""Checkpoints as mmcv writes them: a dict with meta / state_dict / optimizer.

Loading is strict: every key and shape has to fit, else the error says what the file looks like.  Weights
to start a training from have their own path (`init_weights`).
"""

import os
import re
from collections import OrderedDict
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch
from torch import nn

from .atomic import write_whole
from .box_convention import NEW, note_on, trained_with
from .checkpoint_digest import check_digests, digests
from .checkpoint_read import read_file
from .checkpoint_scan import Kept
from .config import Config
from .errors import CheckpointError
from .key_tables import preset_tables, shapes_of
from .kinds import Fit, Verdict, by_module, compare, describe_shapes, diagnose

_WRAPPERS = ("state_dict", "model", "model_state_dict")  # mmcv and most others; timm and DETR; Lightning-like
_TWINS = ("ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "ema")


def save_checkpoint(
    path: str,
    model: nn.Module,
    optimizer: Optional[torch.optim.Optimizer] = None,
    meta: Optional[Dict[str, Any]] = None,
    scaler: Optional[Mapping[str, float]] = None,
) -> None:
    """Write `path` atomically, with all tensors contiguous on the CPU and digests in its meta.

    Raises DiskError.
    """
    weights = model.state_dict()
    state = _on_cpu(weights)
    state._metadata = getattr(weights, "_metadata", None)  # versions of layers, which torch reads back
    content: Dict[str, Any] = {"meta": dict(meta or {}), "state_dict": state}
    if optimizer is not None:
        content["optimizer"] = _on_cpu(optimizer.state_dict())
    if scaler is not None:
        content["scaler"] = dict(scaler)
    content["meta"]["digest"] = digests(content)
    write_whole(path, lambda stream: torch.save(content, stream))


def load_checkpoint(path: str, model: Optional[nn.Module] = None) -> Dict[str, Any]:
    """Read `path` on the CPU as {"meta", "state_dict", ...} and, with `model`, load the weights into it.

    A bare dict of tensors counts as a state_dict; a `module.` prefix (DataParallel) is taken off.
    Raises CheckpointError for a missing, truncated or foreign file, for one whose content is not what its own
    digest says, and when the keys do not fit.
    """
    content = read_file(path)
    if not isinstance(content, dict):
        raise CheckpointError(
            "%s holds a %s, not a checkpoint" % (path, type(content).__name__),
            "A checkpoint is a dict with meta, state_dict and optimizer.",
        )
    check_digests(content, path)
    state = _weights_in(content, path)
    meta = content.get("meta")
    known = (
        {key: plain(value) for key, value in meta.items() if key != "digest"}
        if isinstance(meta, dict)
        else {}
    )
    loaded = dict(content, state_dict=state, meta=known)
    if model is not None:
        load_weights(model, state, path)
    return loaded


def plain(value: Any) -> Any:
    """Dicts of other classes (mmcv's ConfigDict) as dicts, at every depth."""
    if isinstance(value, Kept):
        return {key: plain(inner) for key, inner in value.items()}
    return value


def _weights_in(content: Dict[Any, Any], path: str) -> Dict[str, torch.Tensor]:
    """The one set of weights of a file, `module.` taken off.  Raises CheckpointError for none or two."""
    wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), dict)), None)
    twin = next((key for key in _TWINS if isinstance(content.get(key), dict)), None)
    if wrapper and twin:
        raise CheckpointError(
            "%s holds two sets of weights: %s and %s" % (path, wrapper, twin),
            "%r is a moving average (EMA); the two score differently, and one would be left out silently."
            % twin,
            "Save a file with the one you want under state_dict alone.",
        )
    found = content[wrapper or twin] if wrapper or twin else content
    tensors = [
        (key, value) for key, value in found.items() if isinstance(key, str) and torch.is_tensor(value)
    ]
    if not tensors:
        raise CheckpointError("%s holds no weights" % path, "Its keys are: %s" % _some(found))
    state = OrderedDict((key[7:] if key.startswith("module.") else key, value) for key, value in tensors)
    if len(state) < len(tensors):
        raise CheckpointError(
            "%s holds the same keys with and without the prefix 'module.'" % path,
            "It cannot be told which of the two are meant.",
        )
    return state


def load_weights(model: nn.Module, state: Dict[str, torch.Tensor], path: str = "the checkpoint") -> None:
    """All keys and shapes have to fit; else CheckpointError with counts by sub-module and a diagnosis."""
    own = model.state_dict()
    fit = compare(shapes_of(state), shapes_of(own))
    if not fit:
        raise misfit(model, state, fit, path)
    check_values(state, own, path)
    model.load_state_dict(state, strict=False)


def check_values(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], path: str) -> None:
    """Raises CheckpointError for tensors that cannot be copied into weights without changing their sense.

    Another floating type is fine: half precision widens exactly, double is rounded.
    """
    for key, value in state.items():
        wanted = own[key]
        if value.layout != torch.strided or value.is_quantized or value.is_complex():
            wrong = "%s, %s" % (str(value.dtype)[6:], "sparse" if value.layout != torch.strided else "dense")
        elif value.is_floating_point() != wanted.is_floating_point():
            wrong = str(value.dtype)[6:]
        else:
            continue
        raise CheckpointError(
            "%s: %s is %s, the model's is %s" % (path, key, wrong, str(wanted.dtype)[6:]),
            "It was quantised or damaged after training.",
            "Give the checkpoint that the training wrote.",
        )


def check_finite(state: Mapping[str, torch.Tensor], path: str) -> None:
    """Raises CheckpointError for NaN and infinity."""
    broken = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(
            "%d weights of %s are not finite numbers, first %s" % (len(broken), path, broken[0]),
            "The training had diverged when it was saved.",
            "Use an earlier checkpoint.",
        )


def misfit(model: nn.Module, state: Dict[str, torch.Tensor], fit: Fit, path: str) -> CheckpointError:
    """What differs, by sub-module, what the file looks like, and what to do with it."""
    own = model.state_dict()
    config = getattr(model, "config", None)
    theirs, ours = shapes_of(state), shapes_of(own)
    lacking = "%d of the model's %d weights missing" % (len(fit.missing), len(own))
    parts = [
        (lacking, by_module(fit.missing)),
        ("%d unknown to it" % len(fit.unexpected), by_module(fit.unexpected)),
        ("%d of another shape" % len(fit.reshaped), describe_shapes(fit.reshaped, theirs, ours)),
    ]
    said = "; ".join("%s (%s)" % (count, detail) for count, detail in parts if detail)
    verdict = diagnose(theirs, preset_tables())
    return CheckpointError(
        "%s does not fit %s: %s." % (path, getattr(config, "name", "the model"), said),
        "It looks like %s." % verdict.text,
        _advice(verdict, config, path),
    )


def _advice(verdict: Verdict, config: Optional[Config], path: str) -> str:
    name = config.name if config is not None else "CONFIG"
    if verdict.preset == name:
        return "The preset fits; leave out the --cfg-options that change the model's size."
    if verdict.preset:
        return "Give %s instead of %s." % (verdict.preset, name)
    if verdict.kind in ("fcos3d", "imagenet", "backbone", "image_detector"):
        start = name if name in verdict.starts else "|".join(verdict.starts)
        if not start:
            return "It is no detector to evaluate, and its backbone is that of no preset."
        return "It is no detector to evaluate; start a training from it: bevrepro train %s --init-from %s" % (
            start,
            path,
        )
    if verdict.kind == "ema":
        return "Save a copy with the weights you want under the model's own keys, and no others."
    if verdict.kind == "prefixed":
        return "Save a copy without the prefix."
    if verdict.kind in ("bevformer_v2", "derived", "detector", "lidar"):
        return "Evaluate it with the code it was trained with; this one has no such model."
    return "Give the configuration it was trained with, or a checkpoint of this model."


def notes_on(path: str, meta: Mapping[str, Any], config: Config) -> List[str]:
    """What somebody who evaluates this file should know and its keys do not show."""
    notes = []
    stem, ending = os.path.splitext(path)
    if not stem.endswith("_ema") and os.path.isfile(stem + "_ema" + ending):
        notes.append(
            "Beside it lies %s: a moving average usually scores higher; the plain weights are used."
            % os.path.basename(stem + "_ema" + ending)
        )
    if trained_with(meta) == NEW:
        notes.append(str(note_on(meta)))
    if _is_of_2022(meta) and not config.encoder.shift_current_reference:
        notes.append(
            "The file is from 2022. Weights trained before upstream's commit 66b65f3 had the current frame's"
            " reference points shifted as well; nothing in a file says which it is. To evaluate it that way: "
            "--cfg-options encoder.shift_current_reference=true"
        )
    return notes


def _is_of_2022(meta: Mapping[str, Any]) -> bool:
    """By the time it was saved; without one, by an mmcv that was current until then."""
    year = re.search(r"\b20\d\d\b", str(meta.get("time", "")))
    if year:
        return int(year.group()) <= 2022
    return re.match(r"1\.[3-7]\.", str(meta.get("mmcv_version", ""))) is not None


def _some(mapping: Any) -> str:
    return ", ".join(list(map(str, mapping))[:5]) if isinstance(mapping, dict) else type(mapping).__name__


def _on_cpu(value: Any) -> Any:
    """Nested dicts and lists with every tensor copied to the CPU, contiguous."""
    if torch.is_tensor(value):
        return value.detach().cpu().contiguous()
    if isinstance(value, dict):
        return type(value)((key, _on_cpu(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(_on_cpu(item) for item in value)
    return value


def count_parameters(model: nn.Module) -> Tuple[int, int]:
    """(all, trainable)."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)
