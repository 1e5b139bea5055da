"""How a run computes the same model: what `auto` of config.OpsConfig came to, and the ledger's entries of it.

The recipe is computed as upstream does it: mmcv's operators (grid_sample on a CPU), all six images at once,
batch norms of their own, one AdamW kernel for each operation and parameter.
"""

from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import torch

from .backbone import ResNet
from .extractor import channels_last, images_at_once, switched
from .gradients import build_gradients
from .ledger import IDENTICAL, ROUNDING, ledger_entry
from .nominal import image_size

CAMERAS = 6
OTHER_ORDER = "the same sums in another order"
# What upstream's code calls on that kind of device; mmcv's attention is grid_sample on a CPU.
UPSTREAM = {"cuda": ("mmcv",), "cpu": ("mmcv", "reference")}
PARTS = {
    "attention": ("deformable attention", "grid_sample"),
    "dcn": ("deformable convolution", "plain torch"),
}
RUNG_OF = {"attention": "fused-attention"}


def levers_record(
    model: Any, optimizer: torch.optim.Optimizer, dtype: Optional[torch.dtype]
) -> Dict[str, Any]:
    """dtype: what autocast computes in, None without it.  cameras_at_once: for images of the preset's size.
    Empty for a model without a backbone of its own.
    """
    backbone, config = getattr(model, "img_backbone", None), getattr(model, "config", None)
    if backbone is None or config is None:
        return {}
    weight, ops = next(backbone.parameters()), config.ops
    resnet, folded = isinstance(backbone, ResNet), switched("folded_norms", ops.folded_norms, True)
    kinds = [name for name in ("fused", "foreach") if optimizer.defaults.get(name)]
    height, width = image_size(config).padded_hw
    at_once = images_at_once(ops.cameras_at_once, weight.device.type, height, width) or CAMERAS
    return {
        "channels_last": channels_last(
            ops.channels_last, backbone, weight.device.type, dtype or weight.dtype
        ),
        "folded_norms": "off" if not (resnet and folded) else "all" if backbone.fold_norms else "history",
        "cameras_at_once": min(at_once, CAMERAS),
        "adamw": kinds[0] if kinds else ops.adamw,
        "gradients": build_gradients(ops.gradients).kind,
    }


def levers_entries(
    operators: Mapping[str, str],
    levers: Mapping[str, Any],
    device_type: str,
    processes: int = 1,
    rungs: Sequence[str] = (),
) -> List[Dict[str, Any]]:
    """For the ledger.  operators: of `operators_record`; levers: of `levers_record`; rungs: those in use, of
    which each has an entry of its own.
    """
    chosen = {part: name for part, name in operators.items() if RUNG_OF.get(part) not in rungs}
    found = [*_of_operators(chosen, device_type), *_of_levers(levers, processes)]
    return [dict(ledger_entry(what, effect, why), lever=lever) for lever, what, effect, why in found]


def levers_sentence(entries: Sequence[Mapping[str, Any]]) -> str:
    """For a terminal, where each entry on its own would say the same again; "" without any."""
    if not entries:
        return ""
    what = ", ".join(str(entry["what"]) for entry in entries)
    rounds = any(entry["effect"] == ROUNDING for entry in entries)
    return "Computed with %s: %s." % (what, ROUNDING if rounds else IDENTICAL)


def _of_operators(operators: Mapping[str, str], device_type: str) -> Iterator[Tuple[str, str, str, str]]:
    for part, name in sorted(operators.items()):
        if name in UPSTREAM.get(device_type, ("mmcv",)):
            continue
        what, plain = PARTS[part]
        by = plain if name == "reference" else name
        checked = "" if name == "reference" else "; it gave the numbers of %s here before it ran" % plain
        yield part, "%s by %s" % (what, by), ROUNDING, OTHER_ORDER + checked


def _of_levers(levers: Mapping[str, Any], processes: int) -> Iterator[Tuple[str, str, str, str]]:
    if levers.get("channels_last"):
        why = "convolutions choose other kernels"
        yield "channels_last", "images with their channels last in memory", ROUNDING, why
    if levers.get("folded_norms", "off") != "off":
        where = "" if levers["folded_norms"] == "all" else " where nothing is trained"
        why = "one product with the weights instead of one with the maps"
        yield "folded_norms", "frozen batch norms folded into convolutions" + where, ROUNDING, why
    if levers.get("cameras_at_once", CAMERAS) < CAMERAS:
        what = "%d images at a time where nothing is trained" % levers["cameras_at_once"]
        yield "cameras_at_once", what, ROUNDING, "convolutions choose other kernels"
    if levers.get("adamw") in ("fused", "foreach"):
        by = "one kernel" if levers["adamw"] == "fused" else "one kernel for each operation"
        why = "the same formula, rounded otherwise"
        yield "adamw", "AdamW of all parameters by " + by, ROUNDING, why
    if levers.get("gradients") == "flat":
        effect = ROUNDING if processes > 2 else IDENTICAL
        why = "processes add it up in place" if processes > 1 else "nothing is added up otherwise"
        yield "gradients", "gradients in one buffer", effect, why
