"""`python -m bevformer.bench memory`: predicted memory of a training step, rung by rung, and how it compares
with what the CPU's allocator gave out in real steps.

    python -m bevformer.bench memory [--preset base ...] [--calibrate [NAME...]] [--cfg-options K=V...]
                                     [--out FILE]

Predictions need no memory and no GPU; calibration needs memory (tiny: 4 GB).  Presets that are not asked for
stay as they are in FILE.
"""

import argparse
import os
import time
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import torch
from torch import nn

from .allocated import allocated_peak_b
from .atomic import write_atomically
from .bench_common import as_text, begin, finish, preset_of, row, short_name
from .bench_read import is_number, json_of
from .config import Config, override
from .describe import GIB
from .detector import build_model
from .errors import DataError
from .ledger import IDENTICAL
from .nominal import image_size, nominal_sample
from .plan import Ghost, plan
from .record import host_summary, now_text, versions
from .rungs import LADDER, apply_rungs, asked_by, rungs_for
from .talk import Talk

ALWAYS = ("weights", "optimiser state")  # are there before the step
PRESETS, CALIBRATED = ("tiny", "small", "base"), ("micro", "tiny")
WHAT = "peak of a training step"
HEADER = ("command", "time", "commit", "dirty", "host", "versions", "load_1m_before")
# At most so many GB of 1e9 bytes, of one sample and the preset's queue: with all rungs that leave the result
# as it is to the bit, and with bf16 on top.
GOALS_GB = {
    ("base", "identical"): 10.5,
    ("base", "bf16"): 7.0,
    ("tiny", "identical"): 2.0,
    ("tiny", "bf16"): 2.0,
}
OTHER_FILE = "Name another file for --out, or move this one away."
ABOUT = (
    "ladder_gib and calibration in GiB of 2**30 bytes, rows in GB of 1e9; samples_per_gpu of the preset,"
    " float32 unless a row says bf16. ladder_gib: predicted on the meta device, each row on top of those"
    " before it: parameters, optimiser, gradients, saved activations and the largest transient. calibration:"
    " the same without weights and optimiser state, against the allocations that torch's profiler saw in a"
    " real step on the CPU."
)


def main(argv: Sequence[str], talk: Talk) -> int:
    parser = argparse.ArgumentParser(prog="bench memory", description="Predicted and allocated memory.")
    parser.add_argument("--preset", "--presets", nargs="*", default=PRESETS, metavar="NAME")
    parser.add_argument(
        "--calibrate",
        nargs="*",
        metavar="NAME",
        help="against real steps (default: %s)" % " ".join(CALIBRATED),
    )
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="for all of them")
    parser.add_argument("--out", metavar="FILE", help="default: stdout")
    args = parser.parse_args(argv)
    calibrated = [] if args.calibrate is None else args.calibrate or CALIBRATED
    configs = {name: override(preset_of(name), args.cfg_options) for name in (*args.preset, *calibrated)}
    torch.manual_seed(0)
    header = begin("memory", argv, torch.device("cpu"), time.monotonic())
    kept = _earlier(args.out)
    if not args.preset:  # the rows stay those of the run before
        header.update(kept["header"])
    del kept["header"]
    for name in args.preset:
        label = " ".join([configs[name].name, *args.cfg_options])
        kept["ladder_gib"][label] = dict(ladder(configs[name], talk), **_made())
        for line in told(rows_of({label: kept["ladder_gib"][label]})):
            talk.note(line)
        _write(header, kept, args.out)
    for name in calibrated:
        label = " ".join([configs[name].name, *args.cfg_options])
        kept["calibration"][label] = dict(_made(), rows=calibration(configs[name], talk))
        _write(header, kept, args.out)
    talk.result(**({"out": args.out} if args.out else _document(header, kept)))
    return 0


def _earlier(out: Optional[str]) -> Dict[str, Any]:
    """What is not measured now stays.  Raises DataError for a file that is something else, and leaves it."""
    if not out or not os.path.exists(out):
        return {"header": {}, "ladder_gib": {}, "calibration": {}}
    try:
        found = json_of(out)
    except DataError as error:
        raise DataError(error.seen, "What it held cannot be kept.", OTHER_FILE) from error
    if not _is_ours(found):
        raise DataError(
            "%s is not from `bench memory`" % out,
            "Its content would be lost: that is kept and added to.",
            OTHER_FILE,
        )
    header = {key: found[key] for key in HEADER if key in found}
    return {"header": header, **{key: found.get(key, {}) for key in ("ladder_gib", "calibration")}}


def _is_ours(found: Any) -> bool:
    """Whether it holds ladders that rows can be made of."""
    if not isinstance(found, dict) or not isinstance(found.get("ladder_gib"), dict):
        return False
    if not isinstance(found.get("calibration", {}), dict):
        return False
    return all(isinstance(each, dict) and _is_ladder(each) for each in found["ladder_gib"].values())


def _is_ladder(found: Dict[str, Any]) -> bool:
    rungs = found.get("rungs")
    if not isinstance(rungs, list) or not all(isinstance(each, dict) for each in rungs):
        return False
    peaks = [found.get("none"), *(each.get("peak_gib") for each in rungs)]
    words = [each.get(key) for each in rungs for key in ("name", "effect")]
    return all(is_number(each) for each in peaks) and all(isinstance(each, str) for each in words)


def _made() -> Dict[str, Any]:
    return {"host": host_summary(torch.device("cpu")), "versions": versions(), "time": now_text()}


def _document(header: Dict[str, Any], kept: Dict[str, Any]) -> Dict[str, Any]:
    ladder = [dict(name=each.name, what=each.what, effect=each.effect, ask=asked_by(each)) for each in LADDER]
    return finish(header, rows_of(kept["ladder_gib"]), about=ABOUT, ladder=ladder, **kept)


def _write(header: Dict[str, Any], kept: Dict[str, Any], out: Optional[str]) -> None:
    """After every preset, since the large ones take minutes."""
    if out:
        write_atomically(out, as_text(_document(header, kept)))


def rows_of(ladders: Dict[str, Any]) -> List[Dict[str, Any]]:
    """The ladders as rows of `bench_common`'s schema, with the goals they have to meet."""
    rows = []
    for label, found in ladders.items():
        case = short_name(label)
        rungs = [dict(name="none", effect=IDENTICAL, peak_gib=found["none"]), *found["rungs"]]
        exact = [rung["name"] for rung in rungs if rung["effect"] == IDENTICAL][-1]
        for rung in rungs:
            gb = rung["peak_gib"] * GIB / 1e9
            key = "identical" if rung["name"] == exact else rung["name"]
            goal = GOALS_GB.get((case, key))
            more = {} if goal is None else dict(goal=goal, met=gb <= goal)
            rows.append(row(case, WHAT, rung["name"], [gb], "GB", effect=rung["effect"], **more))
    return rows


def told(rows: Sequence[Dict[str, Any]]) -> List[str]:
    lines = []
    for each in rows:
        goal = (
            ""
            if "goal" not in each
            else "   at most %g: %s" % (each["goal"], "met" if each["met"] else "MISSED")
        )
        lines.append(
            "%-6s %-18s %7.2f GB  %s%s" % (each["case"], each["who"], each["median"], each["effect"], goal)
        )
    return lines


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
    # The ghost counts grid_sample until the rung fused-attention, whatever would run here.
    config, rows = override(config, ["ops.attention=reference"]), []
    ghost, model = Ghost(config), build_model(config).train()
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
