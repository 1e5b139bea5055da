"""`--profile`: where the time of a few steps goes: a trace for chrome://tracing or Perfetto, and a table."""

import os
from typing import Any

import torch

from .atomic import write_atomically
from .talk import Talk

WAIT, WARM_UP, STEPS = 2, 1, 3  # the first steps pay for caches and thread pools


class NoProfile:
    """The same calls, for runs without it."""

    def start(self) -> None: ...

    def step(self) -> None: ...

    def stop(self) -> None: ...


class Profile(NoProfile):
    """Traces STEPS steps into WORK_DIR/profile."""

    def __init__(self, work_dir: str, talk: Talk, device: torch.device) -> None:
        self._folder, self._talk, self._on_gpu = (
            os.path.join(work_dir, "profile"),
            talk,
            device.type == "cuda",
        )
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if self._on_gpu:
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        plan = torch.profiler.schedule(wait=WAIT, warmup=WARM_UP, active=STEPS, repeat=1)
        self._profiler = torch.profiler.profile(activities=kinds, schedule=plan, on_trace_ready=self._write)

    def start(self) -> None:
        self._profiler.start()

    def step(self) -> None:
        self._profiler.step()

    def stop(self) -> None:
        self._profiler.stop()

    def _write(self, profiler: Any) -> None:
        os.makedirs(self._folder, exist_ok=True)
        trace = os.path.join(self._folder, "trace.json")
        profiler.export_chrome_trace(trace)
        order = "self_cuda_time_total" if self._on_gpu else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=order, row_limit=40)
        write_atomically(os.path.join(self._folder, "table.txt"), table + "\n")
        self._talk.note("Profile of %d steps: %s (open it in chrome://tracing or Perfetto)" % (STEPS, trace))
