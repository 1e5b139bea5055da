"""Memory for what a worker sends: made in shared memory at once, it is not copied there afterwards."""

from typing import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info


def empty_bytes(shape: Sequence[int]) -> Tensor:
    """Uninitialised uint8; shared in a worker process of a DataLoader, ordinary memory elsewhere."""
    if get_worker_info() is None:
        return torch.empty(tuple(shape), dtype=torch.uint8)
    empty = torch.empty(0, dtype=torch.uint8)
    kind = empty.untyped_storage() if hasattr(empty, "untyped_storage") else empty.storage()
    storage = type(kind)._new_shared(int(np.prod(shape)))
    return empty.set_(storage).view(*shape)
