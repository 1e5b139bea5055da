"""Which BEV queries each camera sees, and where: what spatial cross-attention looks through.

B batch, N cameras, K = B * N maps, Q queries, G = B * Q rows, Z heights per pillar, V visible pairs of a row
and a camera, R the longest list of rows of one camera.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Tuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """The visible pairs, made once for all layers and kept in two orders.

    By row, cameras ascending: row g owns the pairs starts_G1[g] to starts_G1[g + 1]; camera_V: the map of a
    pair; row_V: its row; points_VZ2: the pillar's points in [0, 1] of the padded image, outside it at heights
    that the camera does not see.  By camera, rows ascending: by_camera_V, of which map k owns
    camera_starts_K1[k] to camera_starts_K1[k + 1].  All indices int32.

    The same filled up to R rows per map, for `grid_sample`: points_KRZ2, query_KR (the row, int64) and
    slot_KR, which is query_KR, but G, one behind the last, at the fillers.  counts_G: cameras that see the
    row, at least 1.
    """

    starts_G1: Tensor
    camera_V: Tensor
    row_V: Tensor
    points_VZ2: Tensor
    by_camera_V: Tensor
    camera_starts_K1: Tensor
    points_KRZ2: Tensor
    query_KR: Tensor
    slot_KR: Tensor
    counts_G: Tensor

    def to(self, device: torch.device) -> "Pairs":
        return _moved(self, device)


@dataclass(frozen=True)
class Visibility:
    """`geometry.visibility` makes it, once for all layers.

    points_BNQZ2: projected pillar points in [0, 1] of the padded image.  index_K: per pair of sample and
    camera, in the order b * N + n, the queries of which any height is seen.  counts_BQ: cameras that see the
    query, at least 1.
    """

    points_BNQZ2: Tensor
    index_K: Tuple[Tensor, ...]
    counts_BQ: Tensor
    pairs: Pairs

    def to(self, device: torch.device) -> "Visibility":
        return _moved(self, device)


def _moved(held: Any, device: torch.device) -> Any:
    """Copies without waiting for them; nothing is copied that is there already."""
    changes = {}
    for each in dataclasses.fields(held):
        value = getattr(held, each.name)
        if isinstance(value, tuple):
            changes[each.name] = tuple(part.to(device, non_blocking=True) for part in value)
        elif isinstance(value, Tensor):
            changes[each.name] = value.to(device, non_blocking=True)
        else:
            changes[each.name] = value.to(device)
    return dataclasses.replace(held, **changes)


def gather_visible(points_BNQZ2: Tensor, seen_BNQ: Tensor) -> Visibility:
    """`Visibility` from projected points (B, N, Q, Z, 2) and whether a camera sees the pillar (B, N, Q)."""
    B, N, Q = seen_BNQ.shape
    lengths = seen_BNQ.flatten(0, 1).sum(-1)
    index = seen_BNQ.flatten(0, 1).nonzero(as_tuple=True)[1].split(lengths.tolist())
    counts_BQ = seen_BNQ.sum(1).clamp(min=1).to(points_BNQZ2.dtype)
    return Visibility(points_BNQZ2, index, counts_BQ, _pairs(points_BNQZ2, seen_BNQ, lengths, counts_BQ))


def _pairs(points_BNQZ2: Tensor, seen_BNQ: Tensor, lengths_K: Tensor, counts_BQ: Tensor) -> Pairs:
    B, N, Q = seen_BNQ.shape
    sample, query, camera = seen_BNQ.transpose(1, 2).nonzero(as_tuple=True)
    row, map_ = sample * Q + query, sample * N + camera
    order = (map_ * (B * Q) + row).argsort()
    return Pairs(
        _starts(seen_BNQ.sum(1).flatten()),
        map_.int(),
        row.int(),
        points_BNQZ2[sample, camera, query],
        order.int(),
        _starts(lengths_K),
        *_filled(points_BNQZ2, seen_BNQ, lengths_K),
        counts_BQ.flatten(),
    )


def _starts(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()


def _filled(points_BNQZ2: Tensor, seen_BNQ: Tensor, lengths_K: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """points_KRZ2, query_KR and slot_KR."""
    B, N, Q = seen_BNQ.shape
    seen, device = seen_BNQ.flatten(0, 1), seen_BNQ.device
    pair, query = seen.nonzero(as_tuple=True)
    longest = max(1, int(lengths_K.max()))
    place = (seen.cumsum(-1) - 1)[pair, query]
    rows = torch.zeros(B * N, longest, dtype=torch.int64, device=device)
    rows[pair, place] = query
    query_KR = rows + (torch.arange(B, device=device).repeat_interleave(N) * Q).unsqueeze(1)
    points_KRZ2 = points_BNQZ2.flatten(0, 1).gather(
        1, rows.view(B * N, longest, 1, 1).expand(-1, -1, *points_BNQZ2.shape[3:])
    )
    filler = torch.arange(longest, device=device) >= lengths_K.unsqueeze(1)
    return points_KRZ2, query_KR, query_KR.masked_fill(filler, B * Q)
