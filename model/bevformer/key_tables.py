"""Keys and shapes of the presets, without allocating a weight: what `kinds.diagnose` compares with."""

from typing import Any, Dict, Tuple

import torch
from torch import nn

from .config import PRESETS, Config

_TABLES: Dict[str, Dict[str, Tuple[int, ...]]] = {}  # a cache: presets do not change while a process runs


def shapes_of(state: Dict[str, Any]) -> Dict[str, Tuple[int, ...]]:
    """A state dict's shapes by key."""
    return {key: tuple(value.shape) for key, value in state.items()}


def weightless_model(config: Config) -> nn.Module:
    """The detector on the meta device.  torch < 2 cannot build there: it gets a real one."""
    from .detector import build_model

    with torch.random.fork_rng(devices=[]):
        if not hasattr(torch, "compile"):
            return build_model(config)
        with torch.device("meta"):
            return build_model(config)


def preset_tables() -> Dict[str, Dict[str, Tuple[int, ...]]]:
    """By preset; half a second the first time."""
    for name, make in PRESETS.items():
        if name not in _TABLES:
            _TABLES[name] = shapes_of(weightless_model(make()).state_dict())
    return dict(_TABLES)
