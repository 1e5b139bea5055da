"""Batch norm on stored statistics as one multiplication and one addition per channel."""

import torch
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
