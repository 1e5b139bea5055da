"""mmcv's multi-scale deformable attention as a backend: its CUDA kernel on a GPU, its grid_sample elsewhere.

Letters as in `deform_attn.py`.
"""

from typing import Sequence, Tuple

import torch
from torch import Tensor

from ..mm import ms_deform_attn
from ..transfer import tensor_on
from .backends import Backend, of_deform_attn


def load(device_type: str) -> Backend:
    """Raises what importing mmcv.ops raises."""
    operator = ms_deform_attn(device_type)

    def attend(
        value_MSC: Tensor,
        shapes_L: Sequence[Tuple[int, int]],
        reference_MQZ2: Tensor,
        offsets_MQHLP2: Tensor,
        logits_MQHLP: Tensor,
    ) -> Tensor:
        """In float32, as upstream forces it: the kernel knows no bf16."""
        M, Q, H, L, P, _ = offsets_MQHLP2.shape
        kind = torch.float64 if value_MSC.dtype == torch.float64 else torch.float32
        value = value_MSC.to(kind).view(M, -1, H, value_MSC.shape[-1] // H)
        weights = logits_MQHLP.to(kind).reshape(M, Q, H, L * P).softmax(-1).view(M, Q, H, L, P)
        locations = sampling_locations(shapes_L, reference_MQZ2, offsets_MQHLP2).to(kind)
        shapes = tensor_on(list(shapes_L), value.device)
        out: Tensor = operator(value.contiguous(), shapes, locations.contiguous(), weights.contiguous())
        return out.view(M, Q, -1).to(value_MSC.dtype)

    return of_deform_attn("mmcv", attend, device_type == "cuda")


def sampling_locations(
    shapes_L: Sequence[Tuple[int, int]], reference_MQZ2: Tensor, offsets_MQHLP2: Tensor
) -> Tensor:
    """(M, Q, H, L, P, 2) in [0, 1] of each level's extent, as upstream materialises them."""
    M, Q, H, L, P, _ = offsets_MQHLP2.shape
    Z = reference_MQZ2.shape[2]
    sizes = tensor_on([[w, h] for h, w in shapes_L], offsets_MQHLP2.device, torch.float32)
    shifts = (offsets_MQHLP2 / sizes[:, None]).view(M, Q, H, L, P // Z, Z, 2)
    points = reference_MQZ2.to(torch.promote_types(reference_MQZ2.dtype, shifts.dtype))
    return (points[:, :, None, None, None] + shifts).view(M, Q, H, L, P, 2)
