"""The fidelity ledger: every departure of a run from its recipe, and what it does to the result."""

from typing import Any, Dict, List, Mapping, Optional

import torch

from .config import Config
from .init_weights import departures
from .ranks import ALONE, Ranks
from .runstate import Options

# Mildest first (DESIGN.md).
IDENTICAL, ROUNDING, STATISTICS, CHANGES = (
    "identical",
    "equal up to rounding",
    "same statistics",
    "changes the result",
)


def ledger_entry(what: str, effect: str, why: str) -> Dict[str, str]:
    """One line: what differs from the recipe, its effect on the result, and why."""
    return {"what": what, "effect": effect, "why": why}


def fidelity_ledger(
    config: Config,
    options: Options,
    device: torch.device,
    init: Optional[Mapping[str, Any]] = None,
    ranks: Ranks = ALONE,
) -> List[Dict[str, str]]:
    """Every departure of this run from its recipe.  `init`: the record of its initial weights, if any."""
    schedule, entries = config.schedule, []
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
    if schedule.fp16_loss_scale:
        entries.append(ledger_entry("fp32 instead of fp16", STATISTICS, "mixed precision is not there yet"))
    entries += [ledger_entry(what, CHANGES, why) for what, why in departures(config, init)]
    if options.deterministic and device.type == "cuda":
        entries.append(
            ledger_entry(
                "not bit for bit in spite of --deterministic",
                ROUNDING,
                "the backward pass of grid_sample has no deterministic CUDA version",
            )
        )
    return entries
