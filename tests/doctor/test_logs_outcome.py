"""What a log only quotes, what was overcome, and what is beside the point."""

import io

import pytest

from bevrepro.doctor.logs.failures import known_failures
from bevrepro.doctor.logs.rank import rank
from bevrepro.doctor.logs.scan import scan

OOM = "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 11.91 GiB total capacity)"
START = "2023-01-02 10:00:00,000 - mmdet - INFO - Start running, host: u@h, work_dir: /w\n"
STEPS = "".join(
    f"2023-01-02 10:0{n}:00 - mmdet - INFO - Epoch [2][{n}50/3517]\tlr: 1.9e-04, eta: 2:03:04, loss: 9.1{n}\n"
    for n in range(1, 6)
)


def found(text):
    return [each.hit.failure.id for each in rank(scan(io.BytesIO(text.encode()), known_failures()))]


def test_a_crash_before_a_training_that_still_runs_is_past():
    assert found(OOM + "\n" + START + STEPS) == []


@pytest.mark.parametrize(
    "text",
    [
        START + STEPS + OOM + "\n",  # after it
        OOM + "\n" + STEPS,  # another job's steps
        OOM + "\n" + START + STEPS[: STEPS.index("[2][250")],  # hardly started
        OOM + "\n" + START + STEPS + "Killed\n",  # and it broke again
    ],
)
def test_a_crash_that_no_training_got_over_is_told(text):
    assert "GPU-OOM" in found(text)


EVALUATED = "user@host:~$ # a smaller batch now\nSaving metrics\nmAP: 0.2519\nNDS: 0.3545\n"
TESTS = "============== test session starts ==============\ncollected 2 items\n"


def test_a_crash_before_a_result_is_past():
    assert found(OOM + "\n" + EVALUATED) == []


@pytest.mark.parametrize("after", ["mAP: 0.0000\n", EVALUATED + "Killed\n", "Saving metrics\n"])
def test_no_result_or_trouble_after_it_leaves_the_crash(after):
    assert "GPU-OOM" in found(OOM + "\n" + after)


def test_what_passed_tests_print_is_no_failure():
    assert found(f"{TESTS}{OOM}\n======== 2 passed, 1 warning in 9.11s ========\n") == []
    assert found(f"{TESTS}{OOM}\n======== 1 failed, 1 passed in 9.11s ========\n") == ["GPU-OOM"]
    assert found(f"{OOM}\n{TESTS}======== 2 passed in 9.11s ========\n") == ["GPU-OOM"]


@pytest.mark.parametrize(
    "quote",
    [
        f"# {OOM}",
        f"lr = 2e-4  # else {OOM}",
        f"docs/faq.md:30:- {OOM}",
        f"12e0f1b fix {OOM}",
        f"tests/test_a.py::test_b[cuda] XFAIL ({OOM})",
    ],
)
def test_a_quoted_failure_is_none(quote):
    assert found(quote + "\n") == []


@pytest.mark.parametrize(
    "line",
    [f"#12 34.56 {OOM}", f"root@box:~# {OOM}", f"tests/test_a.py::test_b FAILED {OOM}", f"12345678 {OOM}"],
)
def test_what_looks_like_a_quote_and_is_none_is_told(line):
    assert found(line + "\n") == ["GPU-OOM"]


def test_a_hint_is_kept_out_of_the_log_of_a_run_that_broke():
    hint = "Set random seed to None\n"
    assert found(hint) == ["SILENT-SEED"] and found(hint + OOM + "\n") == ["GPU-OOM"]


def test_device_side_asserts_of_a_kernel_are_told():
    line = "ScatterGatherKernel.cu:144: block: [311,0,0], thread: [96,0,0] Assertion `idx < size` failed.\n"
    assert found(line * 3) == ["GPU-ILLEGAL"]
