"""What is launched by `gpu_warm`, by the benchmarks' cases and by whole models, without compiling any of it.

`python launches_child.py` prints JSON: for each of the three a list of launches, as Triton tells its compiled
kernels apart: name, number formats, which sizes divide by 16, and what is fixed when it is compiled.
"""

import json
import os
import sys

os.environ.pop("TRITON_INTERPRET", None)  # read when a kernel is defined

import torch
from cubin_child import NamedArchitecture, driver
from triton.runtime.jit import JITFunction

from bevformer import attention, bench_cases, gpu_warm
from bevformer.bench_common import preset_of
from bevformer.ops.triton_backend import make
from bevformer.plan import Ghost, measure_phases

META = torch.device("meta")
seen = set()


def launched(self, *args, grid, warmup, **fixed):
    seen.add(repr((self.fn.__name__, [told(each) for each in args], sorted(fixed.items()))))


def told(given):
    if isinstance(given, torch.Tensor):
        return str(given.dtype)
    if not isinstance(given, int):
        return repr(given)
    return "one" if given == 1 else ("i64" if given >= 2**31 else "i32") + " by 16" * (given % 16 == 0)


def those_of(work):
    seen.clear()
    work()
    return sorted(seen)


def warmed():
    for job in gpu_warm.jobs_for("base", "tiny"):
        if job.kind != gpu_warm.EXAMPLE:  # compares numbers, which meta tensors have not
            gpu_warm.run(job, META)


def benchmarked():
    for preset, dtypes, kinds in (
        ("base", gpu_warm.FORMATS, (False, True)),
        ("tiny", ["float32"], (False, True)),
    ):
        for kind in (each for each in bench_cases.KINDS if each != "spatial layer"):  # spatial's kernels
            for dtype in dtypes:
                case = bench_cases.make_case(preset_of(preset), kind, getattr(torch, dtype), META)
                for deterministic in kinds:
                    for problem in (case, case.part or case):
                        out = problem.call(make(deterministic), problem.inputs)
                        torch.autograd.grad(out, problem.inputs, torch.ones_like(out))


def trained():
    attention.choose = lambda name, device_type, deterministic: make(deterministic)
    for preset in ("base", "tiny"):
        for amp in (False, True):
            config = preset_of(preset)
            measure_phases(config, Ghost(config).model, amp)


if __name__ == "__main__":
    JITFunction.run = launched
    driver.set_active(NamedArchitecture(90))
    json.dump({each.__name__: those_of(each) for each in (warmed, benchmarked, trained)}, sys.stdout)
