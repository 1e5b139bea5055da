"""`make test-openmmlab`: what cannot be tried is told, and a run in which nothing was tried is no success."""

import os
import sys

import pytest

from bevrepro.core.errors import MachineError
from tests.openmmlab import tier


@pytest.fixture
def ran(monkeypatch):
    """The commands that would be started; `.codes` gives the exit code of a step by its name."""

    class Ran(list):
        codes = {}

    seen = Ran()

    def run(name, command, allowed=(0,), report=None):
        seen.append(name)
        assert (
            (report is not None) == ("tests" in name) == any("--junitxml=" in str(word) for word in command)
        )
        return tier.Done(name, "told", seen.codes.get(name.partition(": ")[2], 0) in allowed, 1.0, 2.0)

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


def test_a_step_is_measured_with_what_it_starts(tmp_path, capfd):
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(10**7))'])"
    done = tier.run("a step", (sys.executable, "-c", child))
    assert done.well and 0.05 < done.cpu_s and done.cpu_s < done.wall_s + 1
    assert not tier.run("a step", (sys.executable, "-c", "raise SystemExit(3)")).well


@pytest.mark.parametrize(
    "minutes, cpu_minutes, targets, possible, words",
    [
        (20, 30, tier.CI, True, []),
        (26, 30, tier.CI, True, ["PASSED THE BOUND of 25"]),
        (26, 30, tier.TARGETS, True, []),
        (50, 60, tier.TARGETS, True, ["PASSED THE BOUND of 45"]),
        (20, 51, tier.CI, False, ["FAILED: 2 idle cores cannot do that in 25"]),
        (100, 91, tier.TARGETS, False, ["PASSED THE BOUND of 45", "FAILED"]),
    ],
)
def test_time_alone_fails_nothing_but_work_that_no_such_machine_does_in_time(
    minutes, cpu_minutes, targets, possible, words
):
    rows = [
        tier.Done("x: build", "ok", True, minutes * 30, cpu_minutes * 60),
        tier.Done("y", "ok", True, minutes * 30),
    ]
    said, fine = tier.judge(rows, targets)
    assert fine == possible and len(said) == 1 + len(words)
    assert f"{minutes}.0 minutes, {cpu_minutes}.0 CPU minutes" in said[0]
    assert all(word in line for word, line in zip(words, said[1:]))


def test_too_much_work_fails_the_run(monkeypatch, ran):
    _no_python(monkeypatch)
    monkeypatch.setattr(tier, "judge", lambda rows, targets: (["FAILED"], False))
    assert tier.main([]) == 1


def test_skipped_tests_are_counted_with_their_reasons(tmp_path):
    (tmp_path / "test_a.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('n', range(3))\n@pytest.mark.skip(reason='set BEVREPRO_BEVFORMER')\n"
        "def test_b(n): pass\n"
        "@pytest.mark.xfail(reason='known')\ndef test_c(): assert False\n"
        "def test_d(): pytest.skip('no GPU')\n"
    )
    report = tmp_path / "report.xml"
    command = (sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider", tmp_path)
    done = tier.run("x: tests inside", (*command, f"--junitxml={report}"), report=report)
    assert done.skipped == {"set BEVREPRO_BEVFORMER": 3, "no GPU": 1}
    lines, _ = tier.summary([done], ("x",))
    assert "    skipped 3: set BEVREPRO_BEVFORMER" in lines and any(
        line.startswith("x: 0.") for line in lines
    )
    assert lines[-1].startswith("3 tests of a patched BEVFormer checkout did not run: BEVREPRO_BEVFORMER")
