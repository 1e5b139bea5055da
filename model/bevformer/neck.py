"""Feature pyramid (Lin et al., 2017) with mmdet's keys: lateral_convs.i.conv, fpn_convs.i.conv."""

from typing import List, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .config import NeckConfig


class _Conv(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=size // 2)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


class FPN(nn.Module):
    """len(in_channels) maps, finest first -> `num_outs` maps of `out_channels`.

    An extra level is a stride-2 convolution on the last *output* with no ReLU before it: upstream sets
    `relu_before_extra_convs`, which in mmdet only acts from a second extra convolution on (kept quirk).
    """

    def __init__(self, config: NeckConfig, out_channels: int) -> None:
        super().__init__()
        levels = len(config.in_channels)
        self.lateral_convs = nn.ModuleList(_Conv(c, out_channels, 1) for c in config.in_channels)
        self.fpn_convs = nn.ModuleList(
            _Conv(out_channels, out_channels, 3, stride=1 if i < levels else 2)
            for i in range(config.num_outs)
        )

    def forward(self, features: Sequence[Tensor]) -> List[Tensor]:
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, features)]
        for i in range(len(laterals) - 1, 0, -1):
            size = laterals[i - 1].shape[-2:]
            laterals[i - 1] = laterals[i - 1] + F.interpolate(laterals[i], size=size, mode="nearest")
        outs = [conv(x) for conv, x in zip(self.fpn_convs, laterals)]
        for extra, conv in enumerate(list(self.fpn_convs)[len(laterals) :]):
            outs.append(conv(outs[-1] if extra == 0 else outs[-1].relu()))
        return outs
