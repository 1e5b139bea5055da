"""The C++ operators use torch's threads, also behind a fork; any instruction set gives the same numbers."""

import ctypes
import os
import shutil
import time

import pytest
import torch
from torch.utils.data import DataLoader

from bevformer.ops.backends import Backend, choose, disagreement
from bevformer.ops.cpp import build, library
from bevformer.ops.cpp.attention import Operators


@pytest.fixture(scope="module")
def cpp():
    names = [os.environ.get("CXX", "").split(" ")[0], "g++", "c++", "clang++"]
    if not any(name and shutil.which(name) for name in names):
        pytest.skip("no C++ compiler here: CXX, g++, c++, clang++")
    return choose("cpp", "cpu")


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def mapped_file(address):
    for line in open("/proc/self/maps"):
        first, last = (int(each, 16) for each in line.split()[0].split("-"))
        if first <= address < last:
            return line.split()[-1]


def work(cpp, backward=True):
    """Enough rows for every thread.  torch itself stays on one: behind a fork it would wait for ever."""
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    sizes = (2, 64, 64), (2, 999, 1, 2), (2, 999, 2, 1, 4, 2), (2, 999, 2, 1, 4), (2, 999, 64)
    value, points, offsets, logits, grad = (torch.randn(size, generator=draw) for size in sizes)
    leaves = [each.requires_grad_() for each in (value, offsets, logits)]
    points = points.sigmoid()
    torch.set_num_threads(3)
    out = cpp.deform_attn(value, [(8, 8)], points, offsets, logits)
    return [out.detach(), *(torch.autograd.grad(out, leaves, grad) if backward else ())]


def threads():
    return set(os.listdir("/proc/self/task"))


def settled(most):
    """How many threads there are, once those that end have ended: torch 1.10's OpenMP changes its own."""
    until = time.monotonic() + 10
    while len(threads()) > most and time.monotonic() < until:
        time.sleep(0.01)
    return len(threads())


def test_the_threads_are_those_that_torch_has(cpp):
    """No second OpenMP library, no second set of threads (one of an earlier test may end in between)."""
    torch.ones(10**6).exp_()
    before, maps = len(threads()), {line.split()[-1] for line in open("/proc/self/maps") if "omp" in line}
    work(cpp)
    assert before >= 3 and settled(before) <= before
    assert {line.split()[-1] for line in open("/proc/self/maps") if "omp" in line} == maps
    assert mapped_file(library.parallel()) in maps
    threads_of_it = ctypes.CDLL(mapped_file(library.parallel())).omp_get_max_threads()
    assert threads_of_it == 3  # what torch was told above, so it is torch's


class Attended(torch.utils.data.Dataset):
    """As an augmentation in a worker might: the operator as it was inherited, and one loaded there."""

    def __init__(self, cpp):
        self.cpp = cpp

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index == 1:
            operators = Operators(library.library.__wrapped__())
            return work(Backend("own", operators.deform_attn, None, None), backward=False)
        return work(self.cpp, backward=False)  # old torches refuse gradients behind a fork


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_worker_does_not_wait_for_its_parents_threads(cpp):
    expected = work(cpp)
    loader = DataLoader(
        Attended(cpp), batch_size=None, num_workers=1, timeout=60, multiprocessing_context="fork"
    )
    for found in loader:
        assert torch.equal(found[0], expected[0])


def test_without_an_openmp_library_one_thread_does_it_all(cpp, monkeypatch):
    monkeypatch.setattr(library, "parallel", lambda: None)
    operators = Operators(library.library.__wrapped__())
    alone = work(Backend("alone", operators.deform_attn, None, None))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(alone, work(cpp)))


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["", "-mavx2 -mfma", "-march=native -mprefer-vector-width=256 -O1"])
def test_other_instruction_sets_give_the_same_numbers(cpp, flags, tmp_path, monkeypatch):
    known = open("/proc/cpuinfo").read()
    if "avx2" in flags and "avx2" not in known:
        pytest.skip("this processor has no AVX2")
    monkeypatch.setenv("BEVREPRO_BUILDS", str(tmp_path))
    monkeypatch.setattr(build, "_CPU_FLAGS", (tuple(flags.split()),))
    operators = Operators(library.library.__wrapped__())
    other = Backend("other", operators.deform_attn, operators.temporal_attn, operators.spatial_attn)
    assert disagreement(other, "cpu") < 1e-6
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(work(other), work(cpp)))
