"""`python -m bevformer.gpu_warm --out FILE`: compile what `gpu_check` launches, in several processes at once.

Triton compiles a kernel when it is first launched, ten seconds and more of one processor for a pair of the
large ones, and keeps it on disk.  Inside a benchmark or a test that would be most of its time.  So every
combination is run once beforehand, on the benchmarks' own inputs: a kernel is kept by the sizes of its
levels, its number format and whether its other sizes divide by 16, and the very inputs have the same.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
from torch import Tensor

from .atomic import write_atomically
from .bench_cases import make_case
from .bench_common import preset_of, reason, row
from .ops.backends import Backend, disagreement

KINDS = ("temporal", "spatial", "decoder")
FIRST_LAYER = "decoder's first layer"  # whose reference points have gradients
EXAMPLE = "example"  # what every choice of a backend compares with grid_sample
FORMATS = ("float32", "bfloat16", "float16")
PROCESS_GIB = 2.5  # of a GPU's memory: its context, and the largest problem
MOST = 16  # processes


@dataclass(frozen=True)
class Job:
    """Kernels that lie behind each other: one operator's, forward and backward."""

    preset: str
    kind: str
    dtype: str = "float32"
    deterministic: bool = False

    @property
    def case(self) -> str:
        return " ".join([self.preset, self.kind] + [self.dtype] * (self.dtype != "float32"))

    @property
    def who(self) -> str:
        return "triton deterministic" if self.deterministic else "triton"


def jobs_for(large: str, small: str) -> List[Job]:
    """What is needed first comes first; deterministic ones after those whose forward pass they share."""
    found = [Job(large, EXAMPLE), Job(large, EXAMPLE, deterministic=True)]
    found += [Job(large, kind, dtype) for dtype in FORMATS for kind in KINDS]
    found += [Job(large, FIRST_LAYER, "bfloat16")]
    found += [Job(large, kind, dtype, True) for dtype in FORMATS for kind in KINDS]
    found += [Job(small, kind, dtype) for dtype in FORMATS[:2] for kind in KINDS]
    found += [Job(small, FIRST_LAYER, "bfloat16")]
    found += [Job(small, kind, deterministic=True) for kind in KINDS]
    return found + [Job("small", "spatial", dtype) for dtype in FORMATS[:2]]  # of pytest -m gpu


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="gpu-warm", description=__doc__)
    parser.add_argument("--presets", nargs=2, default=("base", "tiny"), metavar=("LARGE", "SMALL"))
    parser.add_argument("--out", metavar="FILE", required=True)
    args = parser.parse_args(argv)
    jobs = jobs_for(*args.presets)
    count = processes(len(jobs), cpus(), torch.cuda.get_device_properties(0).total_memory / 2**30)
    context = multiprocessing.get_context("spawn")  # a CUDA context does not survive a fork
    with ProcessPoolExecutor(count, context, torch.set_num_threads, (1,)) as pool:
        submitted = {pool.submit(compiled, each): each for each in jobs}
        return gathered(submitted, args.out, count, lambda text: print(text, flush=True))


def processes(jobs: int, cpus: int, memory_gib: float) -> int:
    """As many as there are processors for, and as fit on the GPU; one where it takes no second."""
    if takes_one_process():
        return 1
    return max(1, min(jobs, cpus, MOST, int(0.8 * memory_gib / PROCESS_GIB)))


def takes_one_process() -> bool:
    """Whether a GPU is in compute mode Exclusive_Process, as clusters set it; False where nobody says."""
    question = ["nvidia-smi", "--query-gpu=compute_mode", "--format=csv,noheader"]
    try:
        told = subprocess.run(question, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b"Exclusive" in told.stdout


def cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gathered(submitted: "Dict[Future[float], Job]", out: str, count: int, tell: Callable[[str], None]) -> int:
    """Write down every job that ends; exit code 1 where one failed.  The others go on."""
    started_s, rows, absent = time.monotonic(), [], {}  # type: float, List[Dict[str, object]], Dict[str, str]
    for ended in as_completed(submitted):
        job = submitted[ended]
        failed = why(ended.exception())
        if failed is None:
            rows.append(row(job.case, "compile and run once", job.who, [ended.result()]))
        else:
            absent["%s, %s" % (job.case, job.who)] = failed
            tell("%s, %s failed: %s" % (job.case, job.who, failed))
        found = dict(
            processes=count, seconds=round(time.monotonic() - started_s, 1), rows=rows, absent=absent
        )
        write_atomically(out, json.dumps(found) + "\n")
    tell("%d compiled, %d failed, %d processes" % (len(rows), len(absent), count))
    return 1 if absent else 0


def why(error: Optional[BaseException]) -> Optional[str]:
    if isinstance(error, BrokenProcessPool):
        return "a process died"
    return None if error is None else reason(error)


def compiled(job: Job) -> float:
    """Seconds of a forward and a backward pass, most of which is compiling.  In a process of its own."""
    started_s = time.perf_counter()
    run(job, torch.device("cuda"))
    torch.cuda.synchronize()
    return time.perf_counter() - started_s


def run(job: Job, device: torch.device) -> None:
    """Launch the job's kernels on the benchmarks' own inputs."""
    from .ops.triton_backend import find_cache, make

    find_cache()
    backend = make(job.deterministic)
    if job.kind == EXAMPLE:
        disagreement(backend, device.type)
        return
    first_layer = job.kind == FIRST_LAYER
    dtype = getattr(torch, job.dtype)
    case = make_case(preset_of(job.preset), "decoder" if first_layer else job.kind, dtype, device)
    leaves = case.inputs
    if first_layer:
        points = case.held[0].to(dtype).requires_grad_()
        backend, leaves = around(backend, points), (*leaves, points)
    out = case.call(backend, case.inputs)
    torch.autograd.grad(out, leaves, torch.ones_like(out))


def around(backend: Backend, points: Tensor) -> Backend:
    """The backend with other reference points for the decoder: under autocast they come from a layer."""

    def attend(value: Tensor, shapes: Any, reference: Tensor, *rest: Tensor) -> Tensor:
        return backend.deform_attn(value, shapes, points, *rest)

    return dataclasses.replace(backend, deform_attn=attend)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
