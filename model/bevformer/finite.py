"""NaN and infinity: stopped before they reach the weights, and before they reach a checkpoint."""

import math
from typing import Any, Dict, Iterator, List, Mapping, Set, Tuple

import torch
from torch import nn

from .matching import Diverged


def not_finite(terms: Mapping[str, float]) -> List[str]:
    """Names of the terms that are NaN or infinite."""
    return [key for key, value in terms.items() if not math.isfinite(value)]


def require_finite(terms: Mapping[str, float]) -> None:
    """Raises Diverged that names the terms."""
    bad = not_finite(terms)
    if bad:
        raise Diverged("%s became %s" % (", ".join(bad), terms[bad[0]]))


def require_finite_gradients(model: nn.Module, norm: float) -> None:
    """`norm`: of all gradients together.  Raises Diverged that names the first parameter with a bad one."""
    if math.isfinite(norm):
        return
    named = ((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)
    bad = [name for name, grad in named if not bool(torch.isfinite(grad).all())]
    where = "the gradient of %d parameters, first %s" % (len(bad), bad[0]) if bad else "their sum of squares"
    raise Diverged("the gradient norm became %s: %s" % (norm, where))


def require_finite_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Before a checkpoint: raises Diverged where weights, buffers or the optimiser's moments are not finite.

    Gradients can be finite and still leave that, by a learning rate or a moment that overflows.
    """
    state = list(_state(model, optimizer))
    # Those of one device are brought to the host together.
    flags = {device: _flags([t for _, t in state if t.device == device]) for device in _devices(state)}
    bad = [name for name, tensor in state if not next(flags[tensor.device])]
    if bad:
        count = "%d tensors of weights and optimiser hold" % len(bad) if len(bad) > 1 else "one tensor holds"
        raise Diverged("%s NaN or infinity, first %s" % (count, bad[0]))


def _devices(state: List[Tuple[str, torch.Tensor]]) -> Set[torch.device]:
    return {tensor.device for _, tensor in state}


def _flags(tensors: List[torch.Tensor]) -> Iterator[bool]:
    return iter(torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).tolist())


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Tuple[str, torch.Tensor]]:
    names: Dict[Any, str] = {parameter: name for name, parameter in model.named_parameters()}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            yield name, tensor
    for parameter, moments in optimizer.state.items():
        for key, value in moments.items():
            if torch.is_tensor(value) and value.is_floating_point():
                yield "%s of %s" % (key, names.get(parameter, "a parameter")), value
