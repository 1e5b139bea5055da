"""Which of mmdet3d's two conventions the boxes of a file have; weights that learned the other one, changed.

Names as in `boxes`: legacy is mmdet3d < 1.0 (w, l, h, -yaw - pi/2) and ours, new is >= 1.0 (l, w, h, yaw).

    python -m bevformer.box_convention IN.pth OUT.pth      weights from one convention to the other
"""

import re
import sys
from collections import OrderedDict
from typing import Any, Dict, Mapping, Optional, Sequence

import torch
from torch import Tensor

from .errors import ConfigError, UserError

LEGACY, NEW = "0.17", "1.0"  # as `data.infos_boxes` writes them
PLAIN = (str, int, float, bool, type(None))  # what is kept of a file's meta
TURNED = "boxes_turned"  # in the meta of a file that `main` wrote; a second time takes it out
CLEAR = 1.3  # nuScenes' cars are 4.6 m by 1.95 m
ENOUGH = 20  # cars, before anything is said
_LAST = re.compile(r"(^|\.)reg_branches\.\d+\.4\.(weight|bias)$")
# Codes: cx, cy, log w, log l, cz, log h, sin, cos, vx, vy.  Of -yaw - pi/2 the sine is -cos, the cosine -sin.
_ROWS, _SIGNS = [0, 1, 3, 2, 4, 5, 7, 6, 8, 9], [1, 1, 1, 1, 1, 1, -1, -1, 1, 1]


def convention_of(mmdet3d_version: str) -> str:
    """Of that mmdet3d's boxes; its 1.0 is new from the first pre-release on."""
    return NEW if int(mmdet3d_version.split(".")[0]) >= 1 else LEGACY


def of_checkpoint(meta: Mapping[str, Any], asked: Optional[str] = None) -> str:
    """What its weights learned.  BEVFormer's own converter writes legacy boxes whatever mmdet3d is there, and
    nothing in a file says that another one was used; so only `asked` overrules that.
    """
    if asked not in (None, LEGACY, NEW):
        raise ConfigError("boxes = %r" % (asked,), do="It is %r or %r." % (LEGACY, NEW))
    return asked or LEGACY


def trained_with(meta: Mapping[str, Any]) -> Optional[str]:
    """The convention of the mmdet3d beside which it was trained; None where the file does not say."""
    version = str(meta.get("mmdet3d_version", ""))
    return convention_of(version) if re.match(r"\d+\.", version) else None


def note_on(meta: Mapping[str, Any]) -> Optional[str]:
    """What is assumed of a checkpoint; None where its file says nothing of mmdet3d."""
    seen = trained_with(meta)
    if seen is None:
        return None
    if meta.get(TURNED):
        return "It was trained with mmdet3d %s and turned by bevformer.box_convention: its boxes are %s." % (
            meta["mmdet3d_version"],
            "(l, w, h, yaw) now, which the bundled model does not read; take the file of before"
            if seen == LEGACY
            else "taken for (w, l, h, -yaw - pi/2)",
        )
    if seen == LEGACY:
        return (
            "It was trained with mmdet3d %s: its boxes are (w, l, h, -yaw - pi/2), as the bundled model's; "
            "those handed to mmdet3d 1.0 and newer are converted." % meta["mmdet3d_version"]
        )
    return (
        "It was trained with mmdet3d %s. Its boxes are taken for (w, l, h, -yaw - pi/2), as BEVFormer's "
        "converter prepares them. If mmdet3d's own prepared its frames they are (l, w, h, yaw): convert it "
        "with python -m bevformer.box_convention." % meta["mmdet3d_version"]
    )


def reordered(state: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Weights that give the same boxes in the other convention: exact, and its own inverse.

    Only the last layer of each box branch knows the order of the codes.  ConfigError where there is none.
    """
    out = OrderedDict(state)
    found = [key for key in state if _LAST.search(key)]
    if not found:
        raise ConfigError("no box branches among %d weights" % len(state), "This is no BEVFormer.")
    for key in found:
        value = state[key]
        signs = torch.tensor(_SIGNS, dtype=value.dtype, device=value.device)
        out[key] = value[_ROWS] * signs.view(-1, *[1] * (value.dim() - 1))
    return out


def of_sizes(first_N: Sequence[float], second_N: Sequence[float]) -> Optional[str]:
    """By the fourth and fifth number of cars; None where it is not clear."""
    if len(first_N) < ENOUGH:
        return None
    ratio = float((torch.tensor(first_N) / torch.tensor(second_N)).median())
    return NEW if ratio > CLEAR else LEGACY if ratio < 1 / CLEAR else None


def main(argv: Sequence[str]) -> int:
    """Exit code of the error where there is one."""
    from .atomic import write_whole
    from .checkpoint import load_checkpoint

    try:
        if len(argv) != 2:
            raise ConfigError(
                "%d files instead of 2" % len(argv), do="python -m bevformer.box_convention IN.pth OUT.pth"
            )
        content = load_checkpoint(argv[0])
        meta = {key: value for key, value in content["meta"].items() if isinstance(value, PLAIN)}
        again = bool(meta.pop(TURNED, False))
        if not again:
            meta[TURNED] = True
        converted = {"meta": meta, "state_dict": reordered(content["state_dict"])}
        write_whole(argv[1], lambda stream: torch.save(converted, stream))
    except UserError as error:
        sys.stderr.write("%s\n" % error)
        return error.exit_code
    sys.stderr.write("%s: the weights of %s for boxes of the other convention\n" % (argv[1], argv[0]))
    if again:
        sys.stderr.write("%s had been turned before: these are the weights from before that.\n" % argv[0])
    elif trained_with(meta) == LEGACY or "bevformer_version" in meta:
        sys.stderr.write(
            "%s says that it learned (w, l, h, -yaw - pi/2), which the bundled model reads as it is: %s is "
            "for tools whose frames mmdet3d's own converter prepared, 1.0 or newer.\n" % (argv[0], argv[1])
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
