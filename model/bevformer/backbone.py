"""ResNet (He et al., 2016) in its pytorch and caffe styles, with DCNv2 where a stage asks for it.

Keys as in mmdet's ResNet: conv1, bn1, layer1..layer4.
"""

import math
from typing import List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from .config import BackboneConfig
from .errors import ConfigError
from .frozen_norm import folded_conv
from .micro_backbone import MicroBackbone
from .ops.dcn_layer import ModulatedDeformConv
from .recompute import recompute

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a residual.  pytorch style strides in the 3x3, caffe style in the first 1x1.

    dcn: the backend of DCNv2 in the 3x3, None for an ordinary convolution.
    """

    def __init__(self, in_channels: int, planes: int, stride: int, caffe: bool, dcn: Optional[str]) -> None:
        super().__init__()
        stride1, stride2 = (stride, 1) if caffe else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, planes, 1, stride=stride1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2: nn.Module = (
            ModulatedDeformConv(planes, planes, stride2, backend=dcn)
            if dcn
            else nn.Conv2d(planes, planes, 3, stride=stride2, padding=1, bias=False)
        )
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample = None
        if stride != 1 or in_channels != planes * 4:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, planes * 4, 1, stride=stride, bias=False), nn.BatchNorm2d(planes * 4)
            )

        self.fold_norms = False

    def forward(self, x: Tensor) -> Tensor:
        # In place, which needs no new memory: a norm or a convolution keeps its input, not its output.
        out = torch.relu_(self._normed(self.conv1, self.bn1, x))
        out = torch.relu_(self._normed(self.conv2, self.bn2, out))
        out = self._normed(self.conv3, self.bn3, out)
        down = self.downsample
        return torch.relu_(out.add_(x if down is None else self._normed(down[0], down[1], x)))

    def _normed(self, conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
        if self.fold_norms and type(conv) is nn.Conv2d:
            return folded_conv(conv, norm, x)
        return norm(conv(x))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """(B, 3, H, W) -> the feature maps of `out_stages`, strides 4, 8, 16, 32.

    Batch norm always runs on its stored statistics and never gets a gradient; stem and the first
    `frozen_stages` stages get none at all (facts: bevformer.md, Presets).

    checkpoint_blocks: blocks run again in the backward pass; checkpoint_groups: groups of blocks too, so that
    of a stage's n blocks about 2 sqrt(n) inputs wait at a time instead of n.

    fold_norms: batch norms are done by the convolutions before them, whose weights are multiplied anew each
    time (`frozen_norm`).
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        if config.depth not in _BLOCKS or config.style not in ("pytorch", "caffe"):
            raise ConfigError(
                "no ResNet-%s in %s style" % (config.depth, config.style),
                do="backbone.depth is 50 or 101, backbone.style pytorch or caffe.",
            )
        self.out_stages = config.out_stages
        self.checkpoint_blocks, self.checkpoint_groups = config.checkpoint_blocks, False
        self.fold_norms = False
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, count in enumerate(_BLOCKS[config.depth]):
            planes = 64 * 2**stage
            blocks: List[nn.Module] = []
            for index in range(count):
                stride = 2 if index == 0 and stage > 0 else 1
                blocks.append(
                    Bottleneck(
                        channels,
                        planes,
                        stride,
                        caffe=config.style == "caffe",
                        dcn=config.dcn_backend if stage in config.dcn_stages else None,
                    )
                )
                channels = planes * 4
            setattr(self, "layer%d" % (stage + 1), nn.Sequential(*blocks))
        self._init_weights()
        self._freeze(config.frozen_stages)
        self.train(self.training)

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:  # a DCN's offset branch stays zero
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _freeze(self, frozen_stages: int) -> None:
        frozen: List[nn.Module] = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
        if frozen_stages >= 0:
            frozen += [self.conv1, self.bn1]
            frozen += [getattr(self, "layer%d" % (i + 1)) for i in range(frozen_stages)]
        for module in frozen:
            for parameter in module.parameters():
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> "ResNet":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, images_BCHW: Tensor) -> Tuple[Tensor, ...]:
        if self.fold_norms:
            x = torch.relu_(folded_conv(self.conv1, self.bn1, images_BCHW))
        else:
            x = torch.relu_(self.bn1(self.conv1(images_BCHW)))
        x = nn.functional.max_pool2d(x, 3, stride=2, padding=1)
        outs = []
        for stage in range(4):
            x = self._stage(list(getattr(self, "layer%d" % (stage + 1))), x)
            if stage in self.out_stages:
                outs.append(x)
        return tuple(outs)

    def fold(self, on: bool) -> None:
        """Let this and all its blocks fold their norms, or not."""
        for module in self.modules():
            if isinstance(module, (ResNet, Bottleneck)):
                module.fold_norms = on

    def _stage(self, blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
        if not self.checkpoint_groups:
            return self._blocks(blocks, x)
        size = math.ceil(math.sqrt(len(blocks)))
        for first in range(0, len(blocks), size):
            x = recompute(self._blocks, blocks[first : first + size], x, draws=False)
        return x

    def _blocks(self, blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
        for block in blocks:
            x = recompute(block, x, draws=False) if self.checkpoint_blocks else block(x)
        return x


def build_backbone(config: BackboneConfig) -> nn.Module:
    """Raises ConfigError for an unknown kind."""
    if config.kind == "resnet":
        return ResNet(config)
    if config.kind == "micro":
        return MicroBackbone(config.widths)
    raise ConfigError("unknown backbone.kind: %r" % config.kind, do="resnet or micro")
