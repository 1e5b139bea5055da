"""A ResNet made ready for inference: each convolution with its batch norm as one, on copies of the weights.

Equal to the ResNet in eval mode up to rounding, without its parameters and keys, and without gradients.  On a
CPU the residual and the ReLU are done by the convolution itself, where oneDNN has that (torch >= 2.0).
torch.compile of the ResNet was measured instead: minutes to compile, and 1.5 times as slow as this.
"""

import functools
from dataclasses import dataclass
from typing import Any, Callable, List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import Bottleneck, ResNet
from .frozen_norm import folded_weights
from .ops.dcn_backends import choose
from .ops.dcn_layer import ModulatedDeformConv
from .ops.dcn_rows import modulated_deform_conv_rows

# (x, relu, what is added before the ReLU and overwritten) -> y
Conv = Callable[[Tensor, bool, Optional[Tensor]], Tensor]


@dataclass(frozen=True)
class Block:
    """A bottleneck; shortcut: None is the input itself."""

    first: Conv
    second: Conv
    third: Conv
    shortcut: Optional[Conv]

    def __call__(self, x: Tensor, may_overwrite: bool) -> Tensor:
        out = self.second(self.first(x, True, None), True, None)
        if self.shortcut is not None:
            return self.third(out, True, self.shortcut(x, False, None))
        return self.third(out, True, x if may_overwrite else x.clone())


class FoldedResNet:
    """Images (B, 3, H, W) -> the maps of `out_stages`, as `ResNet` gives them.

    The weights are those of the moment when it was made.  dtype: what it computes in.
    """

    def __init__(
        self, resnet: ResNet, dtype: torch.dtype = torch.float32, channels_last: bool = False
    ) -> None:
        self.dtype, self.out_stages = dtype, resnet.out_stages
        fold = _Fold(dtype, channels_last)
        with torch.no_grad():
            self._stem = fold.conv(resnet.conv1, resnet.bn1)
            self._stages = [
                [fold.block(block) for block in getattr(resnet, "layer%d" % (stage + 1))]
                for stage in range(4)
            ]

    @torch.no_grad()
    def __call__(self, images_BCHW: Tensor) -> Tuple[Tensor, ...]:
        x = self._stem(images_BCHW.to(self.dtype), True, None)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        outs: List[Tensor] = []
        for stage, blocks in enumerate(self._stages):
            for block in blocks:
                x = block(x, not outs or x is not outs[-1])
            if stage in self.out_stages:
                outs.append(x)
        return tuple(outs)


@dataclass(frozen=True)
class _Fold:
    dtype: torch.dtype
    channels_last: bool

    def block(self, block: Bottleneck) -> Block:
        down = block.downsample
        return Block(
            self.conv(block.conv1, block.bn1),
            self.conv(block.conv2, block.bn2),
            self.conv(block.conv3, block.bn3),
            None if down is None else self.conv(down[0], down[1]),
        )

    def conv(self, conv: nn.Module, norm: Any) -> Conv:
        """The convolution, then the norm on its stored statistics, folded in the weights' own precision."""
        weight, shift = folded_weights(conv.weight, norm)  # type: ignore[arg-type]
        weight, shift = weight.to(self.dtype), shift.to(self.dtype)
        if isinstance(conv, ModulatedDeformConv):
            return FoldedDCN(conv, weight, shift)
        assert isinstance(conv, nn.Conv2d)
        like = dict(stride=conv.stride, padding=conv.padding, dilation=conv.dilation, groups=conv.groups)
        if self.channels_last and fuses(weight.device, self.dtype):
            return FusedConv(weight, shift, like)
        if self.channels_last:
            weight = weight.contiguous(memory_format=torch.channels_last)
        return PlainConv(weight, shift, like)


def fuses(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN's convolutions with what follows them are there, and give torch's numbers."""
    if device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return False
    return torch.backends.mkldnn.is_available() and _agrees(dtype)


@functools.lru_cache(maxsize=None)
def _agrees(dtype: torch.dtype) -> bool:
    """On one small example; an operator of torch's own use may change from one torch to the next."""
    numbers = torch.arange(-36.0, 36.0).view(2, 4, 3, 3) / 64  # exact in bf16
    weight, bias = numbers[:1, :, :1, :1].expand(4, -1, -1, -1).contiguous(), numbers[0, :, 0, 0]
    like = dict(padding=(0, 0), stride=(1, 1), dilation=(1, 1), groups=1)
    x, weight, bias = (each.to(dtype) for each in (numbers, weight, bias))
    plain, fused = PlainConv(weight, bias, like), FusedConv(weight, bias, like)
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        pairs = [(conv(x, True, None), conv(x, True, x.clone())) for conv in (plain, fused)]
    except (AttributeError, RuntimeError, TypeError):  # older: no such operator, or other arguments
        return False
    return all(torch.allclose(one.float(), other.float(), atol=0.02) for one, other in zip(*pairs))


class FusedConv:
    """By oneDNN, with the sum and the ReLU inside."""

    def __init__(self, weight: Tensor, bias: Tensor, like: Any) -> None:
        self._weight, self._bias = weight, bias.contiguous()  # it reads the bias as if it were
        self._like = (like["padding"], like["stride"], like["dilation"], like["groups"])

    def __call__(self, x: Tensor, relu: bool, added: Optional[Tensor]) -> Tensor:
        # In another layout it would fall back to several steps, which bf16 does not have.
        x = x.contiguous(memory_format=torch.channels_last)
        ops, args = torch.ops.mkldnn, (x, self._weight, self._bias, *self._like)
        if added is None:
            return ops._convolution_pointwise(*args, "relu" if relu else "none", [], "")  # type: ignore[no-any-return]
        added = added.contiguous(memory_format=torch.channels_last)
        return ops._convolution_pointwise_(  # type: ignore[no-any-return]
            added, *args, "add", 1.0, "relu" if relu else None, [], ""
        )


class PlainConv:
    """By torch, what follows in place."""

    def __init__(self, weight: Tensor, bias: Tensor, like: Any) -> None:
        self._weight, self._bias, self._like = weight, bias, like

    def __call__(self, x: Tensor, relu: bool, added: Optional[Tensor]) -> Tensor:
        return _finish(F.conv2d(x, self._weight, self._bias, **self._like), relu, added)


class FoldedDCN:
    """DCNv2 by the operator that the layer would use."""

    def __init__(self, layer: ModulatedDeformConv, weight: Tensor, shift: Tensor) -> None:
        self._weight, self._shift = weight, shift.view(1, -1, 1, 1)
        self._offset_weight = layer.conv_offset.weight.to(weight.dtype)
        self._offset_bias = layer.conv_offset.bias.to(weight.dtype)  # type: ignore[union-attr]
        self._stride, self._dilation, self._backend = layer.stride, layer.dilation, layer.backend

    def __call__(self, x: Tensor, relu: bool, added: Optional[Tensor]) -> Tensor:
        stride, dilation = self._stride, self._dilation
        both = F.conv2d(x, self._offset_weight, self._offset_bias, stride, dilation, dilation)
        name, operator = choose(self._backend, x.device.type)
        if name == "reference" and x.device.type == "cpu":
            operator = modulated_deform_conv_rows
        mask = both[:, 18:].sigmoid()
        out = operator(x, both[:, :18], mask, self._weight, stride, dilation, dilation)
        return _finish(out.add_(self._shift), relu, added)


def _finish(out: Tensor, relu: bool, added: Optional[Tensor]) -> Tensor:
    if added is not None:
        out = out.add_(added)
    return out.relu_() if relu else out
