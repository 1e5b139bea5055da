"""The subprocess seam: nothing hangs, nothing is left behind, garbage does not raise."""

import os
import sys
import time
from pathlib import Path

import pytest

from bevrepro.core import proc
from bevrepro.core.errors import MachineError


def gone(pid: int) -> bool:
    """Ended, or a zombie that only waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def wait_until(condition, seconds=5.0):
    end_s = time.monotonic() + seconds
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.02)
    return condition()


def test_run_captures_both_streams_and_the_exit_status():
    done = proc.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.rc, done.stdout, done.stderr, done.ok) == (3, "out\n", "err\n", False)


def test_run_hands_text_to_the_child():
    assert proc.run(["cat"], input_text="two\nlines").stdout == "two\nlines"


def test_run_replaces_the_environment():
    assert (
        proc.run([sys.executable, "-c", "import os; print(os.environ.get('HOME'))"], env={}).stdout
        == "None\n"
    )


def test_bytes_that_are_no_text_do_not_raise():
    assert proc.run(["printf", r"\377\376ok"]).stdout.endswith("ok")


def test_a_hanging_program_is_killed_with_its_children_and_keeps_what_it_said():
    done = proc.run(["sh", "-c", "sleep 60 & echo $!; wait"], timeout_s=0.3)
    assert done.timed_out and not done.ok
    assert wait_until(lambda: gone(int(done.stdout)))


@pytest.mark.parametrize("program", ["/nonexistent/program", "/etc/passwd"])
def test_a_program_that_cannot_start_is_a_sentence(program):
    with pytest.raises(MachineError) as caught:
        proc.run([program])
    assert program in caught.value.seen


def test_stream_gives_lines_as_they_come_then_status_and_stderr():
    with proc.stream(["sh", "-c", "echo a; echo why >&2; echo b; exit 4"]) as lines:
        assert list(lines) == ["a", "b"]
    assert (lines.rc, lines.stderr_tail) == (4, "why")


def test_stream_shows_a_line_before_the_child_ends():
    with proc.stream(["sh", "-c", "echo now; exec sleep 60"]) as lines:
        assert next(iter(lines)) == "now"
        assert lines.rc is None
    assert lines.rc == -2  # SIGINT: the polite way came first


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_in_the_loop_ends_the_whole_group(error):
    with pytest.raises(error), proc.stream(["sh", "-c", "sleep 60 & echo $!; wait"]) as lines:
        for line in lines:
            grandchild = int(line)
            raise error
    assert lines.rc is not None
    assert wait_until(lambda: gone(grandchild))


def test_a_child_that_ignores_ctrl_c_is_ended_all_the_same(monkeypatch):
    monkeypatch.setattr(proc, "GRACE_S", 0.2)
    child = proc._start(["sh", "-c", "trap '' INT; echo ready; while :; do sleep 0.1; done"], None, None, -3)
    assert child.stdout.readline() == "ready\n"
    proc.end_group(child, grace_s=0.2)
    assert child.returncode in (-15, -9)


def test_a_stream_that_was_never_read_leaves_nothing_behind():
    lines = proc.stream(["sleep", "60"])
    lines.close()
    assert lines.rc is not None and gone(lines.pid)


def test_much_stderr_does_not_block_stdout():
    code = "import sys\nfor i in range(20000): print('x' * 50, file=sys.stderr)\nprint('done')"
    with proc.stream([sys.executable, "-c", code]) as lines:
        assert list(lines) == ["done"]
    assert len(lines.stderr_tail.splitlines()) == proc.TAIL_LINES


def test_signals_have_names():
    assert [proc.signal_name(rc) for rc in (-4, -9, 0, 3)] == ["SIGILL", "SIGKILL", None, None]


def test_which_finds_programs_and_says_none_otherwise():
    assert proc.which("sh") and os.access(proc.which("sh"), os.X_OK)
    assert proc.which("no-such-program") is None
