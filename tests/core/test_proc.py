"""The subprocess seam: nothing hangs, nothing is left behind, garbage does not raise."""

import io
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from bevrepro.core import capture, proc
from bevrepro.core.errors import ChildError, MachineError


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


def test_a_child_that_was_started_deaf_to_ctrl_c_is_asked_by_sigterm_at_once(monkeypatch):
    sent, send = [], proc._signal_group
    monkeypatch.setattr(proc, "_signal_group", lambda child, no: sent.append(no) or send(child, no))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a script's background has it
    try:
        with proc.stream(["sleep", "60"]) as lines:
            pass
    finally:
        signal.signal(signal.SIGINT, before)
    assert lines.rc == -signal.SIGTERM and sent[0] == signal.SIGTERM


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


def test_a_child_that_prints_for_ever_keeps_both_ends_and_says_what_lies_between(monkeypatch):
    monkeypatch.setattr(capture, "END_B", 1000)
    code = "import sys\nfor i in range(99999): print(i)\nprint('why', file=sys.stderr)"
    done = proc.run([sys.executable, "-c", code])
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1], done.stderr, done.ok) == ("0", "99998", "why\n", True)
    assert len(done.stdout) < 2100 and done.left_out_b == len("".join(f"{i}\n" for i in range(99999))) - 2000
    assert f"[... {done.left_out_b // 1024} KiB left out ...]" in lines


def test_a_child_without_end_is_stopped_by_the_clock_with_its_ends_kept(monkeypatch):
    monkeypatch.setattr(capture, "END_B", 1000)
    done = proc.run(["sh", "-c", "echo first; exec yes"], timeout_s=0.3)
    assert done.timed_out and done.stdout.startswith("first\ny\n") and len(done.stdout) < 2100


def test_what_is_wanted_whole_is_whole_or_a_sentence():
    assert proc.run(["printf", "%01000d", "0"], whole_b=1000).stdout == "0" * 1000
    with pytest.raises(ChildError) as caught:
        proc.run(["yes"], whole_b=2048)
    assert "yes printed more than 2.0 KiB" in caught.value.seen


@pytest.mark.parametrize("reads", ["cat", "true", "head -c 9"])
def test_much_input_goes_to_a_child_that_reads_all_some_or_none_of_it(reads):
    text = "0123456789" * 50_000
    done = proc.run(["sh", "-c", reads], input_text=text)
    assert done.ok and done.stdout == {"cat": text, "true": "", "head -c 9": "012345678"}[reads]


def test_newlines_of_any_kind_become_one():
    assert proc.run(["printf", r"a\r\nb\rc"]).stdout == "a\nb\nc"


def test_a_line_without_end_is_cut_and_those_after_it_are_whole(monkeypatch):
    monkeypatch.setattr(proc, "TAIL_LINE_CHARS", 10)
    with proc.stream(["sh", "-c", "printf '%025d\\nend\\n' 7 >&2; echo ok"]) as lines:
        assert list(lines) == ["ok"]
    assert lines.stderr_tail == "0000000000 [... 15 characters left out]\nend"


@pytest.mark.parametrize("said", ["a" * 10, "a" * 10 + "\n", "a" * 9 + "\n"])
def test_a_line_of_just_the_bound_is_whole(said):
    assert list(capture.lines(io.StringIO(said), 10)) == [said.rstrip()]
