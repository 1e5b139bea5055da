"""The Triton kernels compiled for GPUs that are not there: what their code does with memory and registers.

Every operator is compiled in every number format for every shape class, and on every architecture with each
format and each class once: 27 of the 81 combinations, as in a Latin square.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="no Triton here: make test-ops")
pytestmark = pytest.mark.slow

CHILD = Path(__file__).with_name("cubin_child.py")
OPERATORS = ("deform", "temporal", "spatial")
DTYPES = ("float32", "bfloat16", "float16")
CLASSES = ("tiny", "small", "base")
CAPABILITIES = (80, 90, 120)
# A multiprocessor has 65,536: 24 warps of 80 live there, 16 of 128.
MOST_REGISTERS = {"forward": 80, "backward": 128}
MOST_SPILLED_BYTES = 0
ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
LOAD = {16: "LDG.E.128", 8: "LDG.E.64", 4: "LDG.E"}
CORNERS = {"deform": 4 * 4, "temporal": 2 * 4 * 4, "spatial": 8 * 4}  # of all points; levels are a loop


def job(operator, name, dtype, capability, deterministic=False):
    return dict(locals())


FAST = [
    job(operator, CLASSES[(i + k) % 3], dtype, capability)
    for operator in OPERATORS
    for k, capability in enumerate(CAPABILITIES)
    for i, dtype in enumerate(DTYPES)
]
DETERMINISTIC = [  # of FAST's combinations, so that Triton's cache has the forward pass
    job(operator, CLASSES[2 * k % 3], DTYPES[k], capability, True)
    for operator in OPERATORS
    for k, capability in enumerate(CAPABILITIES)
]
JOBS = FAST + DETERMINISTIC


def told(each):
    ending = "-deterministic" if each["deterministic"] else ""
    return f"{each['operator']}-{each['name']}-{each['dtype']}-sm_{each['capability']}{ending}"


def start(jobs, folder, answers):
    paths = [str(Path(__file__).parents[3] / "model"), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TRITON_CACHE_DIR": str(folder)}
    with answers.open("w") as stdout:
        child = subprocess.Popen(
            [sys.executable, CHILD], stdin=subprocess.PIPE, stdout=stdout, text=True, env=variables
        )
    child.stdin.write(json.dumps(jobs))
    child.stdin.close()
    return child


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """name of a job -> what the child found."""
    folder = tmp_path_factory.mktemp("triton")
    count = min(4, len(os.sched_getaffinity(0)))
    answers = [folder / f"{i}.jsonl" for i in range(count)]
    children = [start(JOBS[i::count], folder, path) for i, path in enumerate(answers)]
    assert [child.wait() for child in children] == [0] * count
    found = [json.loads(line) for path in answers for line in path.read_text().splitlines()]
    return {told(row["job"]): row for row in found}


def kernels(compiled, each, part=None):
    found = compiled[told(each)]
    assert "error" not in found, found["error"]
    return [kernel for kernel in found["kernels"] if part is None or part in kernel["kernel"]]


def starting(counts, *beginnings):
    return {name: count for name, count in counts.items() if name.startswith(beginnings)}


def atomics(kernel):
    return starting(kernel["sass"], "RED", "ATOM")


def adds_by_four(each):
    """Only float32 has vector atomics, and only there."""
    return each["capability"] >= 90 and not each["deterministic"]


@pytest.mark.parametrize("each", JOBS, ids=told)
def test_it_compiles_and_nothing_spills(compiled, each):
    for part, most in MOST_REGISTERS.items():
        (kernel,) = kernels(compiled, each, part)
        assert kernel["registers"] <= most
        assert kernel["stack"] <= MOST_SPILLED_BYTES and not starting(kernel["sass"], "LDL", "STL")


@pytest.mark.parametrize("each", JOBS, ids=told)
def test_forward_a_thread_loads_sixteen_bytes_of_each_corner(compiled, each):
    (kernel,) = kernels(compiled, each, "forward")
    assert kernel["sass"]["LDG.E.128"] >= CORNERS[each["operator"]]
    assert kernel["shared"] == 0


@pytest.mark.parametrize("each", JOBS, ids=told)
def test_backward_a_thread_loads_the_channels_that_it_adds_to_at_once(compiled, each):
    (kernel,) = kernels(compiled, each, "backward")
    channels = 4 if adds_by_four(each) else 2
    load = LOAD[channels * ITEMSIZE[each["dtype"]]]
    assert kernel["sass"][load] >= CORNERS[each["operator"]]
    assert sum(atomics(kernel).values()) == CORNERS[each["operator"]] * (1 if adds_by_four(each) else 2)


@pytest.mark.parametrize("each", JOBS, ids=told)
def test_backward_a_sample_waits_for_its_four_corners_once(compiled, each):
    (kernel,) = kernels(compiled, each, "backward")
    assert kernel["waits"] <= CORNERS[each["operator"]] // 4


@pytest.mark.parametrize("each", JOBS, ids=told)
def test_the_forward_pass_adds_nothing_atomically(compiled, each):
    (kernel,) = kernels(compiled, each, "forward")
    assert atomics(kernel) == {}


@pytest.mark.parametrize("each", FAST, ids=told)
def test_gradients_are_added_in_float32_by_four_where_the_architecture_can(compiled, each):
    (kernel,) = kernels(compiled, each, "backward")
    wide = ".ADD.F32x4." if adds_by_four(each) else ".ADD.F32."
    assert atomics(kernel) and all(wide in name for name in atomics(kernel))


@pytest.mark.parametrize("each", DETERMINISTIC, ids=told)
def test_deterministic_gradients_are_added_as_integers_alone(compiled, each):
    (kernel,) = kernels(compiled, each, "backward")
    assert atomics(kernel) and all(".ADD.64." in name for name in atomics(kernel))
    assert not [name for name in kernel["ptx"] if name.startswith(("atom", "red")) and ".u64" not in name]
