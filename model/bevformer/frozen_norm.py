"""Batch norm on stored statistics as one multiplication and one addition per channel, or none at all."""

from typing import Any, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrozenBatchNorm(nn.BatchNorm2d):
    """Equal to batch norm in eval mode up to rounding; saves nothing of its input for the backward pass.

    Same parameters and buffers; made of a batch norm in place by `freeze_norms`.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()  # type: ignore[operator]
        shift = self.bias - self.running_mean * scale
        column = (1, -1, 1, 1)
        # In full precision inside, as the fused kernel is; under autocast x is half as wide.
        return torch.addcmul(shift.view(column), x_BCHW.to(scale.dtype), scale.view(column)).to(x_BCHW.dtype)


def freeze_norms(model: nn.Module) -> int:
    """Turn every batch norm without a gradient that runs on stored statistics; how many there are now."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d and not module.training and not _trained(module):
            module.__class__ = FrozenBatchNorm
    return sum(isinstance(module, FrozenBatchNorm) for module in model.modules())


def _trained(norm: nn.BatchNorm2d) -> bool:
    return any(parameter.requires_grad for parameter in norm.parameters())


def folded_weights(weight_OCkk: Tensor, norm: Any) -> Tuple[Tensor, Tensor]:
    """Weights and bias of a convolution (without a bias) that does the norm too."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return weight_OCkk * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale


def folded_conv(conv: nn.Conv2d, norm: nn.Module, x_BCHW: Tensor) -> Tensor:
    """norm(conv(x)) of a frozen norm in one convolution; equal up to rounding, also in its gradients."""
    weight, bias = folded_weights(conv.weight, norm)
    return F.conv2d(x_BCHW, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
