"""Compiling beforehand for gpu-check: what is compiled, in how many processes, and what a failure costs.

That it is all that is launched is shown by ops/test_warm_launches.py, where there is Triton.
"""

import json
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch

from bevformer import gpu_check, gpu_parts, gpu_warm
from bevformer.gpu_warm import Job
from bevformer.ops.backends import REFERENCE

JOBS = gpu_warm.jobs_for("base", "tiny")


def words_after(command, option, otherwise):
    if option not in command:
        return otherwise
    rest = command[command.index(option) + 1 :]
    return [word for n, word in enumerate(rest) if not any(each.startswith("--") for each in rest[: n + 1])]


def test_every_operator_that_the_parts_compare_is_compiled_in_their_numbers():
    there, wanted = set(JOBS), set()
    for part in gpu_parts.parts_for("cuda", gpu_check.ROOT):
        if "ops" in part.command:
            for preset in words_after(part.command, "--preset", None):
                for dtype in words_after(part.command, "--dtype", ["float32"]):
                    wanted |= {
                        Job(preset, kind, dtype, det) for kind in gpu_warm.KINDS for det in (False, True)
                    }
    assert len(wanted) == 24 and wanted <= there and len(there) == len(JOBS)


def test_the_part_comes_before_all_that_launches_and_is_asked_for_in_its_words():
    machine, warm, *_ = gpu_parts.parts_for("cuda", gpu_check.ROOT)
    assert warm.command[:2] == ("-m", "bevformer.gpu_warm") and warm.needs == ("triton",)
    assert "gpu_warm" not in str([part.command for part in gpu_parts.parts_for("cpu", gpu_check.ROOT)])


def test_bf16_is_compiled_before_fp16_and_deterministic_kernels_after_the_others():
    base = [each for each in JOBS if each.preset == "base" and each.kind == "spatial"]
    formats = [(each.dtype, each.deterministic) for each in base]
    assert formats == [(dtype, det) for det in (False, True) for dtype in ("float32", "bfloat16", "float16")]


@pytest.mark.parametrize(
    "jobs, cpus, gib, count",
    [(40, 16, 78, 16), (40, 64, 139, 16), (40, 16, 24, 7), (3, 8, 78, 3), (9, 1, 2, 1)],
)
def test_there_are_as_many_processes_as_cpus_and_the_gpu_have_room_for(monkeypatch, jobs, cpus, gib, count):
    monkeypatch.setattr(gpu_warm, "takes_one_process", lambda: False)
    assert gpu_warm.processes(jobs, cpus, gib) == count


@pytest.mark.parametrize("mode, count", [("Exclusive_Process", 1), ("Default", 16), (None, 16)])
def test_a_gpu_that_takes_one_process_gets_one(tmp_path, monkeypatch, mode, count):
    if mode is not None:
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho %s\n" % mode)
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", "%s:/bin" % tmp_path if mode else str(tmp_path))
    assert gpu_warm.processes(40, 16, 80.0) == count


def ended(result):
    future = Future()
    future.set_exception(result) if isinstance(result, Exception) else future.set_result(result)
    return future


def test_what_fails_to_compile_is_named_and_the_rest_is_kept(tmp_path):
    said, out = [], tmp_path / "warm.json"
    results = [12.5, RuntimeError("ptxas died\nmore"), BrokenProcessPool("x")]
    submitted = {
        ended(result): Job("base", kind, "bfloat16", True) for result, kind in zip(results, gpu_warm.KINDS)
    }
    assert gpu_warm.gathered(submitted, str(out), 16, said.append) == 1
    found = json.loads(out.read_text())
    (row,) = found["rows"]
    assert (row["case"], row["who"], row["median"]) == (
        "base temporal bfloat16",
        "triton deterministic",
        12.5,
    )
    assert found["absent"] == {
        "base spatial bfloat16, triton deterministic": "RuntimeError: ptxas died",
        "base decoder bfloat16, triton deterministic": "a process died",
    }
    assert said[-1] == "1 compiled, 2 failed, 16 processes"
    assert gpu_warm.gathered({ended(1.0): Job("base", "spatial")}, str(out), 1, said.append) == 0


def test_the_decoders_first_layer_looks_around_points_of_a_layer_that_learn_too():
    case = gpu_warm.make_case(gpu_warm.preset_of("micro"), "decoder", torch.float32, torch.device("cpu"))
    points = case.held[0].detach().clone().requires_grad_()
    out = case.call(gpu_warm.around(REFERENCE, points), case.inputs)
    assert torch.equal(out, case.call(REFERENCE, case.inputs))
    assert torch.autograd.grad(out.sum(), points)[0].abs().max() > 0
