"""Recorded and composed hosts: what the doctor must say about each, and what it must not."""

import functools
import json
from pathlib import Path

import pytest

from bevrepro.core.codec import to_json
from bevrepro.core.machine import Machine
from bevrepro.doctor.diagnose import diagnose, failed
from bevrepro.doctor.record import load
from bevrepro.doctor.registry import CHECKS, FAMILIES
from bevrepro.doctor.summary import summarise

MACHINES = Path(__file__).parents[1] / "machines"

# host -> "id:severity" in the registry's order
EXPECTED = {
    "ci_vm_debian12": "gpu-none:info",
    "a100_without_cuda_home": ("cuda-home-unset:warn train-days:info torch-tf32:info kernel-hang:info"),
    "a100_newer_toolkit_and_gcc": (
        "cuda-mismatch:warn gcc-too-new:warn gpu-memory:info train-days:info torch-tf32:info"
    ),
    "rtx3090_cuda_home_list": (
        "driver-old:fail cuda-home-list:fail gpu-memory:info fuse-override:info torch-tf32:info"
    ),
    "rtx4090_cpu_torch": "cpu-no-avx2:info gpu-memory:info torch-gpu-idle:warn",
    "minipc_no_avx_wsl2": (
        "wsl-memory:warn swap-none:info cpu-no-avx:warn gpu-memory:info torch-dies:fail torch-tf32:info "
        "nccl-old-wsl:fail"
    ),
    "old_cpu_torch_1_6": "cpu-no-avx:fail gpu-none:info",
    "wsl2_laptop_small_memory": (
        "wsl-memory:warn wsl-windows-drive:warn proxy-set:info proxy-localhost:warn proxy-socks:warn "
        "gpu-none:info"
    ),
    "wsl1_laptop": (
        "host-wsl1:fail wsl-windows-drive:warn gpu-none:info cuda-home-unset:warn fuse-device:warn"
    ),
    "mac_laptop": "host-system:fail host-arch:info gpu-none:info python-shared:info torch-missing:warn",
    "alpine_ci": (
        "host-libc:fail host-arch:info probe-failed:warn cpu-cores:warn driver-broken:fail "
        "fuse-library:warn python-unusable:fail"
    ),
    "docker_no_fuse_small_shm": (
        "memory-low:fail swap-none:info disk-low:fail inodes-low:warn shm-small:warn "
        "open-files-low:warn cpu-cores:warn gpu-none:warn fuse-device:warn fuse-library:warn "
        "python-version:fail python-shared:info torch-broken:fail devkit-numpy:fail"
    ),
    "docker_fuse_without_rights": (
        "gpu-none:info fuse-capability:warn python-shared:info torch-missing:warn"
    ),
    "workstation_driver_mismatch": (
        "host-libc:fail memory-low:warn disk-low:warn disk-low:warn work-read-only:warn "
        "driver-broken:fail cuda-home-missing:fail fuse-device:warn fuse-helper:warn "
        "python-version:fail user-site-leak:warn pythonpath-leak:warn torch-numpy2:fail mmcv-twice:fail"
    ),
    "unknown_host": "",
    "a100_published_pins": "train-days:info torch-tf32:info",
    "a100_torch_library_deleted": (
        "gcc-too-new:warn gpu-memory:info train-days:info torch-library-deleted:fail torch-tf32:info "
        "mmcv-no-ops:fail visible-devices:warn rank-variables:info"
    ),
    "a100_unpinned_mmdet3d": "train-days:info torch-tf32:info mmdet3d-next:fail",
    "ascend_910b": "host-arch:info",
    "ascend_910b_stale_script": (
        "host-arch:info openmmlab-range:fail port-in-use:warn hccl-if-ip:fail npu-unhealthy:warn "
        "npu-occupied:warn npu-torch-pair:fail npu-cann-matrix:warn libgomp-static-tls:warn"
    ),
    "ascend_910b_without_cann": "host-arch:info hccl-if-ip:fail npu-toolkit-missing:warn npu-idle:warn",
    "ascend_container_without_devices": "host-arch:info gpu-none:info npu-smi-broken:warn npu-no-cann:fail",
    "docker_v100_without_sys": "gpu-memory:info ext-cpu-only:warn nccl-old-wsl:warn",
    "h800_torch_1_10": (
        "gpu-arch-nvcc:warn arch-list-gpu:warn cuda-link:info train-days:info torch-no-kernels:fail "
        "torch-tf32:info ext-no-kernels:fail yapf-verify:fail setuptools-distutils:fail devkit-"
        "matplotlib:warn opencv-twice:warn"
    ),
    "rtx3090_pypi_torch_1_10": (
        "cuda-mismatch:warn gcc-too-new:warn gpu-arch-nvcc:warn cuda-headers-missing:warn "
        "library-path-shadow:warn gpu-memory:info torch-no-kernels:fail torch-tf32:info "
        "ext-other-torch:fail ext-cpu-only:warn numba-numpy-1-24:fail protobuf-tensorboard:warn "
        "shapely-devkit:warn numpy-alias:warn torchvision-mmcv:warn port-in-use:warn gpu-occupied:warn "
        "visible-devices:warn"
    ),
    "rtx4090_mixed_builds": (
        "gpu-memory:info library-missing:fail library-missing:fail libstdcxx-old:fail "
        "libstdcxx-old:fail glibc-old:fail opencv-libgl:fail mmcv-no-ops:fail ext-unreadable:fail "
        "numba-numpy-1-20:fail numba-python:warn networkx-python:fail devkit-old-numpy:fail "
        "torch-removed-thc:warn"
    ),
    "rtx5090_torch_2_6": (
        "gpu-arch-nvcc:warn gpu-memory:info train-days:info torch-no-kernels:fail openmmlab-range:fail "
        "ext-no-kernels:fail setuptools-pkg-resources:warn weights-only:warn"
    ),
    "wsl2_old_nccl": "wsl-kernel-old:warn gpu-memory:info torch-tf32:info nccl-old-wsl:fail",
    "laptop_without_gpu": "gpu-none:info",
    "seed000_conda_cuda_12_4": (
        "cuda-mismatch:warn cuda-headers-missing:warn train-days:info torch-tf32:info yapf-verify:fail "
        "setuptools-distutils:fail numba-numpy-1-20:fail devkit-old-numpy:fail"
    ),
    "seed000_linked_toolkits": (
        "cuda-mismatch:warn gcc-too-new:warn gpu-arch-nvcc:warn cuda-link:info library-path-shadow:warn "
        "gpu-memory:info torch-tf32:info numba-numpy-1-24:fail numpy-alias:warn"
    ),
    "seed000_without_toolkit": "cuda-home-unset:warn train-days:info torch-tf32:info",
    "seed001_ascend_matrixvt": (
        "host-arch:info openmmlab-range:fail mmcv-no-ops:fail npu-cann-matrix:warn libgomp-static-tls:warn"
    ),
    "seed002_a100_40gb": (
        "gpu-memory:info train-days:info torch-tf32:info yapf-verify:fail devkit-matplotlib:warn"
    ),
    "seed003_ascend_bevfusion": (
        "host-arch:info openmmlab-range:fail port-in-use:warn hccl-if-ip:fail npu-occupied:warn "
        "npu-cann-matrix:warn"
    ),
    "seed004_minipc_wsl2": (
        "wsl-memory:warn swap-none:info wsl-windows-drive:warn cpu-no-avx:warn cuda-home-unset:warn "
        "gpu-memory:info torch-tf32:info numba-numpy-1-20:fail numpy-alias:warn nccl-old-wsl:fail"
    ),
}


@functools.cache
def said(name: str) -> list[str]:
    return [f"{each.id}:{each.severity.value}" for each in diagnose(load(MACHINES / f"{name}.json"))]


def test_every_recorded_host_has_its_expectation():
    assert {path.stem for path in MACHINES.glob("*.json")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recorded_host_gets_exactly_its_findings(name):
    assert said(name) == EXPECTED[name].split()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_record_holds_no_field_that_is_not_read(name):
    path = MACHINES / f"{name}.json"
    assert to_json(load(path)) == json.loads(path.read_text())


@pytest.mark.parametrize("name", EXPECTED)
def test_a_record_names_no_person(name):
    text = (MACHINES / f"{name}.json").read_text()
    assert all(part.startswith("user") for part in text.split("/home/")[1:])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_every_check_fires_somewhere_and_is_quiet_somewhere(check):
    fires = {name for name in EXPECTED if any(each.startswith(f"{check.id}:") for each in said(name))}
    assert fires and fires != set(EXPECTED)


def test_unknown_says_nothing():
    assert diagnose(Machine()) == ()


def test_a_healthy_machine_without_a_gpu_does_not_fail():
    assert not failed(diagnose(load(MACHINES / "ci_vm_debian12.json")))


def test_ids_are_unique_and_every_check_says_why():
    ids = [check.id for check in CHECKS]
    assert len(ids) == len(set(ids))
    assert all(check.looks_at and check.why.endswith(".") for check in CHECKS)


def test_every_warning_comes_with_a_way_out():
    findings = [each for name in EXPECTED for each in diagnose(load(MACHINES / f"{name}.json"))]
    assert not [each for each in findings if each.severity != "info" and not each.remedy]
    assert not [each for each in findings if "\n" in "".join((each.seen, each.remedy, *each.commands))]


def test_every_family_has_its_summary_line():
    assert tuple(summarise(Machine())) == FAMILIES
    assert set(summarise(Machine()).values()) == {"unknown"}
