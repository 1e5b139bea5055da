"""Sums by atomics that come out the same to the last bit: the value maps' gradient under ops.deterministic.

Many samples add to one cell, in whatever order a GPU gets to them, and floating-point addition depends on
the order.  Here every contribution becomes an integer first: it is multiplied by one power of two and cut to
int64.  Integer addition is associative and commutative and it cannot overflow (see `unit_of`), so the bits
of the sum depend on the set of contributions alone; each of these depends on its own row's inputs and on the
unit, which depends on the largest gradient (a maximum has no order either).  Nothing is sorted or kept per
sample.

What it costs: 0 bytes per sample point; 8 instead of 4 bytes per element of the value while one operator's
backward pass runs (base, spatial: 379 MB instead of 189 MB).  Atomics on int64 have no vector form: on sm_90
and newer four for each one on float32, on sm_80 as many, with twice the bytes.  Its time was not measured.

What it does to the numbers: a contribution above 2**-22 of the largest gradient converts without an error at
base's 40,000 rows, a smaller one loses at most 2**-46 of that gradient, and sums are exact: closer to the
true sum than float32 atomics.  A gradient that is not finite makes the whole map NaN, not only the cells it
reaches; a gradient scaler skips either.
"""

from dataclasses import dataclass
from typing import Optional, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

_BITS = 62  # of 63: rounding can take a sum of weights a little above 1


@triton.jit
def add(pointers, contributions, mask, unit, FIXED: tl.constexpr):
    """Adds float32 contributions to float32 sums, or, FIXED, to int64 sums in steps of 1 / unit."""
    if FIXED:
        tl.atomic_add(pointers, (contributions * unit).to(tl.int64), mask=mask, sem="relaxed")
    else:
        tl.atomic_add(pointers, contributions, mask=mask, sem="relaxed")


@dataclass(frozen=True)
class Sums:
    """Zeros that kernels add to with `add`.

    into: float32, or int64 in steps of 1 / unit_1.  unit_1: one float32 on the same device; None for float32.
    """

    into: Tensor
    unit_1: Optional[Tensor]

    def result(self, dtype: torch.dtype) -> Tensor:
        """The sums as numbers of that dtype."""
        if self.unit_1 is None:
            return self.into.to(dtype)
        return torch.div(self.into, self.unit_1, out=torch.empty_like(self.into, dtype=dtype))


def sums_like(shape: Sequence[int], grad_out: Tensor, rows: int, deterministic: bool) -> Sums:
    """Sums of a shape for contributions weight * grad_out, the weights of a row adding up to at most 1.

    rows: how many rows of grad_out can reach one map.
    """
    if not deterministic:
        return Sums(torch.zeros(shape, dtype=torch.float32, device=grad_out.device), None)
    into = torch.zeros(shape, dtype=torch.int64, device=grad_out.device)
    return Sums(into, unit_of(grad_out, rows))


def unit_of(grad_out: Tensor, rows: int) -> Tensor:
    """The power of two (1,) by which contributions are multiplied; NaN where grad_out is not finite.

    It brings the largest gradient to at most 2**62 / rows, so that no sum of all rows leaves int64.  Steps
    are not finer than 2**-126, float32's smallest normal number.  Nothing waits for the device.
    """
    if grad_out.numel() == 0:
        return grad_out.new_ones(1, dtype=torch.float32)
    low, high = grad_out.aminmax()  # both NaN where any is
    largest = torch.maximum(-low, high).float()
    exponent = torch.frexp(largest).exponent  # largest < 2**exponent
    power = (_BITS - rows.bit_length() - exponent).clamp(max=126)  # always above -100
    unit = ((power + 127) << 23).view(torch.float32)  # exactly: the bits of a float32 whose mantissa is 0
    return unit.where(largest.isfinite(), torch.full_like(unit, float("nan"))).view(1)
