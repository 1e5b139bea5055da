"""AdamW and its schedule as the reference trains (facts: bevformer.md, Presets; mmcv 1.x hooks).

The learning rate is a pure function of the step, so a resumed run needs no scheduler state.
"""

import inspect
import math
from typing import Any, Dict, List

import torch
from torch import nn

from .config import ScheduleConfig
from .errors import ConfigError

BACKBONE = "img_backbone"


def param_groups(model: nn.Module, schedule: ScheduleConfig) -> List[Dict[str, Any]]:
    """Two groups, `initial_lr` at their full rate: trainable backbone parameters at lr * backbone_lr_mult,
    everything else at lr.

    Frozen backbone parameters sit in the second group: upstream's constructor adds what does not require a
    gradient before it looks at the multiplier.  AdamW never touches them.
    """
    backbone, rest = [], []  # type: List[nn.Parameter], List[nn.Parameter]
    for name, parameter in model.named_parameters():
        (backbone if BACKBONE in name and parameter.requires_grad else rest).append(parameter)
    groups = [
        {"name": "backbone", "params": backbone, "initial_lr": schedule.lr * schedule.backbone_lr_mult},
        {"name": "rest", "params": rest, "initial_lr": schedule.lr},
    ]
    return [dict(group, lr=group["initial_lr"]) for group in groups if group["params"]]


def build_optimizer(model: nn.Module, schedule: ScheduleConfig) -> torch.optim.AdamW:
    """AdamW (eps 1e-8) over `param_groups`; the fused kernel where every parameter can use it."""
    options = dict(lr=schedule.lr, betas=tuple(schedule.betas), weight_decay=schedule.weight_decay, eps=1e-8)
    groups = param_groups(model, schedule)
    if not groups:
        raise ConfigError("the model has no parameters to train")
    if _fused_available(groups):
        options["fused"] = True
    return torch.optim.AdamW(groups, **options)  # type: ignore[arg-type]


def _fused_available(groups: List[Dict[str, Any]]) -> bool:
    if "fused" not in inspect.signature(torch.optim.AdamW.__init__).parameters:
        return False
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    kinds = {parameter.device.type for group in groups for parameter in group["params"]}
    return kinds == {"cuda"} or (kinds == {"cpu"} and version >= (2, 4))  # fused on the CPU came with 2.4


def lr_factor(schedule: ScheduleConfig, step: int, steps_per_epoch: int) -> float:
    """What every group's `initial_lr` is multiplied by at optimiser step `step` (0, 1, ...).

    Cosine from 1 to `min_lr_ratio`, set once per epoch, or per step where `max_steps` fixes the length;
    on top of it a linear warm-up from `warmup_ratio` to 1 over `warmup_steps` iterations.
    """
    if schedule.max_steps:
        done = step / schedule.max_steps
    else:
        done = (step // steps_per_epoch) / schedule.max_epochs
    low = schedule.min_lr_ratio
    cosine = low + 0.5 * (1.0 - low) * (1.0 + math.cos(math.pi * min(done, 1.0)))
    if step >= schedule.warmup_steps:
        return cosine
    missing = (1.0 - step / schedule.warmup_steps) * (1.0 - schedule.warmup_ratio)
    return cosine * (1.0 - missing)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def clip_gradients(model: nn.Module, max_norm: float) -> float:
    """Scale all gradients so that their common L2 norm is at most `max_norm`; returns the norm before.

    One that is not finite comes back as NaN, with the gradients as they were.
    """
    having = [p for p in model.parameters() if p.requires_grad and p.grad is not None]
    if not having:
        return 0.0
    try:
        norm = torch.nn.utils.clip_grad_norm_(having, max_norm, norm_type=2.0, error_if_nonfinite=True)
    except RuntimeError as error:
        if "non-finite" not in str(error):
            raise
        return math.nan
    return float(norm)
