"""What the doctor says of a target against the target and its lock: one truth in two files."""

import re

import pytest
from packaging.requirements import Requirement

from bevrepro.doctor import target as doctors
from bevrepro.env import target
from bevrepro.env.lockfile import read_lock
from bevrepro.env.locking import linux, lock_path

ALL = target.names()
NVIDIA = [name for name in ALL if target.load(name).hardware.kind == "nvidia"]
ACCELERATORS = {"cpu": "none", "nvidia": "nvidia", "ascend": "ascend"}


def locked(name):
    """name -> version in the target's locks, on its best Python."""
    found = target.load(name)
    paths = [lock_path(name, kind) for kind in ("index", "torch")]
    here = linux(found.python[0], found.lock.architecture)
    chosen = [read_lock(path).for_environment(here) for path in paths if path.exists()]
    return {pin.name: pin.version for pins in chosen for pin in pins.values()}


def test_both_know_the_same_targets():
    assert set(doctors.names()) == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_title_python_libc_and_hardware_agree(name):
    row, found = doctors.find(name), target.load(name)
    assert row.title == found.title and row.python == found.python
    assert row.accelerator == ACCELERATORS[found.hardware.kind]
    assert row.arch == (found.lock.architecture,) and row.glibc in (None, found.lock.glibc)
    assert row.driver == found.hardware.minimum_driver


@pytest.mark.parametrize("name", ALL)
def test_torch_is_the_one_that_is_locked(name):
    row, version = doctors.find(name), locked(name)["torch"]
    assert row.torch.split("+")[0] == version.split("+")[0]
    assert "+" not in version or row.torch == version


@pytest.mark.parametrize("name", NVIDIA)
def test_torchs_cuda_and_nccl_are_the_ones_that_are_locked(name):
    row, pins = doctors.find(name), locked(name)
    assert row.torch.endswith("+cu" + row.cuda.replace(".", ""))
    for key, said in (("nvidia-cuda-runtime", row.cuda), ("nvidia-nccl", row.nccl)):
        theirs = [version for pin, version in pins.items() if re.fullmatch(key + r"(-cu\d+)?", pin)]
        assert all(version == said or version.startswith(said + ".") for version in theirs)


@pytest.mark.parametrize("name", NVIDIA)
def test_the_compiler_is_the_targets(name):
    row, found = doctors.find(name), target.load(name)
    assert row.toolkit == (found.cuda.version if found.cuda else None)
    assert row.builds is (found.cuda is not None)


@pytest.mark.parametrize("name", NVIDIA)
def test_what_is_compiled_is_for_the_gpus_that_the_doctor_names(name):
    row, found = doctors.find(name), target.load(name)
    compiled = {f"{each[3:-1]}.{each[-1]}" for each in found.hardware.architectures}
    assert compiled <= set(row.kernels)
    for capability in row.capabilities:
        same_major = {each for each in compiled if each.split(".")[0] == capability.split(".")[0]}
        assert same_major and min(same_major) <= capability


@pytest.mark.parametrize("name", ALL)
def test_a_target_that_only_its_files_know_is_no_verified_one(name):
    done = target.load(name).level in ("compiled", "ran-on-cpu", "ran-on-gpu")
    assert doctors.find(name).verified or not done, (
        "its facts were tried: take `status` out of facts/targets.toml"
    )


def test_requirements_name_torch_once():
    for name in ALL:
        found = target.load(name)
        named = [Requirement(each).name for each in found.requirements].count("torch")
        assert named == (0 if found.torch else 1)
