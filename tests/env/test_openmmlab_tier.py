"""`make test-openmmlab`: what cannot be tried is told, and a run in which nothing was tried is no success."""

import pytest

from bevrepro.core.errors import MachineError
from tests.openmmlab import tier


@pytest.fixture
def ran(monkeypatch):
    """The commands that would be started; `.codes` gives the exit code of a step by its name."""

    class Ran(list):
        codes = {}

    seen = Ran()

    def run(name, command, allowed=(0,)):
        seen.append(name)
        return name, seen.codes.get(name.partition(": ")[2], 0) in allowed

    monkeypatch.setattr(tier, "run", run)
    monkeypatch.setenv("BEVREPRO_DATA", "/nowhere")
    return seen


def _no_python(monkeypatch, *missing):
    def find(versions):
        if set(versions) & set(missing):
            raise MachineError(f"no usable Python {versions[0]} was found on this machine")

    monkeypatch.setattr(tier.interpreter, "find_python", find)


def test_both_targets_are_built_verified_and_tested_from_inside_and_outside(monkeypatch, ran):
    _no_python(monkeypatch)
    assert tier.main([]) == 0
    each = ["build", "verify", "self-test", "tests inside"]
    expected = [f"{target}: {step}" for target in tier.TARGETS for step in each]
    assert ran == [*expected, "tests from outside, --target"]


def test_a_half_without_its_python_is_skipped_with_the_reason(monkeypatch, ran, capsys):
    _no_python(monkeypatch, "3.8")
    assert tier.main([]) == 0
    assert not any(name.startswith("cpu-openmmlab:") for name in ran)
    assert "skipped: no usable Python 3.8" in capsys.readouterr().out


def test_nothing_tried_is_no_success(monkeypatch, ran):
    _no_python(monkeypatch, "3.8", "3.11")
    assert tier.main([]) == 1 and ran == []


@pytest.mark.parametrize("step, then", [("build", 0), ("verify", 3), ("tests inside", 1)])
def test_a_step_that_fails_fails_the_run_and_only_a_build_ends_it(monkeypatch, ran, step, then):
    _no_python(monkeypatch)
    ran.codes = {step: 1}
    assert tier.main(["--target", "cpu-openmmlab"]) == 1
    after = ran[ran.index(f"cpu-openmmlab: {step}") + 1 :]
    assert len(after) == then
