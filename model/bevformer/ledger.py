"""The fidelity ledger: every departure of a run from its recipe, and what it does to the result."""

from typing import Any, Dict, List, Mapping, Optional, Sequence

import torch

from .amp import FULL, Precision
from .config import Config
from .init_weights import departures
from .pixels import choose
from .ranks import ALONE, Ranks
from .runstate import Options

# Mildest first (DESIGN.md).
IDENTICAL, ROUNDING, STATISTICS, CHANGES = (
    "identical",
    "equal up to rounding",
    "same statistics",
    "changes the result",
)


def ledger_entry(what: str, effect: str, why: str) -> Dict[str, Any]:
    """One line: what differs from the recipe, its effect on the result, and why."""
    return {"what": what, "effect": effect, "why": why}


def fidelity_ledger(
    config: Config,
    options: Options,
    device: torch.device,
    init: Optional[Mapping[str, Any]] = None,
    ranks: Ranks = ALONE,
    precision: Precision = FULL,
    memory: Sequence[Mapping[str, Any]] = (),
    atomic: Sequence[str] = (),
) -> List[Dict[str, Any]]:
    """Every departure of this run from its recipe.  `init`: the record of its initial weights, if any;
    `memory`: entries about the memory ladder's rungs, of which one may be the precision; `atomic`: parts
    whose backward pass does not repeat bit for bit.
    """
    schedule, entries = config.schedule, []  # type: Any, List[Dict[str, Any]]
    if schedule.world_size != ranks.world:
        entries.append(
            ledger_entry(
                "batch of %d instead of %d"
                % (schedule.samples_per_gpu * ranks.world, schedule.samples_per_gpu * schedule.world_size),
                CHANGES,
                "the recipe is for %d ranks, this run has %d" % (schedule.world_size, ranks.world),
            )
        )
    if len(ranks.mine) > 1:
        entries.append(
            ledger_entry(
                "%d ranks one after another on each device" % len(ranks.mine),
                ROUNDING,
                "gradients add up in another order; divisor, random streams and sampler are the ranks' own",
            )
        )
    if not any(entry.get("amp") for entry in memory):
        entries += _of_precision(schedule.fp16_loss_scale, precision, device)
    entries += [ledger_entry(what, CHANGES, why) for what, why in departures(config, init)]
    entries += _of_images(config, device)
    if (options.deterministic or config.ops.deterministic) and atomic:
        asked = "--deterministic" if options.deterministic else "ops.deterministic=True"
        entries.append(
            ledger_entry(
                "not bit for bit in spite of " + asked,
                ROUNDING,
                "no deterministic backward pass here: " + ", ".join(atomic),
            )
        )
    return entries + [dict(entry) for entry in memory]


def _of_images(config: Config, device: torch.device) -> List[Dict[str, Any]]:
    """What another decoder, and finishing images on the device, do to them."""
    entries, data = [], config.data
    if config.ops.decoder == "cv2-half":
        why = "JPEGs lose their finest detail before they are scaled: 0.3 of 255 in the mean"
        entries.append(ledger_entry("images decoded at half size", CHANGES, why))
    if config.ops.decoder == "simplejpeg":
        from .data.decoders import same_pixels

        same = same_pixels()
        why = "on pictures of several qualities it gave %s pixels as OpenCV here"
        effect = IDENTICAL if same else STATISTICS
        entries.append(
            ledger_entry("images decoded by simplejpeg", effect, why % ("the same" if same else "other"))
        )
    if choose(config.ops.pixels, device.type) == "device":
        exact = data.scale == 1.0 and not data.photometric
        entries.append(
            ledger_entry(
                "images finished on the device instead of in OpenCV",
                IDENTICAL if exact else ROUNDING,
                "bytes and draws are the same; HSV colours and scaling differ by less than 1e-3 of 255",
            )
        )
    return entries


def _of_precision(recipe_scale: float, precision: Precision, device: torch.device) -> List[Dict[str, Any]]:
    """Nothing where the run trains in what its recipe says."""
    recipe = "fp16" if recipe_scale else "fp32"
    if precision.kind == recipe:
        return []
    asked = "the CPU has no fast fp16" if recipe == "fp16" and device.type == "cpu" else "--amp asks for it"
    if precision.kind == "fp16":
        asked += "; the loss scale adapts, since the recipe has none"
    effect = ROUNDING if (precision.kind, recipe) == ("fp64", "fp32") else STATISTICS
    return [ledger_entry("%s instead of %s" % (precision.kind, recipe), effect, asked)]


def of_environments(sessions: Sequence[Mapping[str, Any]]) -> List[Dict[str, Any]]:
    """An entry where a run went on with another torch.  sessions: of run.json."""
    told: List[str] = []
    for session in sessions:
        torch_then = (session.get("versions") or {}).get("torch")
        target = (session.get("environment") or {}).get("target")
        text = "torch %s%s" % (torch_then, " (%s)" % target if target else "")
        if torch_then and text.split(" (")[0] not in [each.split(" (")[0] for each in told[-1:]]:
            told.append(text)
    if len(told) < 2:
        return []
    why = "%s: each adds up in its own order" % ", then ".join(told)
    return [ledger_entry("went on in another environment", ROUNDING, why)]
