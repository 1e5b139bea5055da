"""The attentions on a CPU through `attention.cpp`: shapes, memory and gradients; the numbers are made there.

Letters as in `ops/deform_attn.py` and `ops/reference.py`.  Output has value's dtype and each gradient its
input's, whatever mixture autocast leaves; sums are float32, or float64 for float64 and where locations are
float64.  Nothing is kept for the backward pass but the inputs.  The same bits for any number of threads.
"""

import ctypes
import functools
import math
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ...errors import ConfigError
from ..visible import Pairs

Shapes = Sequence[Tuple[int, int]]
_KINDS = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}
_POINTERS = (
    "value offsets logits points grad out grad_value grad_offsets grad_logits level_h level_w level_start \
level_cell starts visit_map visit_row by_map map_starts"
)
_NUMBERS = (
    "map_stride cell_stride cells_per_map maps rows visits heads depth levels points_per_level references \
softmax_levels split_levels point_map_stride point_row_stride point_level_stride"
)
_LAST = "value_kind offsets_kind logits_kind compute_kind threads"


class Call(ctypes.Structure):
    """`struct Call` of attention.cpp, field by field."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in _POINTERS.split()]
        + [(name, ctypes.c_int64) for name in _NUMBERS.split()]
        + [("scale", ctypes.c_double)]
        + [(name, ctypes.c_int64) for name in _LAST.split()]
    )


class _Problem(NamedTuple):
    """What attention.cpp is told besides the numbers.  queues: the levels are queues of one map each."""

    library: Any
    shape: Tuple[int, ...]  # of the output
    shapes_L: Tuple[Tuple[int, int], ...]
    maps: int
    references: int
    point_strides: Tuple[int, int, int]  # of a map, a row, a level
    queues: bool = False
    pairs: Optional[Pairs] = None


class _Geometry(NamedTuple):
    """What two calls share whose `Call` differs in pointers and visits alone."""

    shapes_L: Tuple[Tuple[int, int], ...]
    maps: int
    rows: int
    channels: int
    heads: int
    points_per_level: int
    references: int
    point_strides: Tuple[int, int, int]
    queues: bool
    maps_per_sample: int  # temporal: 1, or as many as queues
    value_strides: Tuple[int, ...]
    dtypes: Tuple[torch.dtype, ...]  # of value, offsets, logits, and what is computed in
    threads: int


@functools.lru_cache(maxsize=64)
def _template(geometry: _Geometry) -> "_Held":
    """A call without tensors.  Filling one in takes longer than attending to a few queries."""
    g, held = geometry, _Held(Call())
    areas = [h * w for h, w in g.shapes_L]
    cells = [sum(areas[:level]) for level in range(len(areas))]
    starts = [cell * g.value_strides[-2] for cell in cells]
    one_for_all = g.queues and g.maps_per_sample == 1
    if g.queues:
        cells = [0 if one_for_all else cell for cell in cells]
        starts = [0 if one_for_all else level * g.value_strides[1] for level in range(len(areas))]
    kinds = [_KINDS[dtype] for dtype in g.dtypes]
    held.set(
        maps=g.maps,
        rows=g.rows,
        heads=g.heads,
        depth=g.channels // g.heads,
        levels=len(areas),
        points_per_level=g.points_per_level,
        references=g.references,
        softmax_levels=1 if g.queues else len(areas),
        split_levels=int(g.queues and not one_for_all),
        scale=1 / len(areas) if g.queues else 1.0,
        map_stride=g.value_strides[0],
        cell_stride=g.value_strides[-2],
        cells_per_map=areas[0] * g.maps_per_sample if g.queues else sum(areas),
        threads=g.threads,
    )
    held.set(**dict(zip(("value_kind", "offsets_kind", "logits_kind", "compute_kind"), kinds)))
    held.set(**dict(zip(("point_map_stride", "point_row_stride", "point_level_stride"), g.point_strides)))
    held.arrays(level_start=starts, level_cell=cells)
    held.arrays(level_h=[h for h, _ in g.shapes_L], level_w=[w for _, w in g.shapes_L])
    return held


def _call(problem: _Problem, value: Tensor, offsets: Tensor, logits: Tensor, points: Tensor) -> "_Held":
    """The call without the places for its results."""
    geometry = _Geometry(
        problem.shapes_L,
        problem.maps,
        math.prod(problem.shape[:-1]),
        value.shape[-1],
        logits.shape[-3],
        logits.shape[-1],
        problem.references,
        problem.point_strides,
        problem.queues,
        value.shape[1] if problem.queues else 0,
        value.stride(),
        (value.dtype, offsets.dtype, logits.dtype, points.dtype),
        torch.get_num_threads(),
    )
    held = _template(geometry).copy()
    held.tensors(value=value, offsets=offsets, logits=logits, points=points)
    if problem.pairs is not None:
        pairs = problem.pairs
        held.set(visits=len(pairs.camera_V))
        held.tensors(
            starts=pairs.starts_G1,
            visit_map=pairs.camera_V,
            visit_row=pairs.row_V,
            by_map=pairs.by_camera_V,
            map_starts=pairs.camera_starts_K1,
        )
    return held


class _Held:
    """A call and the memory that it points to."""

    def __init__(self, call: Call, alive: Sequence[Any] = ()) -> None:
        self.call = call
        self._alive: List[Any] = list(alive)

    def copy(self) -> "_Held":
        return _Held(Call.from_buffer_copy(self.call), self._alive)

    def set(self, **numbers: Any) -> None:
        for name, number in numbers.items():
            setattr(self.call, name, number)

    def arrays(self, **lists: Sequence[int]) -> None:
        for name, numbers in lists.items():
            array = (ctypes.c_int64 * len(numbers))(*numbers)
            self._alive.append(array)
            setattr(self.call, name, ctypes.addressof(array))

    def tensors(self, **tensors: Optional[Tensor]) -> None:
        """None is a null pointer."""
        for name, tensor in tensors.items():
            self._alive.append(tensor)
            setattr(self.call, name, None if tensor is None else tensor.data_ptr())

    def run(self, function: Callable[[Any], int]) -> None:
        """Raises ConfigError for what the other side refuses, MemoryError."""
        code = function(ctypes.byref(self.call))
        if code == 1:
            raise MemoryError("no memory for the gradients of deformable attention")
        if code:
            raise ConfigError(_REFUSALS[code], do="Use ops.attention=reference for this.")


_REFUSALS = {
    2: "the pairs of rows and cameras contradict each other: they have to come from gather_visible",
    3: "more than 240 samples or 1024 channels per query and head: ops.attention=cpp is not made for that",
    4: "a mixture of dtypes that ops.attention=cpp does not know",
}


def _dense(value: Tensor) -> Tensor:
    """Any strides will do if the channels of a cell lie side by side."""
    return value if value.stride(-1) == 1 or value.shape[-1] == 1 else value.contiguous()


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, offsets: Tensor, logits: Tensor, points: Tensor, problem: _Problem
    ) -> Tensor:
        ctx.save_for_backward(value, offsets, logits, points)
        ctx.problem = problem
        held = _call(problem, _dense(value), offsets.contiguous(), logits.contiguous(), points)
        out = value.new_empty(problem.shape)
        held.tensors(out=out)
        held.run(problem.library.bevformer_forward)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        if torch.is_grad_enabled():  # create_graph=True
            raise ConfigError(
                "a second derivative of deformable attention was asked for",
                "ops.attention=cpp has the first alone, and would let this one pass for zero.",
                "Use ops.attention=reference.",
            )
        value, offsets, logits, points = ctx.saved_tensors
        held = _call(ctx.problem, _dense(value), offsets.contiguous(), logits.contiguous(), points)
        dense = torch.contiguous_format
        grad_value = torch.empty_like(value, memory_format=dense) if ctx.needs_input_grad[0] else None
        grad_offsets = torch.empty_like(offsets, memory_format=dense)
        grad_logits = torch.empty_like(logits, memory_format=dense)
        held.tensors(grad=grad.contiguous(), grad_value=grad_value)
        held.tensors(grad_offsets=grad_offsets, grad_logits=grad_logits)
        held.run(ctx.problem.library.bevformer_backward)
        grad_points = _of_points(grad_offsets, points, ctx.problem) if ctx.needs_input_grad[3] else None
        return grad_value, grad_offsets, grad_logits, grad_points, None


def _of_points(grad_offsets: Tensor, points_MQZ2: Tensor, problem: _Problem) -> Tensor:
    """A location is its reference point in cells plus its offset: what moves one moves the other."""
    M, Q, H, L, P, _ = grad_offsets.shape
    Z = problem.references
    sizes = points_MQZ2.new_tensor([[w, h] for h, w in problem.shapes_L]).view(L, 1, 1, 2)
    return (grad_offsets.view(M, Q, H, L, P // Z, Z, 2) * sizes).sum((2, 3, 4))


def _attend(value: Tensor, offsets: Tensor, logits: Tensor, points: Tensor, problem: _Problem) -> Tensor:
    """Sums are float64 if anything is, else float32; other dtypes are cast to those."""
    moving = points.requires_grad and torch.is_grad_enabled()
    if moving and (problem.queues or problem.pairs is not None):
        raise ConfigError(
            "reference points that require a gradient, in temporal or spatial attention",
            "ops.attention=cpp makes none for them: BEVFormer's are the cells of the grid.",
            "Detach them, or use ops.attention=reference.",
        )
    four = (value, offsets, logits, points)
    if any(each.device.type != "cpu" for each in four):
        raise ConfigError("ops.attention=cpp was given tensors of another device", do="Use auto.")
    apply: Any = _Attention.apply
    if all(each.dtype is torch.float32 for each in four):
        plain: Tensor = apply(value, offsets, logits, points.contiguous(), problem)
        return plain
    wide = torch.float32
    for each in four:
        wide = torch.promote_types(wide, each.dtype)
    known = value.dtype == wide or (value.dtype == torch.bfloat16 and wide == torch.float32)
    # The points' gradient is taken from that of the offsets, which must not be rounded before.
    args = [each if each.dtype in _KINDS and not moving else each.to(wide) for each in (offsets, logits)]
    source = value if known else value.to(wide)
    out: Tensor = apply(source, *args, points.to(wide).contiguous(), problem)
    return out.to(value.dtype)


def _misfit(what: str, *numbers: Any) -> ConfigError:
    """numbers: tensors are told by their shape."""
    told = tuple(tuple(each.shape) if isinstance(each, Tensor) else each for each in numbers)
    return ConfigError("deformable attention was given tensors that do not fit together: " + what % told)


def _check(value: Tensor, shapes_L: Shapes, offsets: Tensor, logits: Tensor, references: int) -> None:
    """Reading beyond a tensor would not raise on the other side."""
    heads, points = logits.shape[-3], logits.shape[-1]
    if offsets.shape != (*logits.shape, 2):
        raise _misfit("offsets %s, logits %s", offsets, logits)
    cells = sum([h * w for h, w in shapes_L])
    if value.shape[-2] != cells:
        raise _misfit("value %s, %d cells", value, cells)
    if min(map(min, shapes_L)) <= 0:
        raise _misfit("a level without cells: %s", list(shapes_L))
    if heads < 1 or value.shape[-1] % heads:
        raise _misfit("value %s, %d heads", value, heads)
    if references < 1 or points < 1 or points % references:
        raise _misfit("%d points, %d references", points, references)


class Operators:
    """The three functions of a `Backend`, on a library that `build.py` made."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def deform_attn(
        self,
        value_MSC: Tensor,
        shapes_L: Shapes,
        reference_MQZ2: Tensor,
        offsets_MQHLP2: Tensor,
        logits_MQHLP: Tensor,
    ) -> Tensor:
        """As `ops.deform_attn`.  Raises ConfigError for shapes that do not fit together."""
        M, Q = logits_MQHLP.shape[:2]
        Z, shapes = reference_MQZ2.shape[2], tuple([(int(h), int(w)) for h, w in shapes_L])
        _check(value_MSC, shapes, offsets_MQHLP2, logits_MQHLP, Z)
        if logits_MQHLP.shape[3] != len(shapes):
            raise _misfit("logits %s, %d levels", logits_MQHLP, len(shapes))
        if value_MSC.shape[0] != M:
            raise _misfit("value %s, %d maps", value_MSC, M)
        if reference_MQZ2.shape != (M, Q, Z, 2):
            raise _misfit("references %s", reference_MQZ2)
        out = (M, Q, value_MSC.shape[-1])
        problem = _Problem(self._library, out, shapes, M, Z, (Q * Z * 2, Z * 2, 0))
        return _attend(value_MSC, offsets_MQHLP2, logits_MQHLP, reference_MQZ2, problem)

    def temporal_attn(
        self,
        value_BTQC: Tensor,
        hw: Tuple[int, int],
        reference_BTQ2: Tensor,
        offsets_BQHTP2: Tensor,
        logits_BQHTP: Tensor,
    ) -> Tensor:
        """As `ops.reference`.  value may have T = 1: both queues look at the same map, whose gradient is then
        taken once instead of twice."""
        B, Q, _, T, _ = logits_BQHTP.shape
        shapes = ((int(hw[0]), int(hw[1])),) * T
        if value_BTQC.shape[1] not in (1, T):
            raise _misfit("value %s, %d queues", value_BTQC, T)
        _check(value_BTQC, shapes[:1], offsets_BQHTP2, logits_BQHTP, 1)
        if value_BTQC.shape[0] != B:
            raise _misfit("value %s, %d samples", value_BTQC, B)
        if reference_BTQ2.shape != (B, T, Q, 2):
            raise _misfit("references %s", reference_BTQ2)
        out = (B, Q, value_BTQC.shape[-1])
        problem = _Problem(self._library, out, shapes, B, 1, (T * Q * 2, 2, Q * 2), queues=True)
        return _attend(value_BTQC, offsets_BQHTP2, logits_BQHTP, reference_BTQ2, problem)

    def spatial_attn(
        self, value_KSC: Tensor, shapes_L: Shapes, pairs: Pairs, offsets_GHLP2: Tensor, logits_GHLP: Tensor
    ) -> Tensor:
        """As `ops.reference`, but in value's dtype.  Raises ConfigError, also for pairs that contradict
        each other."""
        V, Z = pairs.points_VZ2.shape[:2]
        shapes = tuple([(int(h), int(w)) for h, w in shapes_L])
        _check(value_KSC, shapes, offsets_GHLP2, logits_GHLP, Z)
        if logits_GHLP.shape[2] != len(shapes):
            raise _misfit("logits %s, %d levels", logits_GHLP, len(shapes))
        for index, length in (
            (pairs.starts_G1, len(logits_GHLP) + 1),
            (pairs.camera_V, V),
            (pairs.row_V, V),
            (pairs.by_camera_V, V),
            (pairs.camera_starts_K1, len(value_KSC) + 1),
        ):
            if index.dtype != torch.int32 or index.shape != (length,):
                raise _misfit("pairs %s", index)
            if index.device.type != "cpu" or not index.is_contiguous():
                raise _misfit("pairs of another device")
        out = (len(logits_GHLP), value_KSC.shape[-1])
        problem = _Problem(self._library, out, shapes, len(value_KSC), Z, (0, Z * 2, 0), pairs=pairs)
        return _attend(value_KSC, offsets_GHLP2, logits_GHLP, pairs.points_VZ2, problem)
