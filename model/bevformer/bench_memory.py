"""`python -m bevformer.bench_memory`: predicted memory of a training step, rung by rung, and how it compares
with what the CPU's allocator gave out in real steps.

    python -m bevformer.bench_memory [--presets NAME...] [--calibrate NAME...] [--cfg-options K=V...]
                                     [--out FILE]

Predictions need no memory; calibration does (tiny: 4 GB).  Writes JSON to --out, else to stdout; presets that
are not asked for stay as they are in FILE.
"""

import argparse
import json
import os
import sys
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import torch
from torch import nn

from .allocated import allocated_peak_b
from .atomic import write_atomically
from .config import Config, override, preset
from .detector import build_model
from .nominal import image_size, nominal_sample
from .plan import GIB, Ghost, plan
from .record import host_summary, now_text, versions
from .rungs import apply_rungs, rungs_for
from .talk import Talk

ALWAYS = ("weights", "optimiser state")  # are there before the step
PRESETS, CALIBRATED = (
    ("bevformer_tiny", "bevformer_small", "bevformer_base"),
    ("bevformer_micro", "bevformer_tiny"),
)
ABOUT = (
    "GiB of 2**30 bytes, samples_per_gpu of the preset, float32 unless a row says bf16. ladder_gib: predicted"
    " on the meta device, each row on top of those before it. calibration: the same without weights"
    " and optimiser state, against the allocations that torch's profiler saw in a real step on the CPU."
)


def main(argv: Sequence[str], talk: Talk) -> int:
    parser = argparse.ArgumentParser(prog="bench_memory", description="Predicted and allocated memory.")
    parser.add_argument("--presets", nargs="*", default=PRESETS, metavar="NAME")
    parser.add_argument("--calibrate", nargs="*", default=CALIBRATED, metavar="NAME")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="for all of them")
    parser.add_argument("--out", metavar="FILE", help="default: stdout")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    result: Dict[str, Any] = {"about": ABOUT, "calibration": {}, "ladder_gib": {}}
    if args.out and os.path.exists(args.out):  # what is not measured now stays
        with open(args.out) as file:
            result = json.load(file)
    for name in args.presets:
        config = override(preset(name), args.cfg_options)
        result["ladder_gib"][" ".join([name, *args.cfg_options])] = dict(ladder(config, talk), **_made())
        _write(result, args.out)
    for name in args.calibrate:
        config = override(preset(name), args.cfg_options)
        rows = calibration(config, talk)
        result["calibration"][" ".join([name, *args.cfg_options])] = dict(_made(), rows=rows)
        _write(result, args.out)
    return 0


def _made() -> Dict[str, Any]:
    return {"host": host_summary(torch.device("cpu")), "versions": versions(), "time": now_text()}


def _write(result: Dict[str, Any], out: Optional[str]) -> None:
    """After every preset, since the large ones take minutes."""
    text = json.dumps(result, indent=2) + "\n"
    if out:
        write_atomically(out, text)
    else:
        sys.stdout.write(text)


def ladder(config: Config, talk: Talk) -> Dict[str, Any]:
    """Peaks: without rungs, each on top of those before it, and with bf16 and smaller models."""
    found = plan(config, None, talk)
    rows = [*found["rungs"], *found["others"]]
    return {
        "none": round(found["memory"]["peak_gib"], 3),
        "phases": {phase: round(gib, 3) for phase, gib in found["memory"]["phases_gib"].items()},
        "dcn_backend": found["memory"]["dcn_backend"],
        "rungs": [
            {"name": row["name"], "effect": row["effect"], "peak_gib": round(row["peak_gib"], 3)}
            for row in rows
        ],
    }


def calibration(config: Config, talk: Talk) -> List[Dict[str, Any]]:
    """Per rung, on top of those before it: predicted and allocated, weights and optimiser state apart."""
    ghost, model, rows = Ghost(config), build_model(config).train(), []
    sample = nominal_sample(config, image_size(config))
    for each in (None, *rungs_for(model)):
        if each is not None:
            ghost.take(each)
            apply_rungs(model, [each.name])
        memory = ghost.measure()
        predicted = memory["peak_gib"] - sum(memory["parts_gib"][part] for part in ALWAYS)
        model.zero_grad(set_to_none=True)
        allocated = allocated_peak_b(lambda: _step(model, sample)) / GIB
        rows.append(
            {
                "rung": each.name if each else "none",
                "predicted_gib": round(predicted, 4),
                "allocated_gib": round(allocated, 4),
                "ratio": round(predicted / allocated, 4),
            }
        )
        talk.note("%s %s" % (config.name, rows[-1]))
    return rows


def _step(model: nn.Module, sample: Any) -> None:
    losses: Dict[str, torch.Tensor] = model.loss(sample, np.random.RandomState(0))  # type: ignore[operator]
    torch.stack(list(losses.values())).sum().backward()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Talk(events=False)))
