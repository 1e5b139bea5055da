"""mmcv's compiled operators, asked one by one with inputs whose answer is known without computing."""

import importlib
import math
from typing import Any, Callable, Dict, List, Tuple

import torch
from torch import Tensor

ANSWERS, WRONG, FAILS = "answered", "computed something else", "failed"
NOT_FOR, LEFT_OUT = "not for this device", "left out"
TOLERANCE = 1e-4
# What mmcv 1.x and torch say where an operator has no version for a device, or there is no CUDA.
NOT_FOR_WORDS = (
    "implementation for device",
    "not compiled with",
    "not implemented on",
    "is not supported",
    "must be a CUDA",
    "no NVIDIA driver",
    "torch.cuda.",
)
LEFT_OUT_WORDS = "was left out when mmcv was compiled"


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
    return [dict(operator=name, **_ask(case, device)) for name, case in CASES.items()]


def _ask(case: Callable[[str], Tuple[Any, Any]], device: str) -> Dict[str, str]:
    try:
        found, right = case(device)
    except Exception as error:  # an operator refuses with what it likes
        said = " ".join(str(error).split()) or type(error).__name__
        if LEFT_OUT_WORDS in said:
            return {"answer": LEFT_OUT, "said": said}
        unsupported = any(word in said for word in NOT_FOR_WORDS)
        return {"answer": NOT_FOR if unsupported else FAILS, "said": said}
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


CASES: Dict[str, Callable[[str], Tuple[Any, Any]]] = {
    "modulated_deform_conv2d": _modulated_deform_conv,
    "ms_deform_attn": _ms_deform_attn,
    "nms": _nms,
    "soft_nms": _soft_nms,
    "box_iou_rotated": _box_iou_rotated,
    "nms_rotated": _nms_rotated,
    "bbox_overlaps": _bbox_overlaps,
    "roi_align": _roi_align,
    "roi_pool": _roi_pool,
    "deform_conv2d": _deform_conv,
    "voxelization": _voxelization,
    "sigmoid_focal_loss": _sigmoid_focal_loss,
    "points_in_boxes": _points_in_boxes,
    "furthest_point_sample": _furthest_point_sample,
}
