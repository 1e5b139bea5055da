"""How a child of the model plane ends, and what becomes of it here."""

import os
import signal

import pytest

from bevrepro.core.errors import ChildError, DataError, MachineError, UserError
from bevrepro.drive import launch
from bevrepro.drive.processes import ALONE, Processes

HEAD = "import json, os, signal, sys, time\ndef emit(**e): print(json.dumps(e), flush=True)\n"


@pytest.fixture
def verb(monkeypatch, tmp_path):
    """Run a few lines of Python in place of the model plane."""

    def play(code, on_event=None, processes=ALONE):
        script = tmp_path / "child.py"
        script.write_text(HEAD + code)
        monkeypatch.setattr(launch, "model_argv", lambda *a, **k: [launch.target_python(), str(script)])
        return launch.run_model("train", [], on_event=on_event, processes=processes)

    return play


def test_result_is_returned_and_the_rest_goes_to_on_event(verb):
    seen = []
    result = verb(
        "emit(event='note', text='hi'); print('Loading tables')\n"
        "emit(event='progress', task='t', done=1, total=2)\n"
        "emit(event='result', steps=2)",
        seen.append,
    )
    assert result["steps"] == 2
    assert [event["event"] for event in seen] == ["note", "text", "progress"]


def test_reported_error_keeps_its_class_code_and_sentences(verb):
    with pytest.raises(DataError) as caught:
        verb("emit(event='error', exit_code=4, seen='no such file: a', why='w', do='d'); sys.exit(4)")
    assert (caught.value.seen, caught.value.why, caught.value.do) == ("no such file: a", "w", "d")


def test_unknown_exit_code_of_an_error_is_kept(verb):
    with pytest.raises(UserError) as caught:
        verb("emit(event='error', exit_code=1, seen='diverged'); sys.exit(1)")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("name, hint", [("SIGILL", "AVX"), ("SIGKILL", "memory"), ("SIGSEGV", "doctor")])
def test_signal_is_named_with_a_hint(verb, name, hint):
    with pytest.raises(ChildError) as caught:
        verb(f"os.kill(os.getpid(), signal.{name})")
    assert name in caught.value.seen and hint in caught.value.why


TORCHRUN_SAYS = "  rank      : 1 (local_rank: 1)\\n  exitcode  : -9 (pid: 15909)\\n====="


@pytest.mark.parametrize("said", ["", "emit(event='error', exit_code=9, seen='process 0 lost the others'); "])
def test_of_several_processes_the_one_that_was_killed_is_named(verb, said):
    with pytest.raises(ChildError) as caught:
        verb(said + f"print('{TORCHRUN_SAYS}', file=sys.stderr); sys.exit(1)")
    assert "lost" in caught.value.seen and "Process 1 was ended by SIGKILL" in caught.value.why


def test_traceback_becomes_its_last_line(verb):
    with pytest.raises(ChildError) as caught:
        verb("raise ValueError('bad shape')")
    assert "ValueError: bad shape" in caught.value.seen and "--debug" in caught.value.do


def test_missing_package_is_a_machine_error(verb):
    with pytest.raises(MachineError) as caught:
        verb("import no_such_torch")
    assert "no_such_torch" in caught.value.seen


def test_mistake_in_our_own_imports_is_not_blamed_on_the_machine(verb):
    with pytest.raises(ChildError, match="cannot import name"):
        verb("from bevformer import no_such_thing")


def test_wrong_usage_is_exit_code_two(verb):
    with pytest.raises(UserError) as caught:
        verb("import argparse; argparse.ArgumentParser().parse_args(['--nope'])")
    assert caught.value.exit_code == 2 and "--nope" in caught.value.seen


def test_success_without_a_result_is_an_error(verb):
    with pytest.raises(ChildError, match="without a result"):
        verb("pass")


def test_a_machine_without_the_first_process_has_no_result_to_tell(verb):
    assert verb("pass", processes=Processes(1, 2, "node0:29500"))["elsewhere"]
    with pytest.raises(DataError):
        code = "emit(event='error', exit_code=4, seen='no data here'); sys.exit(4)"
        verb(code, processes=Processes(1, 2, "node0:29500"))


def press_ctrl_c(event):
    if event.get("text") == "go":
        os.kill(os.getpid(), signal.SIGINT)


def test_first_ctrl_c_lets_the_child_save_and_speak(verb):
    code = (
        "try:\n    emit(event='note', text='go'); time.sleep(20)\n"
        "except KeyboardInterrupt:\n"
        "    emit(event='error', exit_code=130, seen='Stopped at step 7.', do='Resume'); sys.exit(130)"
    )
    with pytest.raises(launch.Interrupted) as caught:
        verb(code, press_ctrl_c)
    assert caught.value.seen == "Stopped at step 7." and caught.value.exit_code == 130


SAVES = (
    "def stop(number, frame):\n"
    "    time.sleep(0.3); emit(event='error', exit_code=143, seen='Stopped at step 7.'); sys.exit(143)\n"
    "signal.signal(signal.SIGTERM, stop); emit(event='note', text='go'); time.sleep(20)"
)


@pytest.mark.parametrize(
    "numbers", [(signal.SIGHUP,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGHUP)]
)
def test_a_closed_terminal_and_a_cluster_that_asks_twice_let_the_child_save(verb, numbers):
    told = []

    def ask(event):
        told.append(event)
        for number in numbers:
            os.kill(os.getpid(), number)

    with pytest.raises(launch.Interrupted, match="Stopped at step 7"):
        verb(SAVES, ask)
    assert [event["text"] for event in told if event["text"] == "go"] == ["go"]
    assert signal.getsignal(signal.SIGHUP) != signal.SIG_IGN


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_is_ignored_from_the_start_stays_so_in_the_child_as_well(verb, number):
    """nohup ignores SIGHUP for what it starts, a script SIGINT for what it starts with `&`."""
    told = []

    def press(event):
        told.append(event["text"])
        os.kill(os.getpid(), number)

    code = f"ignored = signal.getsignal({number}) == signal.SIG_IGN\nemit(event='note', text='go')\n"
    before = signal.signal(number, signal.SIG_IGN)
    try:
        result = verb(code + "emit(event='result', ignored=ignored)", press)
        assert result["ignored"] and signal.getsignal(number) == signal.SIG_IGN and told == ["go"]
    finally:
        signal.signal(number, before)


def test_ctrl_c_on_a_silent_child_is_a_keyboard_interrupt(verb):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        verb("emit(event='note', text='go'); time.sleep(20)", press_ctrl_c)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    "last", ["KeyboardInterrupt", "ImportError: you should not\\nimport numpy from there."]
)
def test_ctrl_c_while_the_child_still_imports_is_a_keyboard_interrupt(verb, last):
    """An import that is interrupted can end with exit code 1 and a traceback."""
    dies = f"\ntry: time.sleep(20)\nexcept KeyboardInterrupt: sys.exit('Traceback\\n{last}')"
    with pytest.raises(KeyboardInterrupt):
        verb("emit(event='note', text='go')" + dies, press_ctrl_c)


def test_child_finds_the_shipped_model_plane_first(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    env = launch.model_env()
    first, rest = env["PYTHONPATH"].split(os.pathsep)
    assert os.path.isdir(os.path.join(first, "bevformer")) and rest == "/elsewhere"
    assert env["BEVREPRO_EVENTS"] == "1"


def test_idle_threads_spin_briefly_unless_the_user_says_otherwise(monkeypatch):
    for name in launch.WAITING:
        monkeypatch.delenv(name, raising=False)
    assert launch.model_env()["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert "GOMP_SPINCOUNT" not in launch.model_env()
