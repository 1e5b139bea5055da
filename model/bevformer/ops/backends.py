"""Which implementation of the attentions runs: grid_sample, our CPU extension, our Triton kernels, mmcv's.

A compiled one is used only after it has given grid_sample's numbers on a small example on the same device.
"""

import functools
import warnings
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Tuple

import torch
from torch import Tensor

from ..errors import ConfigError, UserError
from . import reference
from .deform_attn import deform_attn
from .visible import gather_visible

NAMES = ("auto", "reference", "cpp", "triton", "mmcv")
# Best first.  Which of them runs is written into the run's record.
PREFERRED: Dict[str, Tuple[str, ...]] = {"cuda": ("triton", "mmcv"), "cpu": ("cpp",)}
# Those of NAMES whose backward pass adds by floating-point atomics on a device, in an order of its own.
NOT_REPEATABLE: Dict[str, Tuple[str, ...]] = {"cuda": ("reference", "mmcv")}
TOLERANCE = (
    1e-4  # float32, numbers around 1; a wrong corner or a wrong order of points is off by 0.01 and more
)


@dataclass(frozen=True)
class Backend:
    """deform_attn: as in `ops.deform_attn`; temporal_attn, spatial_attn: as in `ops.reference`.

    saves_inputs_only: nothing but the inputs waits for the backward pass.
    """

    name: str
    deform_attn: Callable[..., Tensor]
    temporal_attn: Callable[..., Tensor]
    spatial_attn: Callable[..., Tensor]
    saves_inputs_only: bool = True


def of_deform_attn(name: str, attend: Callable[..., Tensor], saves_inputs_only: bool) -> Backend:
    """The other two made of the first, as upstream makes them."""
    return Backend(
        name,
        attend,
        functools.partial(reference.temporal_attn, attend=attend),
        functools.partial(reference.spatial_attn, attend=attend),
        saves_inputs_only,
    )


REFERENCE = of_deform_attn("reference", deform_attn, False)
# Keeps its inputs and samples again in the backward pass: see `deform_attn`, again.
RESAMPLING = of_deform_attn("reference", functools.partial(deform_attn, again=True), False)


def known(name: str) -> str:
    """Raises ConfigError with the names there are."""
    if name not in NAMES:
        raise ConfigError("unknown ops.attention: %r" % name, do="One of: " + ", ".join(NAMES))
    return name


def load(name: str, device_type: str, deterministic: bool = False) -> Backend:
    """The backend of that name.  ConfigError when it is not there or gives other numbers than grid_sample,
    UserError when nothing can run after it.
    """
    if known(name) == "reference":
        return REFERENCE
    try:
        backend = _loaded(name, device_type, deterministic)
        difference = disagreement(backend, device_type)
    except ConfigError:
        raise
    except Exception as error:  # a broken build raises what it likes: ImportError, RuntimeError, OSError
        require_gpu("ops.attention=%s" % name, error)
        raise ConfigError(
            "ops.attention=%s cannot run here: %s: %s" % (name, type(error).__name__, error),
            "What it needs is missing or was built for another torch.",
            "Use ops.attention=reference, which needs nothing.",
        ) from error
    if not difference <= TOLERANCE:
        raise ConfigError(
            "ops.attention=%s gives other numbers than grid_sample: largest difference %.3g"
            % (name, difference),
            "An operator that disagrees would change the result silently.",
            "Use ops.attention=reference and report this machine's `bevrepro doctor --json`.",
        )
    return backend


def require_gpu(tried: str, failed: Exception) -> None:
    """Raises UserError where an operator that was tried took the GPU with it, by an illegal address for one:
    every later call of this process fails, and passing over the operator would leave the blame to those.
    """
    if not torch.cuda.is_initialized():
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        raise UserError(
            "%s broke the GPU for this process: %s" % (tried, (str(failed).splitlines() or [""])[0]),
            "Nothing can run on a GPU after such an error until the process ends.",
            "Start again with %s=reference, and report this machine's `bevrepro doctor --json`."
            % tried.split("=")[0],
        ) from error


def _loaded(name: str, device_type: str, deterministic: bool) -> Backend:
    if name == "cpp":
        from .cpp import load as load_cpp

        return load_cpp(device_type)
    if name == "triton":
        from .triton_backend import load as load_triton

        return load_triton(device_type, deterministic)
    from .mmcv_backend import load as load_mmcv

    return load_mmcv(device_type)


@functools.lru_cache(maxsize=None)
def choose(name: str, device_type: str, deterministic: bool = False) -> Backend:
    """The backend for a device.  auto: the first of PREFERRED that is there and agrees, else grid_sample.

    A wrong explicit choice raises, and so does one that cannot be `deterministic`; `auto` warns, once, of
    what it passes over, and where what it takes is not deterministic.  On the meta device, which has shapes
    only, every fused name stands for an operator that keeps its inputs.
    """
    if device_type == "meta":
        from .shapes_only import DETERMINISTIC, SHAPES_ONLY

        fused = DETERMINISTIC if deterministic and name == "triton" else SHAPES_ONLY
        return REFERENCE if name in ("auto", "reference") else fused
    atomic = NOT_REPEATABLE.get(device_type, ()) if deterministic else ()
    if name in atomic:
        raise ConfigError(
            "ops.deterministic=True with ops.attention=%s on a GPU" % name,
            "Its backward pass adds in whatever order the GPU gets to, so bits do not repeat.",
            "Use ops.attention=triton, which can do otherwise, or leave ops.deterministic out.",
        )
    if name != "auto":
        return load(name, device_type, deterministic)
    found, passed = _first(device_type, deterministic)
    if found is REFERENCE or found.name in atomic:
        for error in passed:
            warnings.warn("%s\n%s" % (error.seen, error.why), stacklevel=2)
    if found.name in atomic:
        warnings.warn("ops.deterministic=True: %s does not repeat bit for bit." % found.name, stacklevel=2)
    return found


def _first(device_type: str, deterministic: bool) -> Tuple[Backend, List[ConfigError]]:
    """The first of PREFERRED that runs, else grid_sample, and why those before it do not."""
    passed: List[ConfigError] = []
    for candidate in PREFERRED.get(device_type, ()):
        try:
            return load(candidate, device_type, deterministic), passed
        except ConfigError as error:
            passed.append(error)
    return REFERENCE, passed


def disagreement(backend: Backend, device_type: str) -> float:
    """The largest difference to grid_sample, forward and gradients, of all three on a small example."""
    device = torch.device(device_type)
    worst = 0.0
    for example in (_of_deform, _of_temporal, _of_spatial):
        results = [example(each, device) for each in (backend, REFERENCE)]
        for ours, theirs in zip(*results):
            apart = float((ours - theirs).abs().max())
            worst = apart if apart != apart or apart > worst else worst  # NaN stays
    return worst


def _random(device: torch.device, *shapes: Tuple[int, ...]) -> List[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(device) for shape in shapes]


def _results(function: Callable[..., Tensor], value: Tensor, offsets: Tensor, logits: Tensor) -> List[Tensor]:
    """The output and the three gradients."""
    kind = value.device.type
    half = torch.bfloat16 if kind == "cpu" else torch.float16  # torch 1.10 warns of others, off as it is
    with torch.enable_grad(), torch.autocast(kind, enabled=False, dtype=half):
        inputs = [each.clone().requires_grad_() for each in (value, offsets, logits)]
        out = function(*inputs)
        weight = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)
        return [out.detach(), *torch.autograd.grad((out * weight).sum(), inputs)]


_SHAPES = ((3, 4), (2, 3))


def _of_deform(backend: Backend, device: torch.device) -> List[Tensor]:
    sizes: Any = ((2, 18, 16), (2, 5, 2, 2), (2, 5, 2, 2, 4, 2), (2, 5, 2, 2, 4))
    value, reference_points, offsets, logits = _random(device, *sizes)
    points = reference_points.sigmoid()
    return _results(lambda v, o, w: backend.deform_attn(v, _SHAPES, points, o, w), value, offsets, logits)


def _of_temporal(backend: Backend, device: torch.device) -> List[Tensor]:
    sizes: Any = ((2, 2, 12, 16), (2, 2, 12, 2), (2, 12, 2, 2, 4, 2), (2, 12, 2, 2, 4))
    value, reference_points, offsets, logits = _random(device, *sizes)
    points = reference_points.sigmoid()
    return _results(lambda v, o, w: backend.temporal_attn(v, (3, 4), points, o, w), value, offsets, logits)


def _of_spatial(backend: Backend, device: torch.device) -> List[Tensor]:
    sizes: Any = ((3, 18, 16), (1, 3, 5, 2, 2), (1, 3, 5), (5, 2, 2, 4, 2), (5, 2, 2, 4))
    value, points, seen, offsets, logits = _random(device, *sizes)
    pairs = gather_visible(points.sigmoid(), seen > 0).pairs
    return _results(lambda v, o, w: backend.spatial_attn(v, _SHAPES, pairs, o, w), value, offsets, logits)
