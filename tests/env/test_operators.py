"""Leaving out operators of mmcv: what is left binds every name."""

import shutil
import subprocess

import pytest

from bevrepro.core.errors import ConfigError
from bevrepro.env import operators

PYBIND = """// bindings
#include <string>
#include <vector>
typedef int Tensor;
std::string info();
void keep_forward(const Tensor &x, int a);
Tensor drop_forward(Tensor x,
                    int a = 3);
template <unsigned N>
std::vector<Tensor> drop_many(const Tensor x, std::vector<int> shape);
int main() { auto p = &drop_many<2>; return &drop_forward == nullptr || p == nullptr; }
"""
CUDABIND = """
void DropKernelLauncher(const float* x, int n);
void drop_cuda(const float* x, int n) { DropKernelLauncher(x, n); }
void drop_impl(int n);
REGISTER_DEVICE_IMPL(drop_impl, CUDA, drop_cuda);
"""


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / operators.FOLDER
    for name, text in {
        "pybind.cpp": PYBIND,
        "info.cpp": "#include <string>\nstd::string info() { return {}; }\n",
        "keep.cpp": "void keep_forward(const int &x, int a) {\n}\n",
        "drop.cpp": "void drop_impl(int n) {}\n",
        "cpu/keep.cpp": "",
        "cpu/drop.cpp": "",
        "cuda/cudabind.cpp": CUDABIND,
        "cuda/keep_cuda.cu": "",
        "cuda/drop_cuda.cu": "void DropKernelLauncher(const float* x, int n) {}",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return tmp_path


def test_what_is_not_wanted_is_gone_and_its_names_are_still_there(source):
    assert operators.leave_out(source, ["keep"]) == ("drop",)
    folder = source / operators.FOLDER
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.c*"))
    assert left == [
        "cpu/keep.cpp",
        "cuda/cudabind.cpp",
        "cuda/keep_cuda.cu",
        "info.cpp",
        "keep.cpp",
        "pybind.cpp",
    ]
    pybind, cudabind = ((folder / name).read_text() for name in operators.BINDINGS)
    assert (
        pybind.count("throw") == 2 and "drop_forward was left out" in pybind and "int a = 3) {" not in pybind
    )
    assert cudabind.count("throw") == 2 and "void DropKernelLauncher(const float* x, int n) {" in cudabind


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_what_is_left_compiles_and_links(source):
    operators.leave_out(source, ["keep"])
    folder = source / operators.FOLDER
    files = [folder / name for name in ("pybind.cpp", "keep.cpp", "info.cpp")]
    done = subprocess.run(["c++", *files, "-o", source / "a.out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_operator_that_mmcv_does_not_have_is_refused(source):
    with pytest.raises(ConfigError, match="is 'keep' meant"):
        operators.leave_out(source, ["kept"])
    assert (source / operators.FOLDER / "drop.cpp").exists()
