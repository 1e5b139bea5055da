"""The backbone of `bevformer_micro`: small enough for two CPU cores (facts: micro.md)."""

from typing import Sequence, Tuple

import torch
from torch import Tensor, nn

from .recompute import recompute


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with GroupNorm and a projected residual; halves height and width."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(8, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, out_channels)
        self.downsample = nn.Conv2d(in_channels, out_channels, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(out)) + self.downsample(x))


class MicroBackbone(nn.Module):
    """(B, 3, H, W) -> one map of stride 8: a 5x5 stem and two blocks.

    GroupNorm instead of frozen batch norm: it starts from nothing, there are no statistics to freeze.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        stem, middle, last = widths
        self.checkpoint_blocks = False
        self.conv1 = nn.Conv2d(3, stem, 5, stride=2, padding=2, bias=False)
        self.norm1 = nn.GroupNorm(8, stem)
        self.layer1 = BasicBlock(stem, middle)
        self.layer2 = BasicBlock(middle, last)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_BCHW: Tensor) -> Tuple[Tensor, ...]:
        x = torch.relu(self.norm1(self.conv1(images_BCHW)))
        for block in (self.layer1, self.layer2):
            x = recompute(block, x, draws=False) if self.checkpoint_blocks else block(x)
        return (x,)
