"""Judging for a target: what it needs, against machines on both sides of each bound."""

import pytest

from bevrepro import facts
from bevrepro.core.errors import ConfigError
from bevrepro.core.machine import Cuda, Gpu, Host, Machine, Python, Toolkit, Torch
from bevrepro.doctor import target
from bevrepro.doctor.diagnose import diagnose
from bevrepro.doctor.registry import CHECKS

A100, H800 = Gpu("NVIDIA A100", 81920, 81000, "8.0"), Gpu("NVIDIA H800", 81559, 81000, "9.0")
RTX4090, RTX5090 = Gpu("RTX 4090", 24564, 24000, "8.9"), Gpu("RTX 5090", 32607, 32000, "12.0")


def ids(name: str, **parts) -> set[str]:
    found = diagnose(Machine(**parts), target.checks_for(target.find(name)))
    return {f"{each.id}:{each.severity.value}" for each in found}


@pytest.mark.parametrize("name", target.names())
def test_about_an_unknown_machine_no_target_complains(name):
    assert ids(name) <= {"target-gpu:info"}


def test_an_unknown_target_is_refused_with_the_list():
    with pytest.raises(ConfigError) as caught:
        target.find("a10O")
    assert "'a100'" in caught.value.seen and "ascend910b" in caught.value.why


@pytest.mark.parametrize(
    "name, gpu, said",
    [
        ("a100", A100, set()),
        ("a100", H800, {"target-kernels:fail"}),
        ("a100", RTX4090, {"target-capability:info"}),
        ("h800", H800, set()),
        ("h800-torch2", A100, {"target-capability:info"}),
        ("rtx40", RTX4090, set()),
        ("rtx40", RTX5090, {"target-kernels:fail"}),
        ("rtx50", RTX5090, set()),
        ("rtx50-torch2", RTX5090, set()),
        ("bevformer-2022", RTX4090, set()),
        ("bevformer-2022", H800, {"target-kernels:fail"}),
        ("wsl2", Gpu("unheard of", capability="n/a"), set()),
        ("cpu", H800, set()),
    ],
)
def test_compiled_code_is_compared_with_the_gpu(name, gpu, said):
    assert ids(name, cuda=Cuda(nvidia_smi="ok", gpus=(gpu,))) == said


def test_a_gpu_without_code_is_told_the_targets_that_have_it():
    machine = Machine(cuda=Cuda(nvidia_smi="ok", gpus=(H800,)))
    (found,) = diagnose(machine, target.checks_for(target.find("a100")))
    assert "h800, h800-torch2" in found.remedy and found.commands == ("bevrepro doctor --target h800",)


@pytest.mark.parametrize("name, fires", [("a100", True), ("cpu", False), ("ascend910b", False)])
def test_no_gpu_fails_the_targets_that_need_one(name, fires):
    said = ids(name, cuda=Cuda(nvidia_smi="absent", gpus=()))
    assert ("target-gpu:fail" in said) is fires


@pytest.mark.parametrize(
    "name, driver, old",
    [
        ("a100", "450.80.01", True),
        ("a100", "450.80.02", False),
        ("h800-torch2", "524.9", True),
        ("h800-torch2", "525.60", False),
        ("cpu", "100", False),
        ("a100", "garbage", False),
    ],
)
def test_the_driver_is_compared_with_the_targets_cuda(name, driver, old):
    assert ("target-driver:fail" in ids(name, cuda=Cuda(driver=driver))) is old


@pytest.mark.parametrize(
    "name, libc, version, said",
    [
        ("cpu", "glibc", "2.27", {"target-libc:fail"}),
        ("cpu", "glibc", "2.28", set()),
        ("a100", "glibc", "2.27", set()),
        ("a100", "musl", None, {"target-libc:fail"}),
        ("cpu-openmmlab", "glibc", "2.16", {"target-libc:fail"}),
    ],
)
def test_the_c_library_is_judged_for_the_target(name, libc, version, said):
    assert ids(name, host=Host(libc=libc, libc_version=version)) == said


@pytest.mark.parametrize(
    "name, said", [("bevformer-2022", {"target-nccl:warn"}), ("wsl2", set()), ("cpu", set())]
)
def test_an_old_nccl_is_foreseen_under_wsl2(name, said):
    assert ids(name, host=Host(wsl=2)) == said


def test_a_target_for_wsl_says_so_elsewhere():
    assert ids("wsl2", host=Host(wsl=0)) == {"target-wsl:info"}


@pytest.mark.parametrize(
    "toolkit, said",
    [
        (None, {"target-compiler:warn"}),
        (Toolkit("/usr/local/cuda", "default", True), {"target-compiler:warn"}),
        (Toolkit("/c", "CUDA_HOME", True, "/c/bin/nvcc", "12.4"), {"target-compiler:warn"}),
        (Toolkit("/c", "CUDA_HOME", True, "/c/bin/nvcc", "11.1"), set()),
        (Toolkit("/c", "CUDA_HOME", True, "/c/bin/nvcc"), set()),
    ],
)
def test_a_target_that_compiles_asks_for_its_nvcc(toolkit, said):
    cuda = Cuda(toolkit=toolkit, toolkit_searched=True)
    assert ids("a100", cuda=cuda) == said
    assert ids("a100-torch2", cuda=cuda) == set()


def test_other_pythons_torches_and_processors_are_told():
    python = Python(version="3.12.1", torch=Torch("2.5.1"))
    assert ids("a100", python=python) == {"target-python:info", "target-torch:info"}
    assert ids("cpu", python=Python(version="3.11.2", torch=Torch("2.13.0+cpu"))) == set()
    assert ids("cpu", host=Host(arch="aarch64")) == {"target-arch:fail"}


@pytest.mark.parametrize("name", target.names())
def test_nothing_unverified_is_a_fail(name):
    worst = Machine(
        host=Host(arch="riscv64", libc="musl", wsl=2),
        cuda=Cuda(driver="1", gpus=(Gpu("old", capability="1.0"),), toolkit_searched=True),
    )
    severities = {each.severity.value for each in diagnose(worst, target.checks_for(target.find(name)))}
    assert ("fail" in severities) is (facts.row("targets", name).get("status") != "unverified")


def test_for_a_cpu_target_gpu_checks_are_left_out_and_for_a_gpu_target_not():
    left = {each.family for each in CHECKS if not target.left_out(target.find("cpu"), each)}
    assert "cuda" not in left and "host" in left
    assert not any(
        target.left_out(target.find("a100"), each) for each in CHECKS if each.id == "driver-broken"
    )


def test_every_check_of_the_family_fires_above():
    assert len(target.CHECKS) == len({each.id for each in target.CHECKS}) == 11
    assert not diagnose(Machine(host=Host(libc="musl")), target.CHECKS)  # without a target: nothing to say
