"""The parts of `gpu_check`, and running one of them."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

TAIL = 3000  # characters of a part's output that are kept
GPU_MARK = "pytest.mark.gpu"


@dataclass(frozen=True)
class Part:
    """command: words after the interpreter; {out}: the file it writes.  needs: packages beside torch, NumPy.

    limit_s: at most.  least_s: with less left it is not begun.  correctness: whether it says that the numbers
    are right; shows: the contenders that it has to have compared.
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
    """In the order of their worth.  On the CPU small sizes stand in, to try the program itself."""
    on_gpu = device == "cuda"
    large, small = ("base", "tiny") if on_gpu else ("micro", "micro")
    few = ["--device", device, "--out", "{out}", "--seconds", "6"] + ([] if on_gpu else ["--repeats", "1"])

    def bench(kind: str, preset: str, *more: str) -> Tuple[str, ...]:
        return ("-m", "bevformer.bench", kind, "--preset", preset, *few, *more)

    shows = ("reference", "triton") if on_gpu else ("reference",)
    pytest = ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *gpu_tests(root))
    attentions = "the attentions at the sizes of %s, in %s, against float64 and the others"
    step, frame = "a training step of %s, and its memory", "a frame of a video with %s"
    parts = [
        Part("machine", "what is here", ("-m", "bevformer.gpu_machine", "{out}"), 90, 1),
        Part("ops", attentions % (large, "fp32"), bench("ops", large), 130, 30, (), True, shows),
        Part("step-" + large, step % large, bench("step", large), 120, 30),
        Part("tests", "pytest -m gpu", pytest, 110, 20, ("pytest",), True, (), False),
        Part("infer-" + large, frame % large, bench("infer", large), 60, 20),
    ]
    if on_gpu:
        bf16 = bench("ops", large, "--dtype", "bfloat16")
        parts += [
            Part("ops-bf16", attentions % (large, "bf16"), bf16, 90, 20, (), True, shows),
            Part("step-" + small, step % small, bench("step", small), 60, 20),
            Part("infer-" + small, frame % small, bench("infer", small), 45, 15),
            Part("ops-" + small, attentions % (small, "fp32"), bench("ops", small), 60, 20, (), True, shows),
        ]
    loader = bench("loader", small, *([] if on_gpu else ["--hw", "90", "160"]))
    return (*parts, Part("loader", "reading samples", loader, 60, 15, ("cv2",)))


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
