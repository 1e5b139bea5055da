"""mmcv's operators where they are installed: which of them answer, and whether they compute what ours do.

What was left out on purpose when mmcv was compiled is a row that says so; anything else that fails, fails.
"""

import functools
from collections import Counter
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch

from . import mm
from .mm import compiled
from .ops.deform_attn import deform_attn
from .ops.mmcv_backend import load
from .ops.modulated_conv import modulated_deform_conv
from .selftest_ops import (
    LOOSE,
    SMALL_ATTENTION,
    SMALL_CONV,
    TIGHT,
    Apart,
    AttentionSize,
    ConvSize,
    compare_attention,
    compare_conv,
)
from .selftest_packages import asked_for, refuse_without_operators
from .selftest_told import Told, Wrong

KEPT = [0, 2]
LIMITS = ((torch.float32, LOOSE), (torch.float64, TIGHT))
ATTENTION = AttentionSize(2, 40, 8, 4, 32, ((12, 20), (6, 10), (3, 5)))
CONVOLUTIONS = (ConvSize(2, 16, 12, 15, 8), ConvSize(2, 16, 12, 15, 8, 2), ConvSize(1, 8, 9, 9, 8, 1, 2))
Row = Dict[str, Any]


def check_mmcv_operators() -> Told:
    """mmcv's operators against the bundled ones on a small example, on the GPU where torch has one."""
    refuse_without_operators()
    device = _devices()[-1]
    checks = (("deformable attention", _attention), ("DCNv2", _conv), ("nms", _nms))
    rows = []  # type: List[Row]
    for name, compare in checks:
        answer, apart = _unless_left_out(functools.partial(compare, device, torch.float32, LOOSE))
        largest = max(apart) if apart else None
        rows.append({"device": device, "operator": name, "answer": answer, "apart": largest})
    found = ["%s %.1e" % (row["operator"], row["apart"]) for row in rows if row["apart"] is not None]
    said = "%s: largest difference: %s" % (device, ", ".join(found) or "nothing to compare")
    return Told(said + _said_left_out(rows), rows)


def check_mmcv_compiled() -> Told:
    """Compiled operators with inputs whose answers are known; those for GPUs alone do not fail on a CPU."""
    refuse_without_operators()
    build = compiled.build_of_mmcv()
    rows: List[Row] = []
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
    compared = [row for row in rows if row["answer"] == compiled.ANSWERS]
    where = " and ".join(_devices())
    if not compared:
        return Told("nothing to compare on %s%s" % (where, _said_left_out(rows)), rows)
    worst = [max(_worst(row) for row in compared if row["dtype"] == name) for name in ("float32", "float64")]
    said = "mmcv against ours on %s: at most %.1e apart in float32, %.1e in float64" % (where, *worst)
    return Told(said + _said_left_out(rows), rows)


def _parity(device: str, dtype: torch.dtype, limit: float) -> List[Row]:
    compared = [("deformable attention", functools.partial(_attention, size=ATTENTION))]
    for size in CONVOLUTIONS:
        name = "DCNv2, stride %d, dilation %d" % (size.stride, size.dilation)
        compared.append((name, functools.partial(_conv, size=size)))
    rows = []
    for name, compare in compared:
        answer, apart = _unless_left_out(functools.partial(compare, device, dtype, limit))
        row = {
            "device": device,
            "dtype": str(dtype).replace("torch.", ""),
            "operator": name,
            "answer": answer,
        }
        forward, gradients = apart or (None, None)
        rows.append(dict(row, forward=forward, gradients=gradients, limit=limit))
    return rows


def _attention(device: str, dtype: torch.dtype, limit: float, size: AttentionSize = SMALL_ATTENTION) -> Apart:
    return compare_attention(load(device).deform_attn, deform_attn, dtype, device, limit, size)


def _conv(device: str, dtype: torch.dtype, limit: float, size: ConvSize = SMALL_CONV) -> Apart:
    return compare_conv(mm.modulated_deform_conv2d(), modulated_deform_conv, dtype, device, limit, size)


def _nms(device: str, dtype: torch.dtype, _: float) -> None:
    """Wrong where it keeps other boxes than it should."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 10, 10], [20.0, 0, 30, 10]], device=device, dtype=dtype)
    kept = mm.nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device, dtype=dtype), 0.5).tolist()
    if kept != KEPT:
        raise Wrong("nms keeps %s instead of %s" % (kept, KEPT))


def _unless_left_out(compare: Callable[[], Optional[Apart]]) -> Tuple[str, Optional[Apart]]:
    """The answer and what it found; the former is compiled.LEFT_OUT where mmcv was compiled without it."""
    try:
        return compiled.ANSWERS, compare()
    except RuntimeError as error:
        if compiled.left_out(error):
            return compiled.LEFT_OUT, None
        raise


def _said_left_out(rows: Sequence[Row]) -> str:
    names = {row["operator"]: None for row in rows if row["answer"] == compiled.LEFT_OUT}
    return "; left out when mmcv was compiled: %s" % ", ".join(names) if names else ""


def _worst(row: Row) -> float:
    return max(float(row["forward"]), float(row["gradients"]))


def _devices() -> List[str]:
    """Without the GPU in an environment for CPUs, whose torch may see one all the same (1.10.0+cu102)."""
    return ["cpu", "cuda"] if torch.cuda.is_available() and asked_for().for_gpu else ["cpu"]
