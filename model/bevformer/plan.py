"""`plan`: the memory that a training step takes at its worst moment, measured before there is a GPU.

    plan CONFIG [--cfg-options head.num_query=300 ...] [--limit-gib 12] [--time]

One whole step - the history frames, the forward pass, the backward pass - runs on the meta device while
`LiveBytes` follows every storage: as it is, and with the memory rungs (`rungs`) one on top of the other.  The
first that fits --limit-gib is chosen among those that leave the result as it is, to the bit or up to
rounding.  What changes it is measured too where nothing else fits, named, and never chosen.
"""

import argparse
import contextlib
from typing import Any, ContextManager, Dict, Iterable, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .config import PRESETS, Config, override
from .describe import (
    GIB,
    OPTIMIZER_TENSORS,
    attention_backend,
    dcn_backend,
    place_attention,
    place_dcn,
    watch_parts,
)
from .detector import BEVFormer, build_model
from .errors import UserError
from .gradients import build_gradients
from .ledger import ROUNDING
from .nominal import image_size, nominal_meta
from .rungs import Rung, apply_rungs, asked_by, other_models, rung, rungs_for
from .talk import Talk

LEAST_TORCH = (2, 1)  # the first whose storages keep their identity in Python
HISTORY_FRAMES = 2  # the first has no map before it, all others are alike
MEASURED = (
    "One training step in float32, every storage from the operator that makes it until nothing holds it"
    " (a TorchDispatchMode on the meta device), with the cameras of a nuScenes car."
    " Input, history, weights, gradients and optimiser state are in it; the losses (a few MB) are not."
)
NOT_INCLUDED = "Not included: workspace inside kernels, the allocator's fragmentation, the CUDA context."


def main(argv: Sequence[str], talk: Talk) -> int:
    from .evaluate import read_config

    parser = argparse.ArgumentParser(prog="plan", description="Peak memory of a training step.")
    parser.add_argument("config", help="a preset, a work folder's config.json, or an upstream .py file")
    parser.add_argument("--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    parser.add_argument("--limit-gib", type=float, help="what tensors may take; chooses what fits")
    parser.add_argument("--time", action="store_true", help="time a step here, if that is short")
    args = parser.parse_args(argv)
    _check_torch()
    config = override(read_config(args.config, talk), args.cfg_options)
    result = plan(config, args.limit_gib, talk)
    if args.time:
        from .pace import pace_here

        result["pace"] = pace_here(config, result["chosen"] or [], talk)
    talk.result(**result)
    return 0


def plan(config: Config, limit_gib: Optional[float], talk: Talk) -> Dict[str, Any]:
    """Everything as JSON; sizes in GiB of 2**30 bytes.

    rungs: each on top of those before it.  chosen: names of the rungs that fit the limit, None where there is
    no limit or none fit.  others: measured on top of all rungs that leave the result as it is.
    """
    ghost = Ghost(config)
    mild = rungs_for(ghost.model, ROUNDING)
    memory, rungs = ghost.measure(), []
    for done, each in enumerate(mild, 1):
        talk.progress("plan", done, 2 + len(mild), each.what)
        ghost.take(each)
        rungs.append(_row(each, ghost.measure()))
    names = [each.name for each in mild]
    chosen = choose(memory["peak_gib"], rungs, limit_gib)
    others = []
    if limit_gib is None or chosen is None:
        talk.progress("plan", 1 + len(mild), 2 + len(mild), "other models")
        others = _others(config, ghost, names, limit_gib)
    talk.progress("plan", 2 + len(mild), 2 + len(mild))
    schedule = config.schedule
    return {
        "config": config.name,
        "as_published": config.name in PRESETS and config == PRESETS[config.name](),
        "memory": memory,
        "rungs": rungs,
        "limit_gib": limit_gib,
        "chosen": chosen,
        "others": others,
        "schedule": {
            "max_epochs": schedule.max_epochs,
            "max_steps": schedule.max_steps,
            "batch": schedule.samples_per_gpu * schedule.world_size,
        },
    }


def choose(
    plain_gib: float, rungs: Sequence[Dict[str, Any]], limit_gib: Optional[float]
) -> Optional[List[str]]:
    """The names of the fewest rungs, in their order, with which it fits; [] where none is needed."""
    if limit_gib is None:
        return None
    for count, peak_gib in enumerate([plain_gib, *(row["peak_gib"] for row in rungs)]):
        if peak_gib <= limit_gib:
            return [row["name"] for row in rungs[:count]]
    return None


def _others(
    config: Config, ghost: "Ghost", names: Sequence[str], limit_gib: Optional[float]
) -> List[Dict[str, Any]]:
    """bf16, then smaller models, each on top of those before it, until one fits."""
    bf16 = rung("bf16")
    rows = [_row(bf16, ghost.measure(amp=True))]
    options: List[str] = []
    for each in other_models(config):
        if limit_gib is not None and rows[-1]["peak_gib"] <= limit_gib:
            break
        options = options + list(each.cfg_options)
        rows.append(_row(each, peak_memory(override(config, options), names, amp=True)))
    return rows


def _row(each: Rung, memory: Dict[str, Any]) -> Dict[str, Any]:
    return {
        "name": each.name,
        "what": each.what,
        "effect": each.effect,
        "ask": asked_by(each),
        "peak_gib": memory["peak_gib"],
        "worst_phase": memory["worst_phase"],
    }


def peak_memory(config: Config, rungs: Iterable[str] = (), amp: bool = False) -> Dict[str, Any]:
    """Peak of a training step in GiB: by phase, and by what the worst moment is made of.

    rungs: names, of the classes identical and rounding.  amp: autocast to bf16, as on a GPU.
    """
    ghost = Ghost(config)
    for name in rungs:
        ghost.take(rung(name))
    return ghost.measure(amp)


class Ghost:
    """A model without memory, on the meta device, with the rungs it has been given so far."""

    def __init__(self, config: Config) -> None:
        self.config = config
        model = build_model(config).train()
        self.dcn_backend = dcn_backend(model)
        weights_b = sum(t.numel() * t.element_size() for t in model.state_dict().values())
        trained_b = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        self.always_b = {"weights": weights_b, "optimiser state": OPTIMIZER_TENSORS * trained_b}
        self.attention_backend = attention_backend(model)
        self.model = model.to("meta")
        place_attention(self.model, self.attention_backend)
        place_dcn(self.model, self.dcn_backend)

    def take(self, each: Rung) -> None:
        apply_rungs(self.model, [each.name])

    def measure(self, amp: bool = False) -> Dict[str, Any]:
        """One step; see `peak_memory`."""
        phases = measure_phases(self.config, self.model, amp)
        self.model.zero_grad(set_to_none=True)
        worst = max(phases, key=lambda name: phases[name][0])
        parts = dict(self.always_b, **phases[worst][1])
        always_b = sum(self.always_b.values())
        return {
            "peak_gib": (always_b + phases[worst][0]) / GIB,
            "worst_phase": worst,
            "phases_gib": {name: (always_b + size_b) / GIB for name, (size_b, _) in phases.items()},
            "parts_gib": {label: size_b / GIB for label, size_b in parts.items() if size_b},
            "samples": self.config.schedule.samples_per_gpu,
            "queue_length": self.config.data.queue_length,
            "dcn_backend": self.dcn_backend,
            "attention_backend": self.attention_backend,
            "measured": MEASURED,
            "not_included": NOT_INCLUDED,
        }


def measure_phases(
    config: Config, ghost: BEVFormer, amp: bool = False
) -> Dict[str, Tuple[int, Dict[str, int]]]:
    """Phase -> (peak bytes, bytes by label at that moment) of one step, without weights and optimiser."""
    from .live import LiveBytes

    live = LiveBytes([*ghost.parameters(), *ghost.buffers()])
    watch_parts(live, ghost)
    size, batch = image_size(config), config.schedule.samples_per_gpu
    metas = [nominal_meta(size)] * batch
    shape = (batch, config.transformer.num_cams, 3, *size.padded_hw)
    phases = {}
    with live, _autocast(amp):
        live.label = "gradients"
        build_gradients(config.ops.gradients).clear(ghost)
        live.label = "images and embeddings"
        bev = None
        ghost.eval()
        with torch.no_grad():  # as BEVFormer.history does
            for _ in range(min(config.data.queue_length - 1, HISTORY_FRAMES)):
                bev = ghost.pts_bbox_head.bev(ghost.features(torch.empty(shape, device="meta")), metas, bev)
        phases["history"] = live.take_peak()
        ghost.train()
        outputs = ghost(torch.empty(shape, device="meta"), metas, bev)
        total = sum(each.float().sum() for each in [*outputs.logits_LBOK, *outputs.codes_LBOD])
        del outputs, bev
        phases["forward pass"] = live.take_peak()
        live.label = "gradients"
        _backward(total)
        phases["backward pass"] = live.take_peak()
    live.unwatch()
    return phases


def _backward(total: Tensor) -> None:
    """total.backward() by the engine itself: torch's Python around it leaves function modes, GhostAutocast
    among them, and what is recomputed would run without.
    """
    engine: Any = torch.autograd.Variable._execution_engine
    arguments = dict(allow_unreachable=True, accumulate_grad=True)
    engine.run_backward((total,), (torch.ones_like(total),), False, False, (), **arguments)


def _autocast(amp: bool) -> ContextManager[Any]:
    if not amp:
        return contextlib.nullcontext()
    from .ghost_autocast import GhostAutocast

    return GhostAutocast(torch.bfloat16)


def _check_torch() -> None:
    """Raises UserError on a torch whose live bytes cannot be followed."""
    version = torch.__version__.split("+")[0].split(".")
    if (int(version[0]), int(version[1])) < LEAST_TORCH:
        raise UserError(
            "plan measures with torch 2.1 or newer; this is %s" % torch.__version__,
            "Older ones do not tell when a tensor's memory is given back.",
            "Name an interpreter with a newer torch in BEVREPRO_PYTHON, or see `bevrepro eval --describe`.",
        )
