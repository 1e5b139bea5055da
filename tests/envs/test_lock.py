"""The hashed locks against the target, pyproject.toml and torch's own metadata."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import lock
import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from target_file import ENVS, ROOT, lock_paths, read_target

TARGET = read_target("cpu")[0]
PROJECT = lock.tomllib.loads(Path(ROOT, "pyproject.toml").read_text())
MAIN, TORCH = (Path(path).read_text() for path in lock_paths("cpu"))
PYTHONS = TARGET["python"]["order"]


def entries():
    """Every pin of the main lock: (requirement, its hashes)."""
    text = MAIN.replace("\\\n", " ")
    for line in text.splitlines():
        if not line.startswith("#"):
            pin, *hashes = line.split("--hash=")
            yield Requirement(pin), [part.strip() for part in hashes]


def pins_for(python):
    """name -> version on Linux with that Python; fails where a name has two."""
    environment = dict(default_environment(), python_version=python, python_full_version=python + ".7")
    environment.update(
        sys_platform="linux", platform_system="Linux", platform_python_implementation="CPython"
    )
    pins = {}
    for pin, _ in entries():
        if pin.marker is None or pin.marker.evaluate(environment):
            assert canonicalize_name(pin.name) not in pins
            pins[canonicalize_name(pin.name)] = next(iter(pin.specifier)).version
    return environment, pins


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_of_target_and_project_is_locked(python):
    environment, pins = pins_for(python)
    for requirement in map(Requirement, lock.requirements_of(TARGET, PROJECT)):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            version = pins.get(canonicalize_name(requirement.name))
            assert version and version in requirement.specifier, f"{requirement} is not locked: make lock"


@pytest.mark.parametrize("python", PYTHONS)
def test_nothing_heavy_or_doubled_is_locked(python):
    _, pins = pins_for(python)
    assert [name for name in pins if name.startswith(("torch", "nvidia", "triton", "cuda"))] == []
    assert [name for name in pins if name.startswith("opencv")] == ["opencv-python-headless"]
    assert pins["numpy"].startswith("1.")


def test_every_pin_carries_a_sha256():
    assert len(list(entries())) > 50
    for pin, hashes in entries():
        assert str(pin.specifier).startswith("==")
        assert hashes and all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in hashes), pin


def test_locks_name_no_package_index():
    assert not re.search(r"https?:|--(extra-)?index|--find-links| @ ", MAIN + TORCH)


def test_torchs_lock_follows_from_the_target():
    assert TORCH == lock.torch_lock(TARGET)


def test_what_torch_asks_for_is_what_the_target_says():
    wheel = importlib.metadata.distribution("torch")
    if "torch==" + wheel.version != TARGET["torch"]["requirement"]:
        pytest.skip("another torch is installed here: " + wheel.version)
    asked = {Requirement(line).name for line in wheel.requires if "extra ==" not in line}
    assert asked == {Requirement(line).name for line in TARGET["torch"]["requires"]}


def test_python_range_is_the_projects():
    allowed = Requirement("python" + PROJECT["project"]["requires-python"]).specifier
    assert [f"3.{minor}" for minor in range(8, 16) if f"3.{minor}.0" in allowed] == sorted(PYTHONS)


@pytest.mark.parametrize(
    "requirement, expected",
    [("a>=1", "a>=1; M"), ("b; python_version < '3.11'", "b; (python_version < '3.11') and M")],
)
def test_own_markers_are_kept(requirement, expected):
    assert lock.with_marker(requirement, "M") == expected


@pytest.mark.net
@pytest.mark.slow
def test_resolving_again_changes_nothing():
    done = subprocess.run([sys.executable, f"{ENVS}/lock.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
