"""AdamW and its schedule as the reference trains (facts: bevformer.md, Presets; mmcv 1.x hooks).

The learning rate is a pure function of the step, so a resumed run needs no scheduler state.
"""

import inspect
import math
from typing import Any, Dict, List

import torch
from torch import Tensor, nn

from .config import ScheduleConfig
from .errors import ConfigError

BACKBONE = "img_backbone"
KERNELS = ("auto", "fused", "foreach", "loop")


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


def build_optimizer(model: nn.Module, schedule: ScheduleConfig, kind: str = "auto") -> torch.optim.AdamW:
    """AdamW (eps 1e-8) over `param_groups`.

    kind: one kernel for all parameters (`fused`), one for each of its operations (`foreach`), or one for each
    operation and parameter (`loop`), equal up to rounding; auto is fused where every parameter can use it,
    else torch's choice.  Raises ConfigError for one that is not there.
    """
    options = dict(lr=schedule.lr, betas=tuple(schedule.betas), weight_decay=schedule.weight_decay, eps=1e-8)
    groups = param_groups(model, schedule)
    if not groups:
        raise ConfigError("the model has no parameters to train")
    return torch.optim.AdamW(groups, **options, **_kernels(kind, groups))  # type: ignore[arg-type]


def _kernels(kind: str, groups: List[Dict[str, Any]]) -> Dict[str, bool]:
    known = inspect.signature(torch.optim.AdamW.__init__).parameters
    if kind not in KERNELS:
        raise ConfigError("ops.adamw=%s" % kind, do="It is one of %s." % ", ".join(KERNELS))
    if kind == "auto":
        return {"fused": True} if _fused_available(groups) else {}
    if kind == "loop":
        return {"foreach": False} if "foreach" in known else {}
    if kind not in known or (kind == "fused" and not _fused_available(groups)):
        raise ConfigError(
            "ops.adamw=%s with torch %s" % (kind, torch.__version__),
            "This torch does not have it for the parameters of this model.",
            "Leave ops.adamw at auto.",
        )
    return {kind: True}


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


def gradient_norm(model: nn.Module) -> Tensor:
    """The common L2 norm of all gradients, (), on their device: NaN or infinite where one of them is."""
    gradients = [p.grad for p in _having(model)]
    if not gradients:
        return torch.zeros(())
    if hasattr(torch.nn.utils, "get_total_norm"):  # torch >= 2.6; a few kernels for all
        return torch.nn.utils.get_total_norm(gradients, 2.0)
    return torch.norm(torch.stack([torch.norm(each, 2.0) for each in gradients]), 2.0)


def scale_gradients(model: nn.Module, max_norm: float, norm: Tensor) -> None:
    """So that their norm, now `norm`, is at most `max_norm`; the host does not wait."""
    having = _having(model)
    if hasattr(torch.nn.utils, "clip_grads_with_norm_"):
        torch.nn.utils.clip_grads_with_norm_(having, max_norm, norm)
        return
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for parameter in having:
        parameter.grad.mul_(factor.to(parameter.grad.device))  # type: ignore[union-attr]


def clip_gradients(model: nn.Module, max_norm: float) -> float:
    """Scale all gradients so that their common L2 norm is at most `max_norm`; returns the norm before.

    One that is not finite is returned, with the gradients as they were.
    """
    norm = gradient_norm(model)
    found = float(norm)
    if math.isfinite(found):
        scale_gradients(model, max_norm, norm)
    return found


def _having(model: nn.Module) -> List[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad and p.grad is not None]
