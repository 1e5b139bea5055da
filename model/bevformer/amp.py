"""Precision: fp32, mixed with bf16 or (with a loss scale) fp16, or all in fp64.

Mixed, the weights, the optimiser and the losses stay fp32.  fp64 is for comparing: what machines and versions
round differently is then far below what a mistake does.

fp16 follows mmcv's Fp16OptimizerHook: a recipe with a fixed scale keeps it, others start high, halve it after
an overflow and double it after 2000 steps without one.  A step that overflowed leaves the weights alone.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Dict, Iterator, Mapping, Optional

import torch
from torch import nn

from .config import ScheduleConfig
from .errors import ConfigError
from .matching import Diverged

KINDS = ("off", "bf16", "fp16", "fp64")
FIRST_SCALE = 2.0**16  # torch.cuda.amp.GradScaler's
GROW_AFTER = 2000
OVERFLOWS_IN_A_ROW = 50


@dataclass(frozen=True)
class Precision:
    """kind: fp32, bf16, fp16 or fp64; fixed_scale: the recipe's loss scale, None for one that adapts."""

    kind: str = "fp32"
    fixed_scale: Optional[float] = None

    @property
    def dtype(self) -> Optional[torch.dtype]:
        """What autocast computes in; None without it."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.kind)

    def prepared(self, model: nn.Module) -> nn.Module:
        """The model with its weights in double precision, where that is asked for."""
        return model.double() if self.kind == "fp64" else model

    @contextmanager
    def autocast(self, device: torch.device) -> Iterator[None]:
        """Nothing at all for fp32 and fp64."""
        dtype = self.dtype
        if dtype is None:
            yield
            return
        # Without the cache: weights that the history casts under no_grad would be reused without a gradient.
        with torch.autocast(device.type, dtype=dtype, cache_enabled=False):
            yield


FULL = Precision()


def autocast_dtype(device_type: str) -> Optional[torch.dtype]:
    """What autocast computes in on that kind of device; None where it is off."""
    if hasattr(torch, "get_autocast_dtype"):
        if device_type not in ("cpu", "cuda") or not torch.is_autocast_enabled(device_type):
            return None
        return torch.get_autocast_dtype(device_type)
    if device_type == "cuda":
        return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
    on_cpu = device_type == "cpu" and torch.is_autocast_cpu_enabled()
    return torch.get_autocast_cpu_dtype() if on_cpu else None


def choose_precision(asked: Optional[str], schedule: ScheduleConfig, device: torch.device) -> Precision:
    """--amp, else what the recipe trains in where the device can.  Raises ConfigError."""
    kind = asked or ("fp16" if schedule.fp16_loss_scale and device.type == "cuda" else "off")
    if kind == "off":
        return FULL
    if kind == "fp64" and device.type != "cpu":
        raise ConfigError(
            "--amp fp64 on a GPU",
            "The kernels of the attentions compute in float32 there.",
            "Give --gpus 0: it is for comparing numbers, not for speed.",
        )
    if kind == "fp16" and device.type != "cuda":
        raise ConfigError(
            "--amp fp16 on the CPU", "It has no fast fp16, and no gain from it.", "Give --amp bf16, or none."
        )
    if kind == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError(
            "--amp bf16, but %s has no bf16" % torch.cuda.get_device_name(device), do="Give --amp fp16."
        )
    if kind == "bf16" and device.type == "cpu" and not bf16_works_on_cpu():
        raise ConfigError(
            "--amp bf16 on the CPU with torch %s" % torch.__version__,
            "Its autocast stops at the first layer norm.",
            "Leave --amp out, or use torch 1.12 or later.",
        )
    return Precision(kind, (schedule.fp16_loss_scale or None) if kind == "fp16" else None)


def bf16_works_on_cpu() -> bool:
    """Whether autocast there takes mixed types to a layer norm, which the oldest torch with bf16 does not."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        try:
            nn.functional.layer_norm(
                torch.zeros(1, 2, dtype=torch.bfloat16), (2,), torch.ones(2), torch.zeros(2)
            )
        except RuntimeError:
            return False
    return True


def check_precision(resumed: Optional[Mapping[str, Any]], precision: Precision) -> None:
    """Raises ConfigError when a run would go on in another precision."""
    then = str(resumed["meta"].get("precision", "fp32")) if resumed else precision.kind
    if then != precision.kind:
        raise ConfigError(
            "the run was trained in %s, this would go on in %s" % (then, precision.kind),
            "The result would be neither the one nor the other.",
            "Give --amp %s, or start afresh in another --work-dir." % ("off" if then == "fp32" else then),
        )


class LossScale:
    """What the loss is multiplied by before the backward pass: 1 except in fp16."""

    def __init__(self, precision: Precision, state: Optional[Mapping[str, float]] = None) -> None:
        self.precision = precision
        first = precision.fixed_scale or FIRST_SCALE
        self.scale = float((state or {}).get("scale", first)) if precision.kind == "fp16" else 1.0
        self._good = int((state or {}).get("good_steps", 0))
        self._overflows = int((state or {}).get("overflows", 0))

    def state(self) -> Optional[Dict[str, float]]:
        """For the checkpoint; None where there is nothing to keep."""
        if self.precision.kind != "fp16":
            return None
        return {"scale": self.scale, "good_steps": float(self._good), "overflows": float(self._overflows)}

    def unscale(self, model: nn.Module) -> bool:
        """Divide the gradients by the scale and adapt it.  False where they overflowed: skip the step.

        Raises Diverged when that happens again and again.
        """
        if self.precision.kind != "fp16":
            return True
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        for gradient in gradients:
            gradient.mul_(1.0 / self.scale)
        flags = [torch.isfinite(gradient).all() for gradient in gradients]
        finite = bool(torch.stack(flags).all()) if flags else True
        self._adapt(finite)
        return finite

    def overflowed(self) -> None:
        """For a step whose loss was not finite: it is left out, as one whose gradients overflowed.

        Raises Diverged when that happens again and again.
        """
        self._adapt(False)

    def _adapt(self, finite: bool) -> None:
        self._overflows = 0 if finite else self._overflows + 1
        self._good = self._good + 1 if finite else 0
        if self._overflows >= OVERFLOWS_IN_A_ROW:
            raise Diverged("loss or gradients overflowed in %d steps in a row" % self._overflows)
        if self.precision.fixed_scale:
            return
        if not finite:
            self.scale /= 2
        elif self._good % GROW_AFTER == 0:
            self.scale *= 2
