"""Files of one box convention in a place of the other: which one a file has, and its numbers changed.

Needs no OpenMMLab.  Conventions as in `boxes`.  `python -m bevformer.mm.conversion IN.pth OUT.pth` turns
weights that learned boxes of mmdet3d >= 1.0 (l, w, yaw) into ones that give the same boxes here, or back.
"""

import re
import sys
from collections import OrderedDict
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..atomic import write_whole
from ..checkpoint import load_checkpoint
from ..errors import ConfigError, UserError
from .boxes import LEGACY, NEW, convention_of

CLEAR = 1.3  # nuScenes' cars are 4.6 m by 1.95 m
ENOUGH = 20  # cars, before anything is said
SURE = 0.3  # score of a box that says something about sizes
_LAST = re.compile(r"(^|\.)reg_branches\.\d+\.4\.(weight|bias)$")
# Codes: cx, cy, log w, log l, cz, log h, sin, cos, vx, vy.  Of -yaw - pi/2 the sine is -cos, the cosine -sin.
_ROWS, _SIGNS = [0, 1, 3, 2, 4, 5, 7, 6, 8, 9], [1, 1, 1, 1, 1, 1, -1, -1, 1, 1]


def reordered(state: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Weights whose boxes are in the other convention: exact, and its own inverse.

    Only the last layer of each box branch knows the order of the codes.
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


def of_checkpoint(meta: Mapping[str, Any], asked: Optional[str] = None) -> Tuple[str, List[str]]:
    """The convention that its weights learned, and what to tell.

    Nothing in a file says it.  BEVFormer's own converter writes legacy boxes whatever mmdet3d is there, so
    that is what is assumed; `asked` overrules it.
    """
    if asked not in (None, LEGACY, NEW):
        raise ConfigError("boxes = %r" % (asked,), do="It is %r or %r." % (LEGACY, NEW))
    version = str(meta.get("mmdet3d_version", ""))
    if asked or not re.match(r"\d+\.", version):
        return asked or LEGACY, []
    if convention_of(version) == LEGACY:
        return LEGACY, [
            "It was trained with mmdet3d %s: its boxes are (w, l, h, -yaw - pi/2), as the bundled model's; "
            "those handed to mmdet3d >= 1.0 are converted." % version
        ]
    return LEGACY, [
        "It was trained with mmdet3d %s. Its boxes are taken for (w, l, h, -yaw - pi/2), as BEVFormer's own "
        "converter prepares them. If its frames were prepared by mmdet3d's converter they are (l, w, h, yaw):"
        " say boxes='1.0', or convert the file with python -m bevformer.mm.conversion." % version
    ]


def of_sizes(first_N: Sequence[float], second_N: Sequence[float]) -> Optional[str]:
    """The convention by the fourth and fifth number of cars; None where it is not clear."""
    if len(first_N) < ENOUGH:
        return None
    ratio = float((torch.tensor(first_N) / torch.tensor(second_N)).median())
    return NEW if ratio > CLEAR else LEGACY if ratio < 1 / CLEAR else None


def of_results(results: Sequence[Mapping[str, Any]], car: int = 0) -> Optional[str]:
    """The convention of detections as mmdet3d's tools save them; None where their cars do not tell."""
    first: List[float] = []
    second: List[float] = []
    for found in results:
        boxes = found["boxes_3d"].tensor
        cars = boxes[(found["labels_3d"] == car) & (found["scores_3d"] > SURE)]
        first += cars[:, 3].tolist()
        second += cars[:, 4].tolist()
    return of_sizes(first, second)


def main(argv: Sequence[str]) -> int:
    """Exit code of the error where there is one."""
    try:
        if len(argv) != 2:
            raise ConfigError("%d files" % len(argv), do="python -m bevformer.mm.conversion IN.pth OUT.pth")
        content = load_checkpoint(argv[0])
        converted = {"meta": content["meta"], "state_dict": reordered(content["state_dict"])}
        write_whole(argv[1], lambda stream: torch.save(converted, stream))
    except UserError as error:
        sys.stderr.write("%s\n" % error)
        return error.exit_code
    sys.stderr.write("%s: the weights of %s for boxes of the other convention\n" % (argv[1], argv[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
