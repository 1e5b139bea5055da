"""The operators' problems at the sizes of the presets: real geometry, random numbers.

B = 1 sample, Q queries, N cameras, S sum of h*w over levels, C channels, H heads, L levels, P points.
"""

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from .attention import SpatialCrossAttention
from .bench_common import short_name
from .bench_contenders import BASELINE
from .bench_plain import PlainSpatialCrossAttention
from .config import Config
from .geometry import pillar_points, project, reference_2d
from .nominal import image_size, nominal_meta
from .ops.backends import Backend
from .ops.visible import Pairs, Visibility, gather_visible

OFFSET_CELLS = 2.0  # spread of offsets; a fresh layer's point 1 to 8 cells away, a trained one's lie closer
EDGE_CELLS = 2e-3
CHECKED_ROWS = 2000  # of which gradients are compared
KINDS = ("temporal", "spatial", "decoder", "spatial layer")


@dataclass(frozen=True)
class Case:
    """call(backend, inputs) is what is timed.  inputs: leaves that want gradients.  held: tensors that are
    there anyway.  part: the same on fewer rows, where gradients are compared.  residual: the output is a
    change of inputs[0], which is added to it.
    """

    name: str
    inputs: Tuple[Tensor, ...]
    call: Callable[[Backend, Sequence[Tensor]], Tensor]
    held: Tuple[Tensor, ...] = ()
    part: Optional["Case"] = None
    residual: bool = False

    def compared(self, out: Tensor) -> Tensor:
        """What of an output is compared: without what was only added to it and would hide a difference."""
        return out.double() - self.inputs[0].detach().double() if self.residual else out.double()


def make_case(config: Config, kind: str, dtype: torch.dtype, device: torch.device) -> Case:
    torch.manual_seed(0)
    makers: Dict[str, Callable[..., Case]] = dict(
        zip(KINDS, (temporal_case, spatial_case, decoder_case, spatial_layer))
    )
    case = makers[kind](config, dtype, device)
    suffix = "" if dtype is torch.float32 else " " + str(dtype).replace("torch.", "").replace("bfloat", "bf")
    name = "%s %s%s" % (short_name(config.name), kind, suffix)
    return dataclasses.replace(case, name=name)


def level_shapes(config: Config) -> List[Tuple[int, int]]:
    """(height, width) of every level of the neck; strides 4 to 32 of the backbone's stages, then halves."""
    hw = image_size(config).padded_hw
    strides = [
        (2 if config.backbone.kind == "micro" else 4) * 2**stage for stage in config.backbone.out_stages
    ]
    shapes = [(-(-hw[0] // stride), -(-hw[1] // stride)) for stride in strides]
    while len(shapes) < config.neck.num_outs:
        shapes.append(((shapes[-1][0] + 1) // 2, (shapes[-1][1] + 1) // 2))
    return shapes


def temporal_case(config: Config, dtype: torch.dtype, device: torch.device) -> Case:
    grid, width = config.encoder, config.transformer
    hw, count, heads = (grid.bev_h, grid.bev_w), grid.bev_h * grid.bev_w, width.num_heads
    reference = reference_2d(*hw, device, torch.float32)
    reference = reference.expand(1, 2, -1, -1).contiguous()
    value = _leaf((1, 2, count, width.embed_dims), dtype, device)
    offsets = _leaf((1, count, heads, 2, grid.tsa_points, 2), dtype, device, OFFSET_CELLS)
    centres = (reference * reference.new_tensor([hw[1], hw[0]]) - 0.5).transpose(1, 2)
    off_edges(offsets, centres.view(1, count, 1, 2, 1, 2))
    logits = _leaf((1, count, heads, 2, grid.tsa_points), dtype, device)

    def call(backend: Backend, inputs: Sequence[Tensor]) -> Tensor:
        return backend.temporal_attn(inputs[0], hw, reference, *inputs[1:])

    return Case("", (value, offsets, logits), call, (reference,))


def decoder_case(config: Config, dtype: torch.dtype, device: torch.device) -> Case:
    grid, width, points = config.encoder, config.transformer, config.decoder.num_points
    hw, count, heads = (grid.bev_h, grid.bev_w), config.head.num_query, width.num_heads
    reference = torch.rand(1, count, 1, 2).to(device)
    value = _leaf((1, hw[0] * hw[1], width.embed_dims), dtype, device)
    offsets = _leaf((1, count, heads, 1, points, 2), dtype, device, OFFSET_CELLS)
    off_edges(offsets, (reference * reference.new_tensor([hw[1], hw[0]]) - 0.5).view(1, count, 1, 1, 1, 2))
    logits = _leaf((1, count, heads, 1, points), dtype, device)

    def call(backend: Backend, inputs: Sequence[Tensor]) -> Tensor:
        return backend.deform_attn(inputs[0], [hw], reference, *inputs[1:])

    return Case("", (value, offsets, logits), call, (reference,))


def spatial_case(config: Config, dtype: torch.dtype, device: torch.device) -> Case:
    grid, width, shapes = config.encoder, config.transformer, level_shapes(config)
    count, heads, levels = grid.bev_h * grid.bev_w, width.num_heads, config.neck.num_outs
    value = _leaf((width.num_cams, sum(h * w for h, w in shapes), width.embed_dims), dtype, device)
    offsets = _leaf((count, heads, levels, grid.sca_points, 2), dtype, device, OFFSET_CELLS)
    logits = _leaf((count, heads, levels, grid.sca_points), dtype, device)
    inputs, seen = (value, offsets, logits), seen_queries(config).pairs.to(device)
    sizes = value.new_tensor([[w, h] for h, w in shapes], dtype=torch.float32)
    points_VLP2 = seen.points_VZ2.unsqueeze(1) * sizes.view(1, levels, 1, 2) - 0.5
    points_VLP2 = points_VLP2.repeat(1, 1, grid.sca_points // points_VLP2.shape[2], 1)
    off_edges(offsets, points_VLP2.unsqueeze(1), seen.row_V.long())

    def made(pairs: Pairs, part: Optional[Case]) -> Case:
        def call(backend: Backend, inputs: Sequence[Tensor]) -> Tensor:
            return backend.spatial_attn(inputs[0], shapes, pairs, *inputs[1:])

        return Case("", inputs, call, _tensors(pairs), part)

    few = made(seen_queries(config, CHECKED_ROWS).pairs.to(device), None)
    return made(seen, few)


def spatial_layer(config: Config, dtype: torch.dtype, device: torch.device) -> Case:
    """Spatial cross-attention with its projections, as the encoder calls it; bf16 by autocast."""
    grid, width, shapes = config.encoder, config.transformer, level_shapes(config)
    layer = SpatialCrossAttention(
        width.embed_dims, width.num_heads, config.neck.num_outs, grid.sca_points, dropout=0.0
    ).to(device)
    for each in (layer.deformable_attention.sampling_offsets, layer.deformable_attention.attention_weights):
        nn.init.normal_(each.weight, std=0.1)
    exact, visible = copy.deepcopy(layer).double(), seen_queries(config).to(device)
    query = _leaf((1, grid.bev_h * grid.bev_w, width.embed_dims), torch.float32, device)
    features = _leaf(
        (1, width.num_cams, sum(h * w for h, w in shapes), width.embed_dims), torch.float32, device
    )
    twins: Dict[Tuple[str, torch.dtype], nn.Module] = {}

    def call(backend: Backend, inputs: Sequence[Tensor]) -> Tensor:
        key = (backend.name, inputs[0].dtype)
        if key not in twins:
            twins[key] = _twin(exact if inputs[0].dtype is torch.float64 else layer, backend)
        low = dtype is not torch.float32 and inputs[0].dtype is not torch.float64
        with torch.autocast(device.type, dtype=dtype if low else torch.bfloat16, enabled=low):
            out: Tensor = twins[key](*inputs[:2], shapes, visible)
        return out

    weights = tuple(layer.parameters())
    return Case("", (query, features, *weights), call, _tensors(visible.pairs), residual=True)


def _twin(layer: SpatialCrossAttention, backend: Backend) -> nn.Module:
    """The layer with another backend; its parameters are the same objects."""
    if backend.name == BASELINE:
        return PlainSpatialCrossAttention(layer)
    twin = copy.deepcopy(layer, {id(each): each for each in layer.parameters()})
    twin.operators = lambda device: backend  # type: ignore[method-assign]
    return twin


def seen_queries(config: Config, rows: Optional[int] = None) -> Visibility:
    """What the cameras of a nuScenes car see of the grid, on the CPU; `rows`: of that many queries alone."""
    grid, size = config.encoder, image_size(config)
    args = (grid.bev_h, grid.bev_w, grid.num_points_in_pillar, config.head.pc_range_m, torch.device("cpu"))
    points_BNQZ2, seen = project(pillar_points(*args), [nominal_meta(size)])
    seen_BNQ = seen.any(-1)
    if rows is not None:
        kept = torch.zeros(seen_BNQ.shape[-1], dtype=torch.bool)
        kept[_some_rows(len(kept), torch.device("cpu"), rows)] = True
        seen_BNQ = seen_BNQ & kept
    return gather_visible(points_BNQZ2, seen_BNQ)


@torch.no_grad()
def off_edges(offsets: Tensor, centres: Tensor, rows: Optional[Tensor] = None) -> None:
    """Move offsets, in place, so that no sample lies on the edge between two cells.

    There the gradient jumps, and the last bit of a location decides which side it takes: two right operators
    would differ.  centres: in cells, as the offsets; with `rows`, those of offsets[rows].
    """
    for _ in range(6):  # each moves those that the one before brought near another edge
        places = centres + (offsets if rows is None else offsets[rows]).float()
        near = ((places - places.round()).abs() < EDGE_CELLS).to(offsets.dtype)
        if rows is not None:
            near = torch.zeros_like(offsets).index_add_(0, rows, near).clamp_(max=1)
        offsets += 0.11 * near


def _some_rows(count: int, device: torch.device, rows: int = CHECKED_ROWS) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(count, generator=generator)[:rows].sort().values.to(device)


def _leaf(shape: Tuple[int, ...], dtype: torch.dtype, device: torch.device, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape) * scale).to(device, dtype).requires_grad_()


def _tensors(held: Any) -> Tuple[Tensor, ...]:
    values = (getattr(held, each.name) for each in dataclasses.fields(held))
    return tuple(value for value in values if isinstance(value, Tensor))
