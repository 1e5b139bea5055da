"""`plan`: the memory that a training step takes at its worst moment, measured before there is a GPU.

    plan CONFIG [--cfg-options head.num_query=300 ...] [--limit-gib 12]

One whole step - the history frames, the forward pass, the backward pass - runs on the meta device while
`LiveBytes` follows every storage. With --limit-gib, where that is too much, smaller models are measured
until one fits; each of them changes the model, so it is named and never chosen.
"""

import argparse
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch

from .config import Config, override
from .describe import GIB, OPTIMIZER_TENSORS, dcn_backend, place_dcn, watch_parts
from .detector import BEVFormer, build_model
from .errors import UserError
from .nominal import image_size, nominal_meta
from .talk import Talk

LEAST_TORCH = (2, 1)  # the first whose storages keep their identity in Python
MEASURED = (
    "One training step in float32, every storage from the operator that makes it until nothing holds it"
    " (a TorchDispatchMode on the meta device), with the cameras of a nuScenes car."
    " Input, history, weights, gradients and optimiser state are in it; the losses (a few MB) are not."
)
NOT_INCLUDED = "Not included: workspace inside kernels, the allocator's fragmentation, the CUDA context."
SHRINK_BEV, SHRINK_IMAGE = 0.5, 0.5


def main(argv: Sequence[str], talk: Talk) -> int:
    from .evaluate import read_config

    parser = argparse.ArgumentParser(prog="plan", description="Peak memory of a training step.")
    parser.add_argument("config", help="a preset, a work folder's config.json, or an upstream .py file")
    parser.add_argument("--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--limit-gib", type=float, help="what may be taken; looks for what fits if it is less"
    )
    args = parser.parse_args(argv)
    _check_torch()
    config = override(read_config(args.config, talk), args.cfg_options)
    talk.result(**plan(config, args.limit_gib, talk))
    return 0


def plan(config: Config, limit_gib: Optional[float], talk: Talk) -> Dict[str, Any]:
    """Everything as JSON; sizes in GiB of 2**30 bytes.  `smaller`: what was measured after it did not fit."""
    choices = smaller_models(config) if limit_gib is not None else []
    talk.progress("plan", 0, 1 + len(choices))
    memory = peak_memory(config)
    smaller: List[Dict[str, Any]] = []
    if limit_gib is not None and memory["peak_gib"] > limit_gib:
        for done, (what, options) in enumerate(choices, 1):
            talk.progress("plan", done, 1 + len(choices), what)
            peak_gib = peak_memory(override(config, options))["peak_gib"]
            smaller.append({"what": what, "cfg_options": options, "peak_gib": peak_gib})
            if peak_gib <= limit_gib:
                break
    talk.progress("plan", 1 + len(choices), 1 + len(choices))
    return {"config": config.name, "memory": memory, "limit_gib": limit_gib, "smaller": smaller}


def peak_memory(config: Config) -> Dict[str, Any]:
    """Peak of a training step in GiB: by phase, and by what the worst moment is made of."""
    model = build_model(config).train()
    backend = dcn_backend(model)
    weights_b = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    trained_b = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    ghost = model.to("meta")
    place_dcn(ghost, backend)
    phases = measure_phases(config, ghost)
    always = {"weights": weights_b, "optimiser state": OPTIMIZER_TENSORS * trained_b}
    worst = max(phases, key=lambda name: phases[name][0])
    parts = dict(always, **phases[worst][1])
    return {
        "peak_gib": (sum(always.values()) + phases[worst][0]) / GIB,
        "worst_phase": worst,
        "phases_gib": {name: (sum(always.values()) + size_b) / GIB for name, (size_b, _) in phases.items()},
        "parts_gib": {label: size_b / GIB for label, size_b in parts.items() if size_b},
        "samples": config.schedule.samples_per_gpu,
        "queue_length": config.data.queue_length,
        "dcn_backend": backend,
        "measured": MEASURED,
        "not_included": NOT_INCLUDED,
    }


def measure_phases(config: Config, ghost: BEVFormer) -> Dict[str, Tuple[int, Dict[str, int]]]:
    """Phase -> (peak bytes, bytes by label at that moment) of one step, without weights and optimiser."""
    from .live import LiveBytes

    live = LiveBytes([*ghost.parameters(), *ghost.buffers()])
    watch_parts(live, ghost)
    size, batch = image_size(config), config.schedule.samples_per_gpu
    metas = [nominal_meta(size)] * batch
    shape = (batch, config.transformer.num_cams, 3, *size.padded_hw)
    phases = {}
    with live:
        live.label = "images and embeddings"
        bev = None
        ghost.eval()
        with torch.no_grad():  # as BEVFormer.history does
            for _ in range(config.data.queue_length - 1):
                bev = ghost.pts_bbox_head.bev(ghost.features(torch.empty(shape, device="meta")), metas, bev)
        phases["history"] = live.take_peak()
        ghost.train()
        outputs = ghost(torch.empty(shape, device="meta"), metas, bev)
        total = sum(each.sum() for each in [*outputs.logits_LBOK, *outputs.codes_LBOD])
        del outputs, bev
        phases["forward pass"] = live.take_peak()
        live.label = "gradients"
        total.backward()
        phases["backward pass"] = live.take_peak()
    return phases


def smaller_models(config: Config) -> List[Tuple[str, List[str]]]:
    """Changes, each on top of those before it.  A shorter queue saves nothing: history is run by frame."""
    encoder, data = config.encoder, config.data
    steps: List[Tuple[str, List[str]]] = []
    if config.schedule.samples_per_gpu > 1:
        steps.append(("one sample at a time (changes the effective batch)", ["schedule.samples_per_gpu=1"]))
    grid = [int(encoder.bev_h * SHRINK_BEV), int(encoder.bev_w * SHRINK_BEV)]
    steps.append(("half the BEV grid", ["encoder.bev_h=%d" % grid[0], "encoder.bev_w=%d" % grid[1]]))
    steps.append(("half the image size", ["data.scale=%g" % (data.scale * SHRINK_IMAGE)]))
    chosen: List[Tuple[str, List[str]]] = []
    options: List[str] = []
    for what, more in steps:
        options = options + more
        chosen.append((what, options))
    return chosen


def _check_torch() -> None:
    """Raises UserError on a torch whose live bytes cannot be followed."""
    version = torch.__version__.split("+")[0].split(".")
    if (int(version[0]), int(version[1])) < LEAST_TORCH:
        raise UserError(
            "plan measures with torch 2.1 or newer; this is %s" % torch.__version__,
            "Older ones do not tell when a tensor's memory is given back.",
            "Name an interpreter with a newer torch in BEVREPRO_PYTHON, or see `bevrepro eval --describe`.",
        )
