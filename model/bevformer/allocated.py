"""What the CPU's allocator really gave out while a piece of code ran: what predictions are compared with."""

from typing import Callable

from torch.profiler import ProfilerActivity, profile


def allocated_peak_b(work: Callable[[], object]) -> int:
    """The most bytes that were allocated at a time during `work`, beyond those before it.

    From every allocation and release that torch's profiler records; what oneDNN takes for itself is not among
    them.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    events = [each for each in recorded.profiler.kineto_results.events() if each.name() == "[memory]"]
    now_b = peak_b = 0
    for event in sorted(events, key=lambda each: int(each.start_ns())):
        now_b += int(event.nbytes())
        peak_b = max(peak_b, now_b)
    return peak_b
