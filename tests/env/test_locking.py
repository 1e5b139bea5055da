"""Locks against their targets without a network, and what an edit of either is told as."""

import dataclasses
import importlib.metadata
import re

import pytest
from packaging.requirements import Requirement

from bevrepro.core.errors import ConfigError
from bevrepro.core.paths import envs_dir
from bevrepro.env import locking, target
from bevrepro.env.lockfile import parse_lock, read_lock
from bevrepro.env.locking import asked_of, body_of, examine, lock_path, render, torch_pins, unsatisfied

ALL = target.names()
LOCKS = [asked for name in ALL for asked in asked_of(target.load(name))]
A100 = target.load("a100")
LINE = "numpy==1.23.5 \\\n    --hash=sha256:" + "ab" * 32 + "\n"


def changed(found, **parts):
    """A target with other values in its parts: lock={"cutoff": ...}."""
    for part, values in parts.items():
        new = dataclasses.replace(getattr(found, part), **values) if isinstance(values, dict) else values
        found = dataclasses.replace(found, **{part: new})
    return found


@pytest.fixture
def envs(tmp_path, monkeypatch):
    """An empty envs/ of a checkout, with one lock that fits."""
    (tmp_path / "envs" / "locks").mkdir(parents=True)
    monkeypatch.setattr(locking, "envs_dir", lambda: tmp_path / "envs")
    return tmp_path / "envs"


@pytest.fixture
def small(envs):
    """(what is asked, the path of its lock): numpy alone."""
    (asked, *_) = asked_of(changed(A100, requirements=("numpy==1.23.5",)))
    asked.path.write_text(render(asked, LINE))
    return asked, asked.path


@pytest.mark.parametrize("asked", LOCKS, ids=lambda asked: asked.path.name)
def test_the_lock_is_what_its_target_asks_for(asked):
    assert examine(asked) == []


@pytest.mark.parametrize("asked", LOCKS, ids=lambda asked: asked.path.name)
def test_every_requirement_is_met_on_every_python_of_the_target(asked):
    lock = read_lock(asked.path)
    assert [each for python in asked.pythons for each in unsatisfied(asked, lock, python)] == []


@pytest.mark.parametrize("path", sorted((envs_dir() / "locks").glob("*.txt")), ids=lambda path: path.name)
def test_a_lock_names_no_index_and_pins_every_file_by_hash(path):
    assert not re.search(r"https?:|--(extra-)?index|--find-links| @ ", path.read_text())
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for pin in read_lock(path).pins for digest in pin.hashes)


def test_no_lock_is_without_a_target():
    assert locking.orphans(ALL) == []


@pytest.mark.parametrize("name", [each for each in ALL if target.load(each).build.sdists])
def test_the_build_lock_never_contradicts_the_other(name):
    main = {pin.name: pin.version for pin in read_lock(lock_path(name, "index")).pins}
    build = {pin.name: pin.version for pin in read_lock(lock_path(name, "build")).pins}
    assert {key: main[key] for key in build if key in main} == {
        key: build[key] for key in build if key in main
    }


@pytest.mark.parametrize("python", target.load("cpu").python)
def test_nothing_heavy_or_doubled_is_in_the_default_environment(python):
    pins = read_lock(lock_path("cpu", "index")).for_environment(locking.linux(python))
    assert [name for name in pins if name.startswith(("torch", "nvidia", "triton", "cuda"))] == []
    assert [name for name in pins if name.startswith("opencv")] == ["opencv-python-headless"]
    assert pins["numpy"].version.startswith("1.") and len(pins) > 50


def test_the_index_lock_leaves_out_what_comes_from_torchs_own_index():
    pins = {pin.name for pin in read_lock(lock_path("bevformer-2022", "index")).pins}
    theirs = [pin.name for pin in read_lock(lock_path("bevformer-2022", "torch")).pins]
    assert theirs == ["torch", "torchvision"] and pins.isdisjoint(theirs)


def test_what_torch_asks_for_is_what_the_default_target_says():
    wheel, torch = importlib.metadata.distribution("torch"), target.load("cpu").torch
    if "torch==" + wheel.version != torch.requirement:
        pytest.skip("another torch is installed here: " + wheel.version)
    asked = {Requirement(line).name for line in wheel.requires if "extra ==" not in line}
    assert asked == {Requirement(line).name for line in torch.requires}


def test_the_default_target_takes_the_projects_pythons():
    project = locking.tomllib.loads((envs_dir().parent / "pyproject.toml").read_text())
    allowed = Requirement("python" + project["project"]["requires-python"]).specifier
    expected = [f"3.{minor}" for minor in range(8, 16) if f"3.{minor}.0" in allowed]
    assert sorted(target.load("cpu").python) == expected


def test_an_edited_pin_is_a_finding_and_names_the_way_back(small):
    asked, path = small
    path.write_text(path.read_text().replace("ab" * 32, "ac" * 32))
    (found,) = examine(asked)
    assert found.kind == "edited" and "edited by hand" in found.seen and "git checkout" in found.do


def test_an_edited_lock_is_not_installed_from(small):
    _, path = small
    assert read_lock(path).pins[0].name == "numpy"
    path.write_text(path.read_text().replace("ab" * 32, "ac" * 32))
    with pytest.raises(ConfigError, match="a100.txt was edited by hand") as caught:
        read_lock(path)
    assert caught.value.do.endswith("bevrepro env lock a100")


def test_a_header_that_was_torn_off_is_a_finding(small):
    asked, path = small
    path.write_text(LINE)
    assert [each.kind for each in examine(asked)] == ["edited"]


def test_a_lock_that_is_not_there_is_a_finding(small):
    asked, path = small
    path.unlink()
    (found,) = examine(asked)
    assert found.kind == "missing" and found.do == "bevrepro env lock a100"


@pytest.mark.parametrize(
    "parts, kind, said",
    [
        ({"requirements": ("numpy==1.24.0",)}, "unsatisfied", "a100.txt locks 1.23.5"),
        ({"requirements": ("numpy", "scipy")}, "unsatisfied", "scipy, which a100.txt does not lock"),
        ({"requirements": ("numpy>=1.20",)}, "stale", "was changed after"),
        ({"lock": {"cutoff": "2024-01-01"}, "requirements": ("numpy==1.23.5",)}, "stale", "was changed"),
        ({"lock": {"overrides": ()}, "requirements": ("numpy==1.23.5",)}, "stale", "was changed"),
        ({"python": ("3.9",), "requirements": ("numpy==1.23.5",)}, "stale", "was changed"),
    ],
)
def test_a_changed_target_is_told_by_what_is_not_met(small, parts, kind, said):
    (asked, *_) = asked_of(changed(A100, **parts))
    (found,) = examine(asked)
    assert found.kind == kind and said in found.seen


def test_what_does_not_bear_on_the_lock_does_not_make_it_stale():
    other = changed(A100, title="another", evidence=(), gave_way=(), selftest=(), hardware={"gpus": ("x",)})
    assert [each.digest for each in asked_of(other)] == [each.digest for each in asked_of(A100)]


def test_a_new_hash_of_torchs_wheel_makes_only_its_lock_stale():
    old = target.load("bevformer-2022")
    wheel = dataclasses.replace(old.torch.wheels[0], sha256="0" * 64)
    new = changed(old, torch={"wheels": (wheel, *old.torch.wheels[1:])})
    differ = [a.kind for a, b in zip(asked_of(old), asked_of(new), strict=True) if a.digest != b.digest]
    assert differ == ["torch"] and "0" * 64 in torch_pins(new)


def test_a_lock_of_no_target_is_a_finding(envs):
    (envs / "locks" / "gone.build.txt").write_text("")
    (found,) = locking.orphans(("cpu",))
    assert found.kind == "orphan" and "gone.build.txt" in found.seen


def test_what_is_no_requirement_is_named_with_its_file():
    with pytest.raises(ConfigError, match=r"a100.toml: 'numpy=1' is no requirement"):
        asked_of(changed(A100, requirements=("numpy=1",)))


def test_without_a_checkout_the_projects_own_target_is_refused(envs):
    with pytest.raises(ConfigError, match="no checkout"):
        asked_of(target.load("cpu"))


def test_header_and_body_come_apart_again():
    (asked, *_) = LOCKS
    assert body_of(render(asked, LINE)) == LINE and body_of(LINE) == LINE
    assert parse_lock(render(asked, LINE), asked.path).pins[0].name == "numpy"
