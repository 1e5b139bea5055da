"""The shipped recipes from their real sources: assembled, compiled and linked with. No GPU is used.

Skipped, with what each source said, where none can be reached from here. Downloaded are 90-130 MB for each
toolkit, and torch 1.13.1 (887 MB, once; uv keeps it) for mmcv-full's deformable attention.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from bevrepro.core.errors import MachineError
from bevrepro.env import cuda_recipe, index, index_wheels
from bevrepro.env.cuda_recipe import Part
from bevrepro.env.fetch import NotFetched, fetch
from bevrepro.env.nvcc_check import SOURCE, check
from bevrepro.env.toolkit import Sources, make_toolkit
from bevrepro.env.toolkit_tree import is_whole
from bevrepro.probe.elf import Elf
from bevrepro.probe.fatbin import read_fatbin

pytestmark = [pytest.mark.slow, pytest.mark.net]
ROOT = Path(__file__).parents[2]
MMCV = Part(
    "wheel", "mmcv-full", "1.6.0", "mmcv-full-1.6.0.tar.gz",
    "2ac60fb2ff75ef93c53b68f10a095a4929d67aedbd95c02641e1e5258d12b874", 554896, (),
)  # fmt: skip
TORCH_FLAGS = (
    "-D__CUDA_NO_HALF_OPERATORS__", "-D__CUDA_NO_HALF_CONVERSIONS__", "-D__CUDA_NO_HALF2_OPERATORS__",
    "-D__CUDA_NO_BFLOAT16_CONVERSIONS__", "-D_GLIBCXX_USE_CXX11_ABI=0", "--expt-relaxed-constexpr",
    "-std=c++14", "-Xcompiler", "-fPIC",
)  # fmt: skip


@pytest.fixture(scope="module")
def toolkit(tmp_path_factory):
    """A toolkit by its version, made once for this file."""
    folder = tmp_path_factory.mktemp("cuda é")
    made = {}

    def get(version, kind=None):
        if (version, kind) not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("BEVREPRO_CACHE", str(folder / "cache"))
                try:
                    sources = Sources((kind,) if kind else None)
                    made[version, kind] = make_toolkit(version, folder / f"{version}-{kind}", sources)
                except MachineError as error:
                    pytest.skip(f"{error.seen}:\n{error.why}")
        if made[version, kind].host_compiler is None:
            pytest.skip(f"no g++ that CUDA {version} takes, and none could be fetched")
        return made[version, kind]

    return get


def architectures(library):
    with Elf(library) as elf:
        found = read_fatbin(elf)
    return None if found is None else found.architectures


def nvcc(made, *words):
    done = subprocess.run([made.home / "bin/nvcc", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("version", cuda_recipe.versions())
def test_the_toolkit_compiles_and_links_for_sm_80(toolkit, version, tmp_path):
    made = toolkit(version)
    assert is_whole(made.home)
    assert check(made.home, "sm_80", tmp_path).nvcc == cuda_recipe.load(version).nvcc
    known = nvcc(made, "--list-gpu-arch").replace("compute_", "sm_").split()
    assert sorted(known) == sorted(cuda_recipe.load(version).architectures)


@pytest.mark.parametrize("version", cuda_recipe.versions())
def test_a_library_linked_by_the_host_compiler_loads_and_holds_sm_80(toolkit, version, tmp_path):
    made = toolkit(version)
    (tmp_path / "scale.cu").write_text(SOURCE)
    nvcc(made, "-c", "-arch=sm_80", "-Xcompiler", "-fPIC", "-o", tmp_path / "scale.o", tmp_path / "scale.cu")
    home, library = made.home, tmp_path / "libscale.so"
    words = [
        made.host_compiler,
        "-shared",
        tmp_path / "scale.o",
        "-o",
        library,
        "-L",
        home / "lib64",
        "-lcudart",
    ]
    subprocess.run([*words, f"-Wl,-rpath,{home}/lib64", "-Wl,--no-undefined"], check=True)
    assert ctypes.CDLL(str(library)).bevrepro_scale and architectures(library) == ("8.0",)


def test_objects_are_equal_byte_for_byte_where_temporary_files_are_kept(toolkit, tmp_path):
    made = toolkit("11.8")
    (tmp_path / "scale.cu").write_text(SOURCE)
    found = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        words = ["-keep", "-keep-dir", tmp_path / name, "-arch=sm_80", "-o", tmp_path / f"{name}.o"]
        nvcc(made, "-c", *words, tmp_path / "scale.cu")
        found.append((tmp_path / f"{name}.o").read_bytes())
    assert found[0] == found[1] == found[2]


@pytest.fixture(scope="module")
def mmcv(tmp_path_factory):
    """mmcv-full 1.6.0's C++ and CUDA sources."""
    folder = tmp_path_factory.mktemp("mmcv")
    indexes = index_wheels.configured()
    try:
        urls = index_wheels.addresses(MMCV, indexes)
        packed = fetch(MMCV.file, urls, MMCV.sha256, MMCV.size, folder / MMCV.file, via=indexes.via)
    except NotFetched as error:
        pytest.skip(f"mmcv-full's sdist cannot be had here: {error}")
    with tarfile.open(packed) as archive:
        archive.extractall(folder)
    return folder / "mmcv-full-1.6.0/mmcv/ops/csrc"


@pytest.fixture(scope="module")
def torch(tmp_path_factory):
    """torch 1.13.1 for Python 3.8 as files: headers to compile and libraries to link with, never imported."""
    folder, own = tmp_path_factory.mktemp("torch"), index.configured()
    words = [
        "pip",
        "install",
        "--target",
        folder,
        "--no-deps",
        "--only-binary",
        ":all:",
        "--python-version",
        "3.8",
    ]
    argv = [index.uv(), *words, *own.arguments(), "torch==1.13.1"]
    done = subprocess.run(argv, capture_output=True, text=True, env=own.environment())
    if done.returncode:
        pytest.skip(f"torch 1.13.1 for Python 3.8 cannot be had here: {done.stderr.strip()[-300:]}")
    return folder / "torch"


def test_mmcvs_deformable_attention_compiles_and_links_against_torch_1_13_for_sm_80(
    toolkit, mmcv, torch, tmp_path
):
    made = toolkit("11.8")
    below = ("include", "include/torch/csrc/api/include", "include/TH", "include/THC")
    folders = [mmcv / "common", mmcv / "common/cuda", *(torch / each for each in below)]
    words = [*TORCH_FLAGS, "-gencode=arch=compute_80,code=sm_80", *(f"-I{folder}" for folder in folders)]
    source = mmcv / "pytorch/cuda/ms_deform_attn_cuda.cu"
    nvcc(made, "-c", source, "-o", tmp_path / "attention.o", *words)
    library = tmp_path / "attention.so"
    linked = ["-lc10", "-lc10_cuda", "-ltorch_cpu", "-ltorch_cuda", "-ltorch_cuda_cu", "-ltorch", "-lcudart"]
    argv = [made.host_compiler, "-shared", "-o", library, tmp_path / "attention.o", f"-L{torch}/lib"]
    argv += [f"-L{made.home}/lib64", "-Wl,--no-undefined", "-Wl,--allow-shlib-undefined", *linked]
    subprocess.run(argv, check=True)
    names = subprocess.run(["nm", "-DC", library], capture_output=True, text=True, check=True).stdout
    assert " T ms_deform_attn_cuda_forward(" in names and " T ms_deform_attn_cuda_backward(" in names
    assert architectures(library) == ("8.0",)


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_a_command_killed_at_any_moment_leaves_a_whole_toolkit_or_none(toolkit, seconds, tmp_path):
    toolkit("13.0")  # skips where its source is not reached
    env = {**os.environ, "BEVREPRO_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "bevrepro", "env", "cuda", "13.0", "--into", str(tmp_path / "cuda")]
    child = subprocess.Popen(argv, env=env, start_new_session=True, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "cuda").exists() or is_whole(tmp_path / "cuda")
    assert subprocess.run(argv, env=env).returncode == 0
    assert is_whole(tmp_path / "cuda") and not list(tmp_path.glob(".cuda*"))
