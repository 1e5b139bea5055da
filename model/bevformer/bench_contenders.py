"""Every implementation of the attentions that is installed, ours and others', as backends side by side.

grid_sample   mmcv's pure PyTorch version, line by line, as upstream calls it: what ratios are against
reference     ours by grid_sample, cpp and triton: ours (`ops.backends`)
mmcv          its CUDA kernel
deformops     PyPI's Triton kernels (Python >= 3.12), as of 3.0
"""

import functools
import importlib
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .bench_plain import plain_deform_attn
from .errors import ConfigError
from .ops.backends import Backend, disagreement, load, of_deform_attn
from .ops.mmcv_backend import sampling_locations

BASELINE = "grid_sample"
OURS = ("reference", "cpp", "triton", "triton deterministic")
NAMES = (BASELINE, *OURS, "mmcv", "deformops")
IN_FLOAT32, HALF = (BASELINE, "reference"), (torch.bfloat16, torch.float16)


def contenders(device_type: str, names: Optional[Sequence[str]]) -> Tuple[Dict[str, Backend], Dict[str, str]]:
    """Those that run here, and why the others do not.

    names: these alone.  Raises ConfigError where one of them does not run: asked for by name, it is not left
    out silently.
    """
    unknown = [name for name in names or () if name not in NAMES]
    if unknown:
        raise ConfigError("unknown contender: %s" % unknown[0], do="One of: " + ", ".join(NAMES))
    found: Dict[str, Backend] = {}
    absent: Dict[str, str] = {}
    for name in names or NAMES:
        try:
            found[name] = _loaded(name, device_type)
        except ConfigError as error:
            if names:
                raise
            absent[name] = error.seen
    return found, absent


def _loaded(name: str, device_type: str) -> Backend:
    if name == BASELINE:
        backend = of_deform_attn(BASELINE, plain_attend, False)
    elif name == "deformops":
        return _deformops(device_type)
    else:
        backend = load(name.split()[0], device_type, name.endswith("deterministic"))
    three = (backend.deform_attn, backend.temporal_attn, backend.spatial_attn)
    one, two, whole = (widened(each) if name in IN_FLOAT32 else each for each in three)
    return Backend(name, one, two, whole)


def widened(attend: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Half-precision tensors as float32 inside, as autocast and upstream's `force_fp32` do."""

    def widen(given: Any) -> Any:
        return given.float() if isinstance(given, Tensor) and given.dtype in HALF else given

    def run(value: Tensor, *rest: Any) -> Tensor:
        return attend(*map(widen, (value, *rest))).to(value.dtype)

    return run


def plain_attend(
    value_MSC: Tensor,
    shapes_L: Sequence[Tuple[int, int]],
    reference_MQZ2: Tensor,
    offsets_MQHLP2: Tensor,
    logits_MQHLP: Tensor,
) -> Tensor:
    """`ops.deform_attn` in upstream's way."""
    M, Q, H, L, P, _ = offsets_MQHLP2.shape
    weights = logits_MQHLP.reshape(M, Q, H, L * P).softmax(-1).view(M, Q, H, L, P)
    locations = sampling_locations(shapes_L, reference_MQZ2, offsets_MQHLP2).to(value_MSC.dtype)
    return plain_deform_attn(value_MSC.view(M, -1, H, value_MSC.shape[-1] // H), shapes_L, locations, weights)


def _deformops(device_type: str) -> Backend:
    """Raises ConfigError where it is not there or gives other numbers."""
    try:
        registry: Any = importlib.import_module("deformops.registry")
        backend = of_deform_attn("deformops", functools.partial(_deformops_attend, registry.msda), True)
        apart = disagreement(backend, device_type)
    except Exception as error:  # other people's code raises what it likes, SyntaxError on old Pythons too
        raise ConfigError("%s: %s" % (type(error).__name__, error)) from error
    if not apart <= 1e-3:
        raise ConfigError("gives other numbers than grid_sample: largest difference %.3g" % apart)
    return backend


def _deformops_attend(
    msda: Callable[..., Tensor],
    value_MSC: Tensor,
    shapes_L: Sequence[Tuple[int, int]],
    reference_MQZ2: Tensor,
    offsets_MQHLP2: Tensor,
    logits_MQHLP: Tensor,
) -> Tensor:
    M, Q, H, L, P, _ = offsets_MQHLP2.shape
    locations = sampling_locations(shapes_L, reference_MQZ2, offsets_MQHLP2).to(value_MSC.dtype)
    tables = _tables(tuple((int(h), int(w)) for h, w in shapes_L), value_MSC.device)
    logits = logits_MQHLP.reshape(M, Q, H, L * P)
    return msda(
        value_MSC.view(M, -1, H, value_MSC.shape[-1] // H), *tables, locations, logits, method="softmax"
    )


@functools.lru_cache(maxsize=16)
def _tables(shapes_L: Tuple[Tuple[int, int], ...], device: torch.device) -> List[Tensor]:
    """Shapes and starts of the levels on the device, once: a copy per call would be measured."""
    shapes = torch.tensor(shapes_L)
    areas = shapes.prod(1)
    return [shapes.to(device), (areas.cumsum(0) - areas).to(device)]
