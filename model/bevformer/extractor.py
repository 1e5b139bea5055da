"""Camera features without gradients: what inference and the history of a training step run.

B batch, N cameras, C channels, h, w a level's size.
"""

from typing import Any, List, Optional

import torch
from torch import Tensor, nn

from .amp import autocast_dtype
from .backbone import ResNet
from .config import OpsConfig
from .errors import ConfigError
from .folded import FoldedResNet

CHOICES = ("auto", "on", "off")
PIXELS_AT_ONCE = 2**19  # beyond it more images at a time gain nothing on a CPU, and take more memory


def switched(name: str, asked: str, auto: bool) -> bool:
    """auto, on or off as a bool.  Raises ConfigError."""
    if asked not in CHOICES:
        raise ConfigError("ops.%s=%s" % (name, asked), do="It is one of %s." % ", ".join(CHOICES))
    return auto if asked == "auto" else asked == "on"


def channels_last(asked: str, backbone: nn.Module, device_type: str, dtype: torch.dtype) -> bool:
    """Whether convolutions run on maps whose channels lie together.

    auto: for a ResNet, on a CPU with oneDNN, and on a GPU in half precision: its tensor cores want that.
    """
    halves = (torch.float16, torch.bfloat16)
    fitting = dtype in halves or (
        device_type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available()
    )
    return switched("channels_last", asked, isinstance(backbone, ResNet) and fitting)


def images_at_once(asked: int, device_type: str, height: int, width: int) -> Optional[int]:
    """None for all.  0 chooses: on a CPU what makes up PIXELS_AT_ONCE, on a GPU all of them."""
    if asked < 0:
        raise ConfigError("ops.cameras_at_once=%d" % asked, do="A number of images, or 0 for a good one.")
    if asked or device_type != "cpu":
        return asked or None
    return max(1, PIXELS_AT_ONCE // (height * width))


def computing_dtype(parameter: Tensor) -> torch.dtype:
    """Of convolutions with that weight: autocast's, where it is on."""
    return autocast_dtype(parameter.device.type) or parameter.dtype


def prepare(backbone: nn.Module, ops: OpsConfig) -> None:
    """What the options say of the pass with gradients.  Raises ConfigError."""
    channels_last(ops.channels_last, backbone, "cpu", torch.float32)
    images_at_once(ops.cameras_at_once, "cpu", 1, 1)
    if switched("folded_norms", ops.folded_norms, False) and isinstance(backbone, ResNet):
        backbone.fold(True)


def arranged(images_BCHW: Tensor, backbone: nn.Module, ops: OpsConfig) -> Tensor:
    """In the layout in which the backbone is to run; its maps keep it."""
    dtype = computing_dtype(next(backbone.parameters()))
    if channels_last(ops.channels_last, backbone, images_BCHW.device.type, dtype):
        return images_BCHW.contiguous(memory_format=torch.channels_last)
    return images_BCHW


class Extractor:
    """(B, N, 3, H, W) -> levels of (B, N, C, h, w), finest first; backbone and neck of a model in eval mode.

    Made for a number of frames: it holds folded copies of the weights as they were then, in what autocast
    computed in.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module, ops: OpsConfig) -> None:
        """ops: of the configuration."""
        self._neck, self._ops, self._of = neck, ops, backbone
        self._backbone: Any = backbone
        if switched("folded_norms", ops.folded_norms, True) and isinstance(backbone, ResNet):
            weight = next(backbone.parameters())
            dtype = computing_dtype(weight)
            last = channels_last(ops.channels_last, backbone, weight.device.type, dtype)
            self._backbone = FoldedResNet(backbone, dtype, last)

    @torch.no_grad()
    def __call__(self, images_BNCHW: Tensor) -> List[Tensor]:
        B, N, _, H, W = images_BNCHW.shape
        images = images_BNCHW.flatten(0, 1)
        size = images_at_once(self._ops.cameras_at_once, images.device.type, H, W) or len(images)
        parts = [self._levels(part) for part in images.split(size)]
        levels = [torch.cat(level) if len(level) > 1 else level[0] for level in zip(*parts)]
        return [level.view(B, N, *level.shape[1:]) for level in levels]

    def _levels(self, images_BCHW: Tensor) -> List[Tensor]:
        levels: List[Tensor] = self._neck(self._backbone(arranged(images_BCHW, self._of, self._ops)))
        return levels
