"""Keys and shapes of the presets, without allocating a weight: what `kinds.diagnose` compares with."""

from typing import Any, Dict, Tuple

import torch

from .config import PRESETS

_TABLES: Dict[str, Dict[str, Tuple[int, ...]]] = {}  # a cache: presets do not change while a process runs


def shapes_of(state: Dict[str, Any]) -> Dict[str, Tuple[int, ...]]:
    """A state dict's shapes by key."""
    return {key: tuple(value.shape) for key, value in state.items()}


def preset_tables() -> Dict[str, Dict[str, Tuple[int, ...]]]:
    """By preset; half a second the first time.  torch < 2 has no meta context: it builds real models."""
    from .detector import build_model

    for name, make in PRESETS.items():
        if name not in _TABLES:
            with torch.random.fork_rng(devices=[]):
                if hasattr(torch, "compile"):
                    with torch.device("meta"):
                        model = build_model(make())
                else:
                    model = build_model(make())
            _TABLES[name] = shapes_of(model.state_dict())
    return dict(_TABLES)
