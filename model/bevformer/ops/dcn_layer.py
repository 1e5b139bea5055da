"""The DCNv2 layer (Zhu et al., 2019): an offset branch and the operator that is there."""

import torch
from torch import Tensor, nn

from .dcn_backends import choose
from .modulated_conv import modulated_deform_conv


class ModulatedDeformConv(nn.Module):
    """3x3 DCNv2 with its own offset branch; keys `weight`, `conv_offset.{weight,bias}` as in mmcv.

    backend: a name that `dcn_backends.choose` knows; resolved per device, at the first image.
    recompute_taps: keep the inputs only, as compiled operators do anyway.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1, backend: str = "auto"
    ) -> None:
        super().__init__()
        self.stride, self.dilation, self.backend = stride, dilation, backend
        self.recompute_taps = False
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.conv_offset = nn.Conv2d(in_channels, 27, 3, stride=stride, padding=dilation, dilation=dilation)
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        both = self.conv_offset(x_BCHW)
        _, operator = choose(self.backend, x_BCHW.device.type)
        pad = self.dilation
        args = (x_BCHW, both[:, :18], both[:, 18:].sigmoid(), self.weight, self.stride, pad, self.dilation)
        if self.recompute_taps and operator is modulated_deform_conv:
            return modulated_deform_conv(*args, again=True)
        return operator(*args)
