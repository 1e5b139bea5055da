"""Small tensors from the host to a device without waiting for it."""

from typing import Any, Optional

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device.  CUDA copies pageable memory aside before the call returns, so that the host neither
    waits for what is queued there, as a plain `.to(device)` does, nor has to keep the tensor.
    """
    return tensor.to(device, non_blocking=True)


def tensor_on(values: Any, device: torch.device, dtype: Optional[torch.dtype] = None) -> Tensor:
    """torch.tensor(values, dtype, device), by `send`."""
    return send(torch.as_tensor(values, dtype=dtype), device)
