"""Which implementation of DCNv2 runs: ours in plain torch, torchvision's or mmcv's compiled operator.

A compiled operator is used only after it has given our numbers on a small example on the same device: a
wheel built for another torch can import and still be wrong.
"""

import functools
import importlib
import importlib.util
import warnings
from typing import Callable, Tuple

import torch
from torch import Tensor

from ..errors import ConfigError
from .backends import require_gpu
from .modulated_conv import modulated_deform_conv

# (input, offset, mask, weight, stride, padding, dilation) -> output
Operator = Callable[[Tensor, Tensor, Tensor, Tensor, int, int, int], Tensor]
NAMES = ("auto", "reference", "torchvision", "mmcv")
TOLERANCE = 1e-4  # float32 sums of 9 x 8 products in another order; a wrong layout is off by 0.1 and more


def _torchvision() -> Operator:
    conv = importlib.import_module("torchvision.ops").deform_conv2d

    def run(
        x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, stride: int, pad: int, dil: int
    ) -> Tensor:
        out: Tensor = conv(x, offset, weight, None, stride, pad, dil, mask)
        return out

    return run


def _mmcv() -> Operator:
    from ..mm import modulated_deform_conv2d

    return modulated_deform_conv2d()


_LOADERS = {"torchvision": _torchvision, "mmcv": _mmcv}


def load(name: str, device_type: str) -> Operator:
    """The operator of that name.  ConfigError when it is not there or gives other numbers than ours,
    UserError when nothing can run after it.
    """
    if name == "reference":
        return modulated_deform_conv
    if name not in _LOADERS:
        raise ConfigError("unknown backbone.dcn_backend: %r" % name, do="One of: " + ", ".join(NAMES))
    try:
        operator = _LOADERS[name]()
        difference = disagreement(operator, device_type)
    except Exception as error:  # a broken wheel raises what it likes: ImportError, RuntimeError, OSError
        require_gpu("backbone.dcn_backend=%s" % name, error)
        raise ConfigError(
            "backbone.dcn_backend=%s cannot run here: %s: %s" % (name, type(error).__name__, error),
            "Its package is missing or was built for another torch.",
            "Use backbone.dcn_backend=reference, which needs neither.",
        ) from error
    if not difference <= TOLERANCE:
        raise ConfigError(
            "%s's DCNv2 gives other numbers than ours: largest difference %.3g" % (name, difference),
            "A compiled operator that disagrees would change the result silently.",
            "Use backbone.dcn_backend=reference and report the versions of torch and %s." % name,
        )
    return operator


def disagreement(operator: Operator, device_type: str) -> float:
    """The largest difference to ours, forward and all gradients, on one small example; NaN counts.

    Its maps are channels-last, as a backbone makes them: mmcv's operator by itself overlooks that.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 8, 6, 5), (1, 18, 6, 5), (1, 9, 6, 5), (4, 8, 3, 3))
    x, offset, mask, weight = (torch.randn(s, generator=generator).to(device_type) for s in shapes)
    results = []
    with torch.enable_grad():
        for run in (operator, modulated_deform_conv):
            leaves = [
                each.requires_grad_() for each in (x.clone(), 1.5 * offset, mask.sigmoid(), weight.clone())
            ]
            maps = [each.contiguous(memory_format=torch.channels_last) for each in leaves[:3]]
            out = run(*maps, leaves[3], 1, 1, 1)
            results.append([out.detach(), *torch.autograd.grad(out.sum(), leaves)])
    return max((float((ours - theirs).abs().max()) for ours, theirs in zip(*results)), key=_nan_first)


def _nan_first(number: float) -> float:
    return number if number == number else float("inf")


@functools.lru_cache(maxsize=None)
def choose(name: str, device_type: str) -> Tuple[str, Operator]:
    """(name, operator) for a device.  auto: mmcv, then torchvision, then ours, whichever runs and agrees.

    A wrong explicit choice raises; `auto` passes over what is not installed and warns of what is broken.
    """
    if device_type == "meta":  # shapes only: nothing to compare
        return "reference", modulated_deform_conv
    if name != "auto":
        return name, load(name, device_type)
    for candidate in ("mmcv", "torchvision"):
        if importlib.util.find_spec(candidate) is None:
            continue
        try:
            return candidate, load(candidate, device_type)
        except ConfigError as error:
            warnings.warn("%s\n%s" % (error.seen, "Using the bundled DCNv2 instead."), stacklevel=2)
    return "reference", modulated_deform_conv
