"""mmcv's compiled operators, asked one by one with inputs whose answer is known without computing.

What an operator may answer is known beforehand: devices.json has, for each mmcv that a target pins, the C++
functions that are there for a device.  Those have to answer; the others may say that they are not there.
"""

import importlib
import json
import math
import os
from typing import Any, Callable, Dict, FrozenSet, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

ANSWERS, WRONG, FAILS = "answered", "computed something else", "failed"
NOT_FOR, LEFT_OUT = "not for this device", "left out"
TOLERANCE = 1e-4
# What mmcv's dispatcher says of a device that a function is not there for; the second where its Python code
# puts a helper on a GPU before that, and the rest where torch has none to put it on.
NOT_FOR_WORDS = (
    ": implementation for device",
    ", inconsistent device:",
    "Not compiled with GPU support",
    "Torch not compiled with CUDA enabled",
    "Found no NVIDIA driver on your system",
)
LEFT_OUT_WORDS = "was left out when mmcv was compiled"
NO_CUDA = "not available"  # of mmcv._ext.get_compiling_cuda_version()
DEVICES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "devices.json")


class Case(NamedTuple):
    """How an operator is asked, and the C++ function that answers; cuda: None where mmcv asks the CPU's."""

    ask: Callable[[str], Tuple[Any, Any]]
    cpu: str
    cuda: Optional[str]

    def function_on(self, device: str) -> Tuple[str, str]:
        """The function's device and name."""
        return ("cpu", self.cpu) if device == "cpu" or self.cuda is None else ("cuda", self.cuda)


def left_out(error: BaseException) -> bool:
    """Whether it is what `env build --operators` puts in place of a function that it does not compile."""
    return LEFT_OUT_WORDS in str(error)


def build_of_mmcv() -> Dict[str, str]:
    """functions: how many are bound; compiler, cuda: what made them.  Raises what importing it does."""
    extension: Any = importlib.import_module("mmcv._ext")
    return {
        "functions": str(sum(1 for name in dir(extension) if not name.startswith("_"))),
        "compiler": str(extension.get_compiler_version()),
        "cuda": str(extension.get_compiling_cuda_version()),
    }


def ask_all(device: str) -> List[Dict[str, Any]]:
    """operator, answer (one of the words above), said."""
    there = functions()
    return [dict(operator=name, **_ask(case, device, there)) for name, case in CASES.items()]


def functions() -> FrozenSet[Tuple[str, str]]:
    """Device and name of the C++ functions that this mmcv has; empty for one that nobody has looked into."""
    with open(DEVICES, encoding="utf-8") as stream:
        row = json.load(stream).get("mmcv-full %s" % importlib.import_module("mmcv").__version__, {})
    devices = ("cpu",) if build_of_mmcv()["cuda"] == NO_CUDA else ("cpu", "cuda")
    return frozenset((device, name) for device in devices for name in row.get(device, ()))


def _ask(case: Case, device: str, there: FrozenSet[Tuple[str, str]]) -> Dict[str, str]:
    try:
        found, right = case.ask(device)
    except Exception as error:  # an operator refuses with what it likes
        said = " ".join(str(error).split()) or type(error).__name__
        if left_out(error):
            return {"answer": LEFT_OUT, "said": said}
        absent = case.function_on(device) not in there and any(word in said for word in NOT_FOR_WORDS)
        return {"answer": NOT_FOR if absent else FAILS, "said": said}
    said = _difference(torch.as_tensor(found).detach().double().cpu(), torch.as_tensor(right).double())
    return {"answer": WRONG if said else ANSWERS, "said": said}


def _difference(found: Tensor, right: Tensor) -> str:
    """Empty where they agree; a single right number is that of every element."""
    if right.dim() and found.shape != right.shape:
        return "%s instead of %s" % (found.tolist(), right.tolist())
    apart = float((found - right).abs().max()) if found.numel() else math.nan
    return "" if apart <= TOLERANCE else "off by %.3g" % apart


def _ops() -> Any:
    return importlib.import_module("mmcv.ops")


def _boxes(device: str) -> Tuple[Tensor, Tensor]:
    """Two that overlap and one apart, with falling scores."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 10, 10], [20.0, 0, 30, 10]], device=device)
    return boxes, torch.tensor([0.9, 0.8, 0.7], device=device)


def _nms(device: str) -> Tuple[Any, Any]:
    return _ops().nms(*_boxes(device), 0.5)[1], [0, 2]


def _soft_nms(device: str) -> Tuple[Any, Any]:
    """The box beside the first keeps 1 - 0.9 of its score."""
    kept, _ = _ops().soft_nms(*_boxes(device), 0.5, method="linear")
    return kept[:, 4], [0.9, 0.7, 0.08]


def _rotated(device: str) -> Tensor:
    return torch.tensor([[5.0, 5, 4, 2, 0], [5.0, 5, 2, 4, math.pi / 2], [50.0, 5, 4, 2, 0]], device=device)


def _box_iou_rotated(device: str) -> Tuple[Any, Any]:
    boxes = _rotated(device)
    return _ops().box_iou_rotated(boxes, boxes), [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def _nms_rotated(device: str) -> Tuple[Any, Any]:
    scores = torch.tensor([0.9, 0.8, 0.7], device=device)
    return _ops().nms_rotated(_rotated(device), scores, 0.5)[1], [0, 2]


def _bbox_overlaps(device: str) -> Tuple[Any, Any]:
    boxes = _boxes(device)[0]
    return _ops().bbox_overlaps(boxes[:1], boxes), [[1, 0.9, 0]]


def _regions(device: str) -> Tuple[Tensor, Tensor]:
    """A map that is 3 everywhere, and a region inside of it."""
    return torch.full((1, 1, 8, 8), 3.0, device=device), torch.tensor([[0.0, 1, 1, 6, 6]], device=device)


def _roi_align(device: str) -> Tuple[Any, Any]:
    return _ops().roi_align(*_regions(device), 2, 1.0, 2, "avg", True), 3.0


def _roi_pool(device: str) -> Tuple[Any, Any]:
    return _ops().roi_pool(*_regions(device), 2, 1.0), 3.0


def _conv_inputs(device: str) -> Tuple[Tensor, Tensor, Tensor]:
    """Without offsets both deformable convolutions are plain ones: here sums over 2 channels of 3 x 3."""
    x = torch.ones(1, 2, 5, 5, device=device)
    return x, torch.zeros(1, 18, 3, 3, device=device), torch.ones(1, 2, 3, 3, device=device)


def _deform_conv(device: str) -> Tuple[Any, Any]:
    return _ops().deform_conv2d(*_conv_inputs(device)), 18.0


def _modulated_deform_conv(device: str) -> Tuple[Any, Any]:
    x, offset, weight = _conv_inputs(device)
    mask = torch.full((1, 9, 3, 3), 0.5, device=device)
    return _ops().modulated_deform_conv2d(x, offset, mask, weight, None, 1, 0, 1, 1, 1), 9.0


def _ms_deform_attn(device: str) -> Tuple[Any, Any]:
    """The compiled kernel: the weighted mean of a map that is 3 everywhere."""
    module: Any = importlib.import_module("mmcv.ops.multi_scale_deform_attn")
    shapes = torch.tensor([[4, 4]], device=device)
    value, start = torch.full((1, 16, 2, 32), 3.0, device=device), torch.zeros(1, dtype=torch.long).to(device)
    locations = torch.full((1, 5, 2, 1, 4, 2), 0.5, device=device)
    weights = torch.full((1, 5, 2, 1, 4), 0.25, device=device)
    run = module.MultiScaleDeformableAttnFunction.apply
    return run(value, shapes, start, locations, weights, 1), 3.0


def _voxelization(device: str) -> Tuple[Any, Any]:
    """Two points share a voxel of 1 m, the third lies in another."""
    points = torch.tensor([[0.1, 0.1, 0.1], [0.2, 0.2, 0.2], [2.5, 0.5, 0.5]], device=device)
    voxels = _ops().Voxelization([1.0, 1.0, 1.0], [0.0, 0, 0, 4, 4, 4], 5, 10)(points)
    return sorted(voxels[2].tolist()), [1, 2]


def _sigmoid_focal_loss(device: str) -> Tuple[Any, Any]:
    """A logit of 0: a quarter of alpha times ln 2."""
    logits, target = torch.zeros(1, 1, device=device), torch.zeros(1, dtype=torch.long, device=device)
    loss = _ops().sigmoid_focal_loss(logits, target, 2.0, 0.25, None, "sum")
    return loss, 0.25 * 0.25 * math.log(2)


def _points_in_boxes(device: str) -> Tuple[Any, Any]:
    """One point inside a box that stands on the ground, one outside."""
    points = torch.tensor([[[0.0, 0, 0.5], [9.0, 0, 0.5]]], device=device)
    boxes = torch.tensor([[[0.0, 0, 0, 2, 2, 1, 0]]], device=device)
    name = "points_in_boxes_cpu" if device == "cpu" else "points_in_boxes_all"
    return getattr(_ops(), name)(points, boxes), [[[1], [0]]]


def _furthest_point_sample(device: str) -> Tuple[Any, Any]:
    points = torch.tensor([[[0.0, 0, 0], [0.1, 0, 0], [5.0, 0, 0]]], device=device)
    return _ops().furthest_point_sample(points, 2), [[0, 2]]


def _case(ask: Callable[[str], Tuple[Any, Any]], function: str) -> Case:
    """Of one whose function has the same name everywhere."""
    return Case(ask, function, function)


CASES: Dict[str, Case] = {
    "modulated_deform_conv2d": _case(_modulated_deform_conv, "modulated_deformable_im2col_impl"),
    "ms_deform_attn": _case(_ms_deform_attn, "ms_deform_attn_impl_forward"),
    "nms": _case(_nms, "nms_impl"),
    "soft_nms": Case(_soft_nms, "softnms_impl", None),
    "box_iou_rotated": _case(_box_iou_rotated, "box_iou_rotated_impl"),
    "nms_rotated": Case(_nms_rotated, "nms_rotated_cpu", "nms_rotated_cuda"),
    "bbox_overlaps": _case(_bbox_overlaps, "bbox_overlaps_impl"),
    "roi_align": _case(_roi_align, "roi_align_forward_impl"),
    "roi_pool": _case(_roi_pool, "roi_pool_forward_impl"),
    "deform_conv2d": _case(_deform_conv, "deformable_im2col_impl"),
    "voxelization": _case(_voxelization, "hard_voxelize_forward_impl"),
    "sigmoid_focal_loss": _case(_sigmoid_focal_loss, "sigmoid_focal_loss_forward_impl"),
    "points_in_boxes": Case(
        _points_in_boxes, "points_in_boxes_cpu_forward", "points_in_boxes_all_forward_impl"
    ),
    "furthest_point_sample": _case(_furthest_point_sample, "furthest_point_sampling_forward_impl"),
}
