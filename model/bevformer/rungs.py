"""The rungs of the memory ladder: what takes memory off a training step, and what each does to the result.

Mildest first (ledger).  `apply_rungs` changes how a built model runs, never its weights or its keys.
"""

from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Tuple

import torch
from torch import nn

from .attention import Attention
from .backbone import ResNet
from .config import Config
from .decoder import Decoder
from .encoder import Encoder
from .errors import ConfigError
from .frozen_norm import freeze_norms
from .ledger import CHANGES, IDENTICAL, ROUNDING, STATISTICS
from .micro_backbone import MicroBackbone
from .ops.backends import choose
from .ops.dcn_layer import ModulatedDeformConv

EFFECTS = (IDENTICAL, ROUNDING, STATISTICS, CHANGES)


@dataclass(frozen=True)
class Rung:
    """effect: a class of the fidelity ledger.  cfg_options, amp: what has to be asked for besides."""

    name: str
    what: str
    effect: str
    cfg_options: Tuple[str, ...] = ()
    amp: str = ""


LADDER = (
    Rung("encoder-layers", "each encoder layer runs again in the backward pass", IDENTICAL),
    Rung("dcn-taps", "deformable convolutions keep their inputs and sample again, tap by tap", IDENTICAL),
    Rung("backbone-blocks", "each block of the backbone runs again in the backward pass", IDENTICAL),
    Rung("decoder-layers", "each decoder layer runs again in the backward pass", IDENTICAL),
    Rung("sampling", "deformable attention keeps its inputs and samples again, map by map", IDENTICAL),
    Rung("backbone-groups", "groups of blocks run again too, so that fewer inputs of blocks wait", IDENTICAL),
    Rung("fused-attention", "attention by compiled operators that keep their inputs only", ROUNDING),
    Rung("frozen-norms", "frozen batch norms as one multiplication and addition per channel", ROUNDING),
    Rung("bf16", "autocast to bf16", STATISTICS, amp="bf16"),
)


def rungs_up_to(effect: str) -> Tuple[Rung, ...]:
    """The rungs whose effect is at most `effect`, mildest first.  Raises ConfigError."""
    if effect not in EFFECTS:
        raise ConfigError("unknown effect on the result: %r" % effect, do="One of: " + ", ".join(EFFECTS))
    return tuple(rung for rung in LADDER if EFFECTS.index(rung.effect) <= EFFECTS.index(effect))


def other_models(config: Config) -> Tuple[Rung, ...]:
    """What else takes less memory, by its options: never chosen, only named.  Each is on its own.

    A batch as more ranks of one sample keeps the batch and the divisor of the losses; dropout, GridMask and
    the order of samples are drawn anew.  A shorter queue saves nothing: the history is run frame by frame.
    """
    grid, schedule, data = config.encoder, config.schedule, config.data
    found = []
    if schedule.samples_per_gpu > 1:
        ranks = schedule.world_size * schedule.samples_per_gpu
        options = ("schedule.samples_per_gpu=1", "schedule.world_size=%d" % ranks)
        found.append(Rung("single-samples", "samples of a batch as ranks of their own", STATISTICS, options))
    half = ("encoder.bev_h=%d" % (grid.bev_h // 2), "encoder.bev_w=%d" % (grid.bev_w // 2))
    found.append(Rung("half-grid", "half the BEV grid", CHANGES, half))
    scale = ("data.scale=%g" % (data.scale / 2),)
    return (*found, Rung("half-images", "half the image size", CHANGES, scale))


def rung(name: str) -> Rung:
    """Raises ConfigError with the names there are."""
    for each in LADDER:
        if each.name == name:
            return each
    raise ConfigError(
        "unknown memory rung: %r" % name, do="One of: " + ", ".join(each.name for each in LADDER)
    )


def rungs_for(model: nn.Module, effect: str = ROUNDING) -> Tuple[Rung, ...]:
    """Those of `rungs_up_to` that this model has a use for (no DCN rung without DCNv2, for example)."""
    return tuple(
        each for each in rungs_up_to(effect) if each.name not in _APPLY or _APPLY[each.name].concerns(model)
    )


def apply_rungs(model: nn.Module, names: Iterable[str]) -> None:
    """Let a built model run with rungs of the classes identical and rounding; in any order, repeatable.

    Raises ConfigError for an unknown name and for a rung that is asked for in another way (bf16).
    """
    wanted = [rung(name) for name in names]
    for each in wanted:
        if each.name not in _APPLY:
            raise ConfigError(
                "the memory rung %s is no way to run the same model" % each.name,
                "Its effect: %s." % each.effect,
                "Ask for it by name: %s" % asked_by(each),
            )
    for each in wanted:
        _APPLY[each.name].apply(model)


def asked_by(each: Rung) -> str:
    """The words of `train` that ask for a rung."""
    if each.amp:
        return "--amp " + each.amp
    return "--cfg-options " + " ".join(each.cfg_options) if each.cfg_options else "--memory " + each.name


@dataclass(frozen=True)
class _Switch:
    """Sets `attribute` on every module of `kinds`."""

    attribute: str
    kinds: Tuple[Any, ...]

    def concerns(self, model: nn.Module) -> bool:
        return any(isinstance(module, self.kinds) for module in model.modules())

    def apply(self, model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, self.kinds):
                setattr(module, self.attribute, True)


@dataclass(frozen=True)
class _Norms:
    """Frozen batch norms."""

    def concerns(self, model: nn.Module) -> bool:
        return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())

    def apply(self, model: nn.Module) -> None:
        freeze_norms(model)


@dataclass(frozen=True)
class _Fused:
    """Attention by grid_sample where a fused operator could run; on the meta device always one could."""

    def concerns(self, model: nn.Module) -> bool:
        if all(each.operators(device).saves_inputs_only for each, device in _attentions(model)):
            return False
        return all(
            choose(self._name(device), device.type).saves_inputs_only for _, device in _attentions(model)
        )

    def apply(self, model: nn.Module) -> None:
        for module, device in _attentions(model):
            module.backend = self._name(device)

    def _name(self, device: torch.device) -> str:
        return "triton" if device.type == "meta" else "auto"


def _attentions(model: nn.Module) -> List[Tuple[Attention, torch.device]]:
    """Each with the device of its weights."""
    found = [module for module in model.modules() if isinstance(module, Attention)]
    return [(module, next(module.parameters()).device) for module in found]


_APPLY: Dict[str, Any] = {
    "encoder-layers": _Switch("recompute_layers", (Encoder,)),
    "dcn-taps": _Switch("recompute_taps", (ModulatedDeformConv,)),
    "backbone-blocks": _Switch("checkpoint_blocks", (ResNet, MicroBackbone)),
    "decoder-layers": _Switch("recompute_layers", (Decoder,)),
    "sampling": _Switch("resample", (Attention,)),
    "backbone-groups": _Switch("checkpoint_groups", (ResNet,)),
    "fused-attention": _Fused(),
    "frozen-norms": _Norms(),
}
