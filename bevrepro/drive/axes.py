"""Round numbers for the axes of curves."""

import math

MOST = 8  # marks on an axis


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... from just below `low` to just above `high`; powers of ten where these are too many."""
    start = math.floor(math.log10(low))
    steps = [base * 10.0**power for power in range(start, start + 12) for base in (1, 2, 5)]
    below = max(step for step in steps if step <= low * (1 + 1e-9))
    above = min((step for step in steps if step >= high * (1 - 1e-9)), default=steps[-1])
    ticks = [step for step in steps if below <= step <= (above if high > low else below)]
    if len(ticks) <= MOST:
        return ticks
    last = math.ceil(math.log10(ticks[-1]) - 1e-9)
    width = math.ceil((last - start + 1) / MOST)
    return [10.0**power for power in range(start, last + width, width)]


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten that enclose both; about `count`."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    width = next(unit * base for base in (1, 2, 5, 10) if unit * base >= rough * (1 - 1e-9))
    first, last = math.floor(low / width + 1e-9), math.ceil(high / width - 1e-9)
    return [float(f"{step * width:.12g}") for step in range(first, last + 1)]


def step_ticks(first: int, last: int) -> list[int]:
    """Round step numbers, about six, not under the word `step` at the end."""
    rough = max((last - first) / 6, 1)
    unit = 10 ** math.floor(math.log10(rough))
    width = next(unit * base for base in (1, 2, 5, 10) if unit * base >= rough)
    end = last - (last - first) * 0.06
    return [step for step in range(math.ceil(first / width) * width, last + 1, width) if step <= end]
