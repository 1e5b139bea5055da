"""The parts of `gpu_check`, and running one of them."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Callable, List, Optional, Sequence, Tuple

TAIL = 3000  # characters of a part's output that are kept
TF32 = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"  # 1 in NVIDIA's containers: products of fp32 keep 10 bits then
GPU_MARK = "pytest.mark.gpu"


@dataclass(frozen=True)
class Part:
    """command: words after the interpreter; {out}: the file it writes.  needs: packages beside torch, NumPy.

    limit_s: at most.  least_s: with less left it is not begun.  correctness: whether it says that the numbers
    are right; shows: the contenders that it has to have compared in every case.
    """

    name: str
    what: str
    command: Tuple[str, ...]
    limit_s: float
    least_s: float
    needs: Tuple[str, ...] = ()
    correctness: bool = False
    shows: Tuple[str, ...] = ()
    writes: bool = True


@dataclass(frozen=True)
class Ended:
    """code: None when it was stopped at its limit; negative: the signal that ended it."""

    code: Optional[int]
    tail: str


def parts_for(device: str, root: str) -> Tuple[Part, ...]:
    """In the order of their worth.  On the CPU small sizes stand in, to try the program itself.

    The limits of all that compares numbers, and of base's training step, fit into gpu_check's time together:
    a part that hangs takes that of the last ones, not of these.
    """
    on_gpu = device == "cuda"
    large, small = ("base", "tiny") if on_gpu else ("micro", "micro")
    few = ["--device", device, "--out", "{out}", "--seconds", "6"] + ([] if on_gpu else ["--repeats", "1"])

    def bench(kind: str, preset: str, *more: str) -> Tuple[str, ...]:
        return ("-m", "bevformer.bench", kind, "--preset", preset, *few, *more)

    def ops(name: str, preset: str, limit_s: float, numbers: str, *more: str) -> Part:
        what = "the attentions at the sizes of %s, in %s, against float64 and the others" % (preset, numbers)
        return Part(name, what, bench("ops", preset, *more), limit_s, 20, (), True, shows)

    shows = ("reference", "triton", "triton deterministic") if on_gpu else ("reference",)
    halves = ("--dtype", "bfloat16", "float16")
    pytest = ("-m", "bevformer.gpu_tests", *gpu_tests(root))
    warm = ("-m", "bevformer.gpu_warm", "--presets", large, small, "--out", "{out}")
    memory = ("-m", "bevformer.bench", "memory", "--preset", large, "--out", "{out}")
    step, frame = "a training step of %s, and its memory", "a frame of a video with %s"
    parts = [
        Part("machine", "what is here", ("-m", "bevformer.gpu_machine", "{out}"), 60, 1),
        Part("warm", "compile Triton's kernels, in several processes", warm, 90, 5, ("triton",)),
        ops("ops", large, 80, "fp32"),
        ops("ops-16", large, 100, "bf16 and fp16", *halves),
        Part("step-" + large, step % large, bench("step", large), 110, 30),
        Part("tests", "pytest -m gpu, in several processes", pytest, 80, 20, ("pytest",), True, (), False),
        Part("infer-" + large, frame % large, bench("infer", large), 45, 20),
        Part("step-" + small, step % small, bench("step", small), 40, 15),
        Part("infer-" + small, frame % small, bench("infer", small), 30, 10),
        ops("ops-" + small, small, 40, "fp32"),
        Part("loader", "reading samples of " + large, loader(bench, large, on_gpu), 60, 30, ("cv2",)),
        Part("memory", "predicted memory of a training step of " + large, memory, 90, 30),
    ]
    left_out = () if on_gpu else ("warm", "ops-" + small, "tests")
    once = {part.name: part for part in parts if part.name not in left_out}
    return tuple(once.values())


def loader(bench: Callable[..., Tuple[str, ...]], preset: str, on_gpu: bool) -> Tuple[str, ...]:
    """Two rounds of two contenders: a sample of base takes the reference's path seconds."""
    if on_gpu:
        return bench("loader", preset, "--who", "float", "uint8", "--repeats", "1")
    return bench("loader", preset, "--hw", "90", "160")


def gpu_tests(root: str) -> List[str]:
    """The files that hold tests marked gpu: collecting all others would need all that they import."""
    found = []
    for base, folders, files in os.walk(os.path.join(root, "tests", "model")):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(base, name)
            if name.startswith("test_") and name.endswith(".py"):
                with open(path, encoding="utf-8") as stream:
                    if GPU_MARK in stream.read():
                        found.append(os.path.relpath(path, root))
    return found


def command_of(part: Part, out: str) -> List[str]:
    return [sys.executable, *(word.replace("{out}", out) for word in part.command)]


def run_part(command: Sequence[str], limit_s: float) -> Ended:
    """Run it with this package on the path; at the limit it is stopped with all that it started."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(paths), PYTHONUNBUFFERED="1")
    environment.pop(TF32, None)
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=os.path.dirname(package),
            env=environment,
            start_new_session=True,
        )
        code: Optional[int] = None
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):  # told by a code of None
                code = child.wait(timeout=limit_s)
        finally:
            if code is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - 4 * TAIL))
        return Ended(code, output.read().decode("utf-8", "replace")[-TAIL:])
