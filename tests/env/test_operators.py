"""Leaving out operators of mmcv: what is left binds every name."""

import json
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from packaging.markers import default_environment

from bevrepro.cli import main
from bevrepro.core.errors import ConfigError
from bevrepro.core.paths import envs_dir, model_dir
from bevrepro.env import index, operator_facts, operator_names, operators, plan, sdists, target
from bevrepro.env.lockfile import Pin, read_lock

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


def test_every_pinned_mmcv_has_its_operators_as_facts():
    for name in target.names():
        found = target.load(name)
        pins = [each.replace("==", " ") for each in found.requirements if each.startswith("mmcv")]
        for pin in pins:
            assert {"modulated_deform_conv", "ms_deform_attn", "nms"} <= set(
                operator_names.known(*pin.split())
            )


@pytest.mark.parametrize(
    "name, near", [("nmss", "is 'nms' meant"), ("soft_nms", "'nms'"), ("x", "has no operator 'x'\n")]
)
def test_an_unknown_operator_is_refused_before_anything_is_installed_with_near_names(
    tmp_path, monkeypatch, name, near, capsys
):
    monkeypatch.setenv("BEVREPRO_DATA", str(tmp_path))
    words = ["env", "build", "--target", "cpu-openmmlab", "--operators", name, "--dry-run"]
    assert main(words) == 6
    out, err = capsys.readouterr()
    assert not out and "mmcv-full 1.6.0 has no operator" in err and near in err
    assert "modulated_deform_conv" in err and not list(tmp_path.iterdir())


def test_an_unknown_operator_in_a_target_is_refused_when_it_is_read(tmp_path):
    text = (envs_dir() / "targets/cpu-openmmlab.toml").read_text()
    path = tmp_path / "cpu-openmmlab.toml"
    path.write_text(text.replace("[build]\n", '[build]\noperators = ["nms", "nmss"]\n'))
    with pytest.raises(ConfigError, match="mmcv-full 1.6.0 has no operator 'nmss'"):
        target.read(path)


def test_a_plan_says_which_operators_are_compiled():
    wanted = target.with_operators(target.load("cpu-openmmlab"), ["nms", "modulated_deform_conv"])
    pin = Pin("mmcv-full", "1.6.0", None, ())
    made = SimpleNamespace(
        target=wanted, interpreter=SimpleNamespace(version="3.8.18"), wheels=(), unhashed=(), sdists=(pin,),
        locks=SimpleNamespace(build={}), patches=(),
    )  # fmt: skip
    said = [step.what for step in plan._steps(made)]
    assert "mmcv-full 1.6.0 built from its sdist, of its operators only modulated_deform_conv, nms" in said


@pytest.mark.openmmlab
@pytest.mark.parametrize("name", ["cpu-openmmlab", "cpu-openmmlab-torch2"])
def test_the_facts_are_those_of_the_locked_sdist(name, tmp_path):
    """The sdist is in the cache where the target was built."""
    found = target.load(name)
    python = {"python_version": found.python[0], "python_full_version": found.python[0] + ".0"}
    pins = read_lock(envs_dir() / "locks" / f"{name}.txt").for_environment(
        {**default_environment(), **python}
    )
    pin = pins["mmcv-full"]
    source = sdists.unpack(sdists.obtain(pin, index.configured()), tmp_path / "sdist")
    devices = json.loads((model_dir() / "bevformer/mm/devices.json").read_text())[f"mmcv-full {pin.version}"]
    assert operators.names(source) == set(operator_names.known("mmcv-full", pin.version))
    assert operator_facts.on_devices(source) == {device: devices[device] for device in ("cpu", "cuda")}
    assert all(each in devices["source"] for each in pin.hashes)


def test_facts_are_read_out_of_the_sources(source, tmp_path, capsys):
    folder = source / operators.FOLDER
    (folder / "cpu/keep.cpp").write_text(
        "REGISTER_DEVICE_IMPL(keep_impl,\n    CPU, keep_cpu);\nint keep_forward(const int &x, int a) {\n}\n"
    )
    (folder / "mlu").mkdir()
    (folder / "mlu/keep.cpp").write_text("REGISTER_DEVICE_IMPL(keep_impl, MLU, keep_mlu);\n")
    assert operators.names(source) == {"keep", "drop"}
    found = operator_facts.on_devices(source)
    assert found == {"cpu": ["keep_forward", "keep_impl"], "cuda": ["drop_impl"]}
