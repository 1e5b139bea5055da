"""mmcv's operators where they are installed: which of them answer, and whether they compute what ours do."""

from collections import Counter
from typing import Any, Dict, List

import torch

from . import mm
from .mm import compiled
from .ops.deform_attn import deform_attn
from .ops.mmcv_backend import load
from .ops.modulated_conv import modulated_deform_conv
from .selftest_ops import LOOSE, TIGHT, AttentionSize, ConvSize, compare_attention, compare_conv
from .selftest_packages import refuse_without_operators
from .selftest_told import Told, Wrong

KEPT = [0, 2]
LIMITS = ((torch.float32, LOOSE), (torch.float64, TIGHT))
ATTENTION = AttentionSize(2, 40, 8, 4, 32, ((12, 20), (6, 10), (3, 5)))
CONVOLUTIONS = (ConvSize(2, 16, 12, 15, 8), ConvSize(2, 16, 12, 15, 8, 2), ConvSize(1, 8, 9, 9, 8, 1, 2))


def check_mmcv_operators() -> str:
    """mmcv's operators against the bundled ones on a small example, on the GPU where torch has one."""
    refuse_without_operators()
    device = _devices()[-1]
    first = compare_attention(load(device).deform_attn, deform_attn, torch.float32, device, LOOSE)
    conv = mm.modulated_deform_conv2d()
    second = compare_conv(conv, modulated_deform_conv, torch.float32, device, LOOSE)
    boxes = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 10, 10], [20.0, 0, 30, 10]], device=device)
    kept = mm.nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.5).tolist()
    if kept != KEPT:
        raise Wrong("nms keeps %s instead of %s" % (kept, KEPT))
    said = "%s: largest difference: deformable attention %.1e, DCNv2 %.1e"
    return said % (device, max(first), max(second))


def check_mmcv_compiled() -> Told:
    """Compiled operators with inputs whose answers are known; those for GPUs alone do not fail on a CPU."""
    refuse_without_operators()
    build = compiled.build_of_mmcv()
    rows: List[Dict[str, Any]] = []
    for device in _devices():
        rows += [dict(device=device, **row) for row in compiled.ask_all(device)]
    counts = Counter(row["answer"] for row in rows)
    said = "%(functions)s functions are bound, by %(compiler)s, CUDA %(cuda)s" % build
    said += "; asked %d: %s" % (len(rows), ", ".join("%d %s" % (n, word) for word, n in counts.items()))
    bad = [row for row in rows if row["answer"] in (compiled.WRONG, compiled.FAILS)]
    if bad:
        named = ("%(operator)s on %(device)s %(answer)s: %(said)s" % row for row in bad)
        raise Wrong("%s. %s" % (said, "; ".join(named)), rows)
    return Told(said, rows)


def check_mmcv_parity() -> Told:
    """DCNv2 and deformable attention of mmcv against ours in float32 and float64, forward and backward.

    The attention is mmcv's kernel on a GPU and its plain torch elsewhere, as our backend `mmcv` runs it.
    """
    refuse_without_operators()
    rows = [row for device in _devices() for dtype, limit in LIMITS for row in _parity(device, dtype, limit)]
    worst = {
        name: max(_worst(row) for row in rows if row["dtype"] == name) for name in ("float32", "float64")
    }
    said = "mmcv against ours on %s: at most %.1e apart in float32, %.1e in float64"
    return Told(said % (" and ".join(_devices()), worst["float32"], worst["float64"]), rows)


def _parity(device: str, dtype: torch.dtype, limit: float) -> List[Dict[str, Any]]:
    attend = load(device).deform_attn
    found = [
        ("deformable attention", compare_attention(attend, deform_attn, dtype, device, limit, ATTENTION))
    ]
    conv = mm.modulated_deform_conv2d()
    for size in CONVOLUTIONS:
        name = "DCNv2, stride %d, dilation %d" % (size.stride, size.dilation)
        found.append((name, compare_conv(conv, modulated_deform_conv, dtype, device, limit, size)))
    head = {"device": device, "dtype": str(dtype).replace("torch.", "")}
    return [
        dict(head, operator=name, forward=each.forward, gradients=each.gradients, limit=limit)
        for name, each in found
    ]


def _worst(row: Dict[str, Any]) -> float:
    return max(float(row["forward"]), float(row["gradients"]))


def _devices() -> List[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
