"""The seeds' machines: each pain that a host can show is named before it happens.

Pains of ../shared/seeds/PAINS.md that no host shows are looked at elsewhere: replaced files (`doctor env`),
infos in a read-only mount, missing files and counts (`doctor data`), results (`doctor metrics`), a hard-coded
data root and a launcher that is demanded (bevrepro's own model has neither).
"""

import json
from pathlib import Path

import pytest

from bevrepro.cli import main
from bevrepro.doctor.diagnose import diagnose
from bevrepro.doctor.record import load

MACHINES = Path(__file__).parents[1] / "machines"

# seed, its pain, a host on which it will happen, the findings that foresee it
PAINS = [
    ("000", "building mmdet3d needs CUDA_HOME although torch brings its own CUDA", "seed000_without_toolkit",
     "cuda-home-unset"),
    ("000", "several toolkits behind one symlink", "seed000_linked_toolkits", "cuda-link cuda-mismatch"),
    ("000", "LD_LIBRARY_PATH beats ldconfig", "seed000_linked_toolkits", "library-path-shadow"),
    ("000", "conda always gives CUDA 12.4", "seed000_conda_cuda_12_4", "cuda-mismatch cuda-headers-missing"),
    ("000", "mmdet3d 0.17.1 has unpinned dependencies, numpy must be 1.19.5", "seed000_conda_cuda_12_4",
     "numba-numpy-1-20 devkit-old-numpy yapf-verify setuptools-distutils"),
    ("000", "base needs 24-28 GB", "seed000_linked_toolkits", "gpu-memory"),
    ("001", "mmcv's setup.py replaced to get its operators", "seed001_ascend_matrixvt", "mmcv-no-ops"),
    ("001", "cannot allocate memory in static TLS block", "seed001_ascend_matrixvt", "libgomp-static-tls"),
    ("002", "pins by hand that conflict", "seed002_a100_40gb", "devkit-matplotlib yapf-verify"),
    ("002", "H800 may need another CUDA", "h800_torch_1_10", "torch-no-kernels"),
    ("002", "40 GB does not fit BEV 200x200 without the CUDA kernel", "seed002_a100_40gb", "gpu-memory"),
    ("003", "port 29500 in use", "seed003_ascend_bevfusion", "port-in-use"),
    ("003", "MMCV==2.2.0 is used but incompatible", "seed003_ascend_bevfusion", "openmmlab-range"),
    ("003", "HCCL_IF_IP is invalid", "seed003_ascend_bevfusion", "hccl-if-ip"),
    ("003", "error 507018: processes left over", "seed003_ascend_bevfusion", "npu-occupied"),
    ("004", "no lock: dependency conflicts", "seed004_minipc_wsl2", "numba-numpy-1-20"),
    ("004", "no nvcc", "seed004_minipc_wsl2", "cuda-home-unset"),
    ("004", "extraction at some 100 KB/s", "seed004_minipc_wsl2", "wsl-windows-drive"),
    ("004", "indexing killed for memory until .wslconfig was found", "seed004_minipc_wsl2", "wsl-memory"),
    ("004", "NCCL: unhandled system error with one GPU", "seed004_minipc_wsl2", "nccl-old-wsl"),
    ("004", "Illegal instruction", "seed004_minipc_wsl2", "cpu-no-avx"),
]  # fmt: skip

# What the zoo was asked to hold, the host that is it, and one finding that makes it that host.
ZOO = [
    ("mini-PC without AVX on WSL2 with 8 GB", "minipc_no_avx_wsl2", "cpu-no-avx wsl-memory"),
    ("A100 with conda's CUDA 12.4 beside torch cu111", "seed000_conda_cuda_12_4", "cuda-mismatch"),
    ("H800 with torch 1.10", "h800_torch_1_10", "torch-no-kernels"),
    ("RTX 3090 with PyPI's torch 1.10", "rtx3090_pypi_torch_1_10", "torch-no-kernels"),
    ("RTX 4090", "rtx4090_cpu_torch", "torch-gpu-idle"),
    ("RTX 5090", "rtx5090_torch_2_6", "torch-no-kernels"),
    ("Ascend 910B", "ascend_910b", "host-arch"),
    ("laptop without a GPU", "laptop_without_gpu", "gpu-none"),
    ("docker without --shm-size", "docker_no_fuse_small_shm", "shm-small"),
    ("CI machine", "ci_vm_debian12", "gpu-none"),
]


@pytest.mark.parametrize("seed, pain, host, foreseen", PAINS, ids=[f"{row[0]} {row[1]}" for row in PAINS])
def test_a_seeds_pain_is_named_before_it_happens(seed, pain, host, foreseen):
    found = {each.id: each.severity.value for each in diagnose(load(MACHINES / f"{host}.json"))}
    assert set(foreseen.split()) <= set(found)


@pytest.mark.parametrize("what, host, ids", ZOO, ids=[row[0] for row in ZOO])
def test_the_zoo_holds_the_hosts_that_were_asked_for(what, host, ids):
    assert set(ids.split()) <= {each.id for each in diagnose(load(MACHINES / f"{host}.json"))}


def test_the_pains_are_those_of_the_list(shared):
    text = (shared / "seeds/PAINS.md").read_text()
    assert {row[0] for row in PAINS} == {line[2:5] for line in text.splitlines() if line[2:5].isdigit()}


@pytest.mark.parametrize("host", sorted({row[2] for row in PAINS}))
def test_the_command_line_names_them(host, capsys):
    main(["doctor", "--json", "--replay", str(MACHINES / f"{host}.json")])
    found = {each["id"] for each in json.loads(capsys.readouterr().out)["findings"]}
    assert all(set(row[3].split()) <= found for row in PAINS if row[2] == host)
