"""Which compiled operators a model runs with, as a record and as words for the user."""

import warnings
from typing import Dict, List

import torch
from torch import nn

from .attention import Attention
from .ops.backends import choose as choose_attention
from .ops.dcn_backends import choose as choose_dcn
from .ops.dcn_layer import ModulatedDeformConv
from .talk import Talk


def operators_record(model: nn.Module, device_type: str) -> Dict[str, str]:
    """`attention` and `dcn`, where the model has them, with the name of what runs on this device."""
    found = {}
    for module in model.modules():
        if isinstance(module, Attention):
            found["attention"] = choose_attention(module.backend, device_type, module.deterministic).name
        elif isinstance(module, ModulatedDeformConv):
            found["dcn"] = choose_dcn(module.backend, device_type)[0]
    return found


def tell_operators(model: nn.Module, device_type: str, talk: Talk) -> Dict[str, str]:
    """The record; what `auto` passed over is said as notes.  ConfigError for a choice that cannot run."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = operators_record(model, device_type)
    for each in caught:
        talk.note(" ".join(str(each.message).split()) + " Goes on without it.")
    return found


def not_repeatable(model: nn.Module, device: torch.device) -> List[str]:
    """Parts of a backward pass on this device that do not repeat bit for bit."""
    if device.type != "cuda":
        return []
    found = operators_record(model, device.type)
    exact = any(isinstance(module, Attention) and module.deterministic for module in model.modules())
    parts = []
    if not (exact and found.get("attention") == "triton"):
        parts.append("deformable attention (%s)" % found.get("attention"))
    if "dcn" in found:
        parts.append("deformable convolution (%s)" % found["dcn"])
    return parts
