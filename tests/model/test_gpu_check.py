"""gpu-check without a GPU: its order, its clock, what it says of parts that fail or hang."""

import importlib.util
import json
import re
import sys

import pytest

from bevformer import bench, gpu_check, gpu_goals, gpu_parts, gpu_tests
from bevformer.errors import ConfigError, UserError
from bevformer.gpu_parts import Ended, Part
from bevformer.talk import Talk

MACHINE = {
    "time": "2026-11-21T21:00:00+00:00",
    "torch": "2.11.0",
    "gpu": "NVIDIA H200",
    "installed": {"numpy": True, "triton": True, "pytest": True, "cv2": False},
}


def row(case, what, who, seconds, **more):
    return dict(case=case, what=what, who=who, unit="s", median=seconds, **more)


SHOWS = ("triton", "triton deterministic")


def operators(right=True, shows=SHOWS, case="base spatial", **more):
    """Of two contenders that have to be there, and of one that need not."""
    rows = [row(case, "forward", who, 0.001, right=right) for who in shows]
    rows += [
        row(case, "training", "triton", 0.002, right=True),
        row(case, "forward", "mmcv", 0.1, right=False),
    ]
    return dict(more, rows=rows)


class Machine:
    """Runs nothing: each part takes its time on a clock that only it moves, and writes what it is told."""

    def __init__(self, found, takes=(), codes=()):
        self.now_s, self.ran = 0.0, []
        self.found, self.takes, self.codes = dict({"machine": MACHINE}, **found), dict(takes), dict(codes)

    def clock(self):
        return self.now_s

    def run(self, command, limit_s):
        name = command[1]
        self.ran.append(name)
        wanted_s = self.takes.get(name, 10.0)
        self.now_s += min(wanted_s, limit_s)
        if name in self.found:
            with open(command[2], "w") as stream:
                content = self.found[name]
                stream.write(content if isinstance(content, str) else json.dumps(content))
        code = None if wanted_s > limit_s else self.codes.get(name, 0)
        return Ended(code, "line one\nRuntimeError: no kernel image\n")


def part(name, limit_s=100.0, least_s=20.0, **more):
    return Part(name, "what", (name, "{out}"), limit_s, least_s, **more)


PARTS = (
    part("machine", 90, 1),
    part("ops", correctness=True, shows=SHOWS),
    part("step-base"),
    part("tests", needs=("pytest",), correctness=True, writes=False),
    part("loader", needs=("cv2",)),
)


@pytest.fixture
def check(tmp_path):
    """(exit code, the JSON, what was said) of a run on a Machine."""

    def run(machine, seconds=520.0, parts=PARTS, device="cuda"):
        said, out = [], tmp_path / "out.json"
        job = gpu_check.Job(device, seconds, parts, str(tmp_path), str(out))
        code = gpu_check.check(job, machine.run, machine.clock, said.append)
        return code, json.loads(out.read_text()), "\n".join(said)

    return run


def statuses(result):
    return {each["name"]: each["status"] for each in result["parts"]}


def test_all_parts_run_and_the_numbers_agree(check):
    code, result, said = check(Machine({"ops": operators(), "step-base": {"rows": []}}))
    assert (code, result["correct"], result["left_out"]) == (0, True, ["loader"])
    assert statuses(result)["loader"] == "not possible here" and "cv2, which is not installed" in said
    assert "The numbers agree" in said and "wrong, and not ours: base spatial, forward, mmcv" in said
    assert result["machine"]["gpu"] == "NVIDIA H200"


def test_what_time_did_not_allow_is_listed_and_what_is_short_still_runs(check):
    parts = (*PARTS[:4], part("long", least_s=60), part("short", least_s=5))
    machine = Machine({"ops": operators(), "step-base": {"rows": []}, "short": {"rows": []}}, {"ops": 45.0})
    code, result, said = check(machine, 100, parts)
    assert result["left_out"] == ["long"] and code == 0  # 10 + 45 + 10 + 10 are gone
    assert statuses(result)["short"] == "done" and "it needs 60 s, 25 are left" in said
    assert machine.now_s <= 100


def test_a_part_that_hangs_costs_its_own_time_and_its_results_so_far_stay(check):
    machine = Machine(
        {"ops": operators(), "step-base": {"rows": [row("base", "x", "y", 1.0)]}}, {"step-base": 1e9}
    )
    code, result, _ = check(machine)
    entry = result["parts"][2]
    assert entry["status"] == "cut off" and entry["found"]["rows"] and "what it had is kept" in entry["why"]
    assert code == 0 and statuses(result)["tests"] == "done"


@pytest.mark.parametrize(
    "found, codes, takes",
    [
        ({"ops": operators(right=False)}, {}, {}),
        ({"ops": operators(shows=SHOWS[:1])}, {}, {}),
        (
            {"ops": dict(rows=operators()["rows"] + [row("base spatial float16", "forward", "mmcv", 0.1)])},
            {},
            {},
        ),
        ({"ops": operators(absent={"base temporal, triton": "out of memory"})}, {}, {}),
        ({"ops": operators()}, {"ops": -11}, {}),
        ({"ops": operators()}, {"tests": 1}, {}),
        ({"ops": operators()}, {}, {"ops": 1e9}),
        ({}, {}, {}),
        ({"ops": "{"}, {}, {}),
    ],
    ids=[
        "wrong numbers",
        "no deterministic triton",
        "not in one of the cases",
        "failed in one of the cases",
        "crash",
        "a failing test",
        "too slow",
        "nothing written",
        "broken JSON",
    ],
)
def test_numbers_that_were_not_shown_to_be_right_are_exit_code_1(check, found, codes, takes):
    code, result, said = check(Machine(dict({"step-base": {"rows": []}}, **found), takes, codes))
    assert (code, result["correct"]) == (1, False) and "NOT shown to agree" in said
    assert {"step-base", "tests"} <= set(statuses(result))  # the rest has run


def test_correctness_that_had_no_time_is_not_taken_for_granted(check):
    code, result, _ = check(Machine({}), seconds=15)
    assert (code, result["left_out"]) == (1, ["ops", "step-base", "tests", "loader"])


def test_the_last_line_of_a_failed_part_is_told(check):
    _, result, said = check(Machine({"ops": operators()}, codes={"step-base": 1}))
    assert result["failed"] == ["step-base"] and "failed or cut off: step-base" in said
    assert (
        result["parts"][2]["why"] == "exit code 1: RuntimeError: no kernel image"
        and "no kernel image" in said
    )


CUDA_SAYS = """Traceback (most recent call last):
  File "x.py", line 1, in <module>
torch.AcceleratorError: CUDA error: an illegal memory access was encountered
CUDA kernel errors might be asynchronously reported at some other API call.
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""


def test_of_an_error_with_several_lines_the_first_is_told():
    step, tests = PARTS[2], PARTS[3]
    assert "an illegal memory access was encountered" in gpu_check.last_line(Ended(1, CUDA_SAYS), step)
    assert gpu_check.last_line(Ended(6, "seen\ndo\n"), step) == "exit code 6: do"
    words = CUDA_SAYS + "1 failed, 2 passed\n"
    assert gpu_check.last_line(Ended(1, words), tests) == "exit code 1: 1 failed, 2 passed"


@pytest.mark.parametrize(
    "machine, wanted",
    [
        (dict(MACHINE, gpu=None), "sees no GPU"),
        (dict(MACHINE, installed={"numpy": True}), "triton is not installed"),
        (dict(MACHINE, installed={"triton": True}), "numpy is not installed"),
        ("not json", "cannot import torch"),
    ],
)
def test_a_machine_that_lacks_what_everything_needs_is_refused(check, machine, wanted):
    with pytest.raises(UserError, match=wanted):
        check(Machine({"machine": machine}))


def test_triton_is_not_needed_to_try_the_program_on_a_cpu(check):
    cpu = dict(MACHINE, gpu=None, installed={"numpy": True})
    parts = (PARTS[0], part("ops", correctness=True))
    assert check(Machine({"machine": cpu, "ops": operators()}), parts=parts, device="cpu")[0] == 0


def test_parts_are_chosen_by_name_and_unknown_ones_refused():
    assert [each.name for each in gpu_check.choose(PARTS, ["tests"])] == ["machine", "tests"]
    with pytest.raises(ConfigError, match="no such part"):
        gpu_check.choose(PARTS, ["nonsense"])


def test_what_is_wrong_and_what_was_not_compared_is_told(check):
    assert "ops (wrong: base spatial, forward, triton" in check(Machine({"ops": operators(right=False)}))[2]
    said = check(Machine({"ops": operators(shows=SHOWS[:1])}))[2]
    assert "ops (not compared: base spatial, triton deterministic)" in said
    absent = {"mmcv": "no module", "triton": "RuntimeError: Failed to find C compiler."}
    said = check(Machine({"ops": operators(shows=SHOWS[1:], absent=absent)}))[2]
    assert "; since: RuntimeError: Failed to find C compiler.)" in said


GPU_PARTS = {each.name: each for each in gpu_parts.parts_for("cuda", gpu_check.ROOT)}


def test_the_parts_of_a_gpu_come_in_the_order_of_their_worth_and_name_only_files_with_gpu_tests():
    names = list(GPU_PARTS)
    assert names[:5] == ["machine", "warm", "ops", "ops-16", "step-base"]
    assert {"tests", "memory", "loader"} < set(names)
    tests = GPU_PARTS["tests"].command
    assert any(word.endswith("test_full_size.py") for word in tests)
    assert not any(word.endswith("test_bench_common.py") for word in tests)


def test_all_is_over_within_nine_minutes_and_what_compares_numbers_has_its_time_whatever_hangs(check):
    names = list(GPU_PARTS)
    first = [GPU_PARTS[name] for name in names[: names.index("tests") + 1]]
    assert sum(each.limit_s for each in first) <= gpu_check.SECONDS < 540
    shown = [each.name for each in GPU_PARTS.values() if each.correctness]
    assert set(shown) == {"ops", "ops-16", "ops-tiny", "tests"}
    hanging = [part(name, each.limit_s, each.least_s) for name, each in GPU_PARTS.items()]
    machine = Machine({}, dict.fromkeys(names[1:], 1e9))
    _, result, _ = check(machine, parts=hanging)
    assert machine.now_s <= 520 and "tests" not in result["left_out"]


def test_in_both_16_bit_formats_and_fp32_the_deterministic_kernels_are_compared_too():
    for name, dtypes in (("ops", []), ("ops-16", ["--dtype", "bfloat16", "float16"])):
        entry = GPU_PARTS[name]
        assert set(entry.shows) >= {"triton", "triton deterministic"} and entry.correctness
        assert list(entry.command[-3:]) == dtypes or not dtypes


def test_every_part_is_asked_for_in_words_that_its_program_knows(capsys):
    """A mistake here would cost minutes on a machine that is lent."""
    for entry in GPU_PARTS.values():
        words = list(entry.command)
        assert words[0] == "-m" and importlib.util.find_spec(words[1]) is not None
        if words[1] == "bevformer.bench":
            with pytest.raises(SystemExit) as ended:
                bench.main([*words[2:], "--help"], Talk(False))
            known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
            assert ended.value.code == 0 and {word for word in words if word.startswith("--")} <= known


TESTS = """
import pytest
pytestmark = pytest.mark.gpu
@pytest.mark.parametrize("n", [1, 2, 3])
def test_numbers(n):
    assert n != {bad}
def test_left_out():
    pytest.skip("no GPU")
"""


@pytest.mark.parametrize(
    "bad, code, last", [(9, 0, "3 passed, 1 skipped"), (2, 1, "1 failed, 2 passed, 1 skipped")]
)
def test_gpu_tests_run_in_several_processes_and_are_added_up(tmp_path, capfd, monkeypatch, bad, code, last):
    (tmp_path / "test_of_a_gpu.py").write_text(TESTS.format(bad=bad))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu_tests, "cpus", lambda: 2)
    assert gpu_tests.main(["test_of_a_gpu.py"]) == code
    out = capfd.readouterr().out
    assert out.strip().splitlines()[-1] == last and ("assert 2 != 2" in out) is (code == 1)


def test_gpu_tests_that_were_all_left_out_show_nothing(tmp_path, capfd, monkeypatch):
    (tmp_path / "test_of_a_gpu.py").write_text(
        TESTS.format(bad=9).replace("assert", "pytest.skip('no GPU')  #")
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu")
    monkeypatch.chdir(tmp_path)
    assert gpu_tests.main(["test_of_a_gpu.py"]) == 1
    assert capfd.readouterr().out.strip().endswith("4 skipped")
    assert "tests" not in [each.name for each in gpu_parts.parts_for("cpu", gpu_check.ROOT)]


def test_gpu_tests_that_cannot_be_collected_are_no_success(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in ("import nothing_of_that_name", "def test_of_no_gpu(): pass"):
        (tmp_path / "test_it.py").write_text(content)
        assert gpu_tests.main(["test_it.py"]) == 1
    said = capfd.readouterr().out
    assert "nothing_of_that_name" in said and said.strip().endswith("no test marked gpu was collected")


def test_a_child_is_stopped_at_its_limit_and_its_words_are_kept():
    hanging = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"]
    assert gpu_parts.run_part(hanging, 1.0) == Ended(None, "begun\n")
    assert gpu_parts.run_part([sys.executable, "-c", "raise SystemExit(3)"], 20.0).code == 3


def test_products_of_fp32_are_fp32_in_nvidias_containers_too(monkeypatch):
    monkeypatch.setenv("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1")
    asking = "import os; print(os.environ.get('TORCH_ALLOW_TF32_CUBLAS_OVERRIDE'))"
    assert gpu_parts.run_part([sys.executable, "-c", asking], 20.0).tail == "None\n"


def test_the_file_is_named_after_gpu_and_day(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path))
    assert gpu_check.default_out(MACHINE) == str(tmp_path / "nvidia-h200-2026-11-21.json")
    monkeypatch.setenv("OUT", str(tmp_path / "none"))
    assert gpu_check.default_out(dict(MACHINE, gpu=None)).endswith("benchmarks/gpu/cpu-2026-11-21.json")


def goal(found, what):
    return next(each for each in found if each["what"] == what)


def test_goals_are_judged_from_the_rows():
    rows = [
        row("base spatial", "forward", "triton", 1e-3),
        row("base spatial", "forward", "grid_sample", 9e-3),
        row("base", gpu_goals.STEP, "plain", 3.0),
        row("base", gpu_goals.STEP, "fast", 1.2, peak_gb=9.0),
        row("base", gpu_goals.STEP, "lean", 1.4, peak_gb=7.0),
        row("tiny", gpu_goals.INFER, "fast", 0.008),
    ]
    found = gpu_goals.goals([{"rows": rows[:2]}, {"rows": rows[2:]}])
    assert goal(found, "base spatial, forward, times grid_sample")["met"] is True
    assert goal(found, "base spatial, forward, times mmcv")["met"] is None
    step = goal(found, "base training step, times a plain fp32 one")
    assert (round(step["measured"], 2), step["met"]) == (2.5, False)
    assert goal(found, "base training step, peak in GB (bf16)")["met"] is True
    assert goal(found, "tiny frames per second")["measured"] == pytest.approx(125)
    text = "\n".join(gpu_goals.goal_lines(found))
    assert "not measured" in text and ">= 8" in text and "<= 7.5" in text and "NO" in text


def test_grid_sample_is_no_goal_where_mmcvs_kernel_is_there():
    rows = [row("base spatial", "forward", who, 1e-3) for who in ("triton", "grid_sample", "mmcv")]
    found = gpu_goals.goals([{"rows": rows}])
    assert goal(found, "base spatial, forward, times grid_sample")["goal"] is None
    assert goal(found, "base spatial, forward, times mmcv")["met"] is False


def test_help_and_list_need_no_torch(capsys):
    assert gpu_check.main(["--list"]) == 0
    assert "ops-16" in capsys.readouterr().out
    assert gpu_check.main(["--only", "nonsense"]) == 6


BARE = """
import sys
from importlib.machinery import PathFinder

class Hide(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.split(".")[0] in ("scipy", "cv2", "matplotlib", "PIL", "nuscenes", "typer", "rich")
        return None if hidden else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Hide if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.mark.slow
def test_on_a_cpu_the_real_parts_run_with_little_more_than_torch_and_numpy(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(BARE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    out = tmp_path / "cpu.json"
    words = ["--only", "ops", "step-micro", "loader", "--seconds", "400", "--out", str(out)]
    assert gpu_check.main(["--device", "cpu", *words]) == 0
    _, ops, step, loader = json.loads(out.read_text())["parts"]
    assert {row["who"] for row in ops["found"]["rows"]} >= {"grid_sample", "reference"}
    assert {row["assignment"] for row in step["found"]["rows"]} == {"fixed"}  # scipy is not there
    assert loader["status"] == "not possible here" and "cv2" in loader["why"]
