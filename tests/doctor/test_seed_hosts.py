"""The seeds' machines: each pain that a host can show is named before it happens.

Pains of ../shared/seeds/PAINS.md that no host shows are named by `doctor env|data|config PATH` (PATH_PAINS).
Left to other commands: launching on one GPU or two nodes, applying patches (bevrepro env), results on NPUs.
"""

import json
from pathlib import Path

import pytest

from bevrepro.cli import main
from bevrepro.doctor.diagnose import diagnose
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.record import load
from bevrepro.doctor.registry import PATH_CHECKS
from bevrepro.probe.config import Config
from bevrepro.probe.environment import Environment
from bevrepro.probe.nuscenes import DataSet, TableFolder
from bevrepro.probe.paths import Place
from bevrepro.probe.tree import Tree

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
    ("000", "14 days on one A100, 2 days on eight", "seed000_without_toolkit", "train-days"),
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

FOLDER, FILE = Place("/d/nuscenes", "folder"), Place("/b/projects/configs/tiny.py", "file", 3000)
# seed, its pain, what `doctor FAMILY PATH` finds there, the finding that foresees it
PATH_PAINS = [
    ("001", "three files of pytorch_lightning replaced by hand", "env",
     Environment(FOLDER, edited=("pytorch_lightning/trainer/trainer.py",)), "env-edited"),
    ("001", "lines of mmcv's deform_conv edited", "env",
     Environment(FOLDER, edited=("mmcv/ops/deform_conv.py",)), "env-edited"),
    ("003", "the version in installed files edited", "env",
     Environment(FOLDER, edited=("mmdet/__init__.py",)), "env-edited"),
    ("000", "unpinned dependencies", "env", Environment(
        FOLDER, target="a100", noted=True, installed={"numpy": "1.23.5"}, locked={"numpy": "1.19.5"}),
     "env-versions"),
    ("003", "missing pretrained file", "config",
     Config(FILE, load_from="pretrained/swint.pth", load_from_exists=False), "config-initial-weights"),
    ("004", "data root hard-coded in the config", "config",
     Config(FILE, data_root="data/nuscenes/", data_root_exists=False), "config-data-root"),
    ("004", "ImportError in tools/data_converter/indoor_converter.py", "config",
     Config(FILE, tree=Tree("/b", True, False, True)), "config-tools-import"),
    ("004", "tools/test.py assert False without a launcher", "config",
     Config(FILE, tree=Tree("/b", True, True, True)), "config-launcher"),
    ("004", "pickles written into the read-only mount", "data",
     DataSet(FOLDER, "fuse.ratarmount", tables=(TableFolder("v1.0-trainval"),), writable=False),
     "data-read-only"),
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


@pytest.mark.parametrize(
    "seed, pain, family, record, id", PATH_PAINS, ids=[f"{row[0]} {row[1]}" for row in PATH_PAINS]
)
def test_a_pain_that_a_path_shows_is_named_there(seed, pain, family, record, id):
    assert id in {each.id for each in judge_all(record, PATH_CHECKS[family])}


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
