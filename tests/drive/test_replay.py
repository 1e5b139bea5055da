"""A recorded run, once more: what is taken from it, and when two logs are the same."""

import json
from pathlib import Path

import pytest

from bevrepro import cli
from bevrepro.core.errors import ConfigError, DataError
from bevrepro.drive import replay as module
from bevrepro.drive.launch import Event
from bevrepro.drive.replay import differing, judge, reach, replay, train_argv


def line(step, loss=3.0, **more):
    return {
        "mode": "train",
        "epoch": 1,
        "iter": step,
        "step": step,
        "lr": 1e-3,
        "loss": loss,
        "time": 0.1,
        **more,
    }


def session(**host):
    words = ["python", "-m", "bevformer", "train", "bevformer_micro", "--data-root", "a", "--data-root", "b",
             "--infos", "i", "--work-dir", "w", "--gpus", "0", "--deterministic", "--resume", "auto",
             "--init-from", "r50.pth", "--cfg-options", "schedule.max_steps=5"]  # fmt: skip
    return {"command": words, "host": {"cpu": "x", "threads": 1, **host}, "versions": {"torch": "2.13"}}


RUN = {
    "config": {"name": "m"},
    "seed": 3,
    "ranks": {"world": 8},
    "infos_digest": "aa",
    "sessions": [session()],
}


def test_the_command_is_taken_over_with_the_records_settings():
    argv = train_argv(RUN, Path("/s"), [], None, None)
    assert argv[:5] == ["/s/config.json", "--data-root", "a", "--data-root", "b"]
    text = " ".join(argv)
    for words in ("--infos i", "--work-dir /s/work", "--seed 3", "--gpus 0", "--emulate-gpus 8",
                  "--deterministic", "--init-from r50.pth", "--no-validate"):  # fmt: skip
        assert words in text
    assert "--resume" not in text and "--cfg-options" not in text  # it starts afresh; config.json holds them


def test_paths_of_this_machine_take_their_place():
    text = " ".join(train_argv(RUN, Path("/s"), ["/here"], Path("/infos"), 1))
    assert "--data-root /here --infos /infos" in text and "--gpus 1" in text and "--data-root a" not in text


@pytest.mark.parametrize("share, word", [(0.9e-9, "within tolerance"), (1.1e-9, "parts")])
def test_in_float64_much_less_is_allowed(share, word):
    other = line(20, 3.0 * (1 + share))
    found = judge([line(20)], [other], ("torch: 2.13 then, 1.10 now",), 20, "fp64")
    assert found.word == word and "1e-09 up to step 20" in found.promise
    assert judge([line(20)], [other], ("torch: 2.13 then, 1.10 now",), 20).word == "within tolerance"


@pytest.mark.parametrize("wanted, step", [(1, 10), (10, 10), (11, 20), (99, 20)])
def test_whole_lines_are_compared(wanted, step):
    assert reach([line(10), line(20)], wanted) == step


@pytest.mark.parametrize(
    "loss, differs, word, step",
    [
        (3.0, (), "equal", None),
        (3.000001, (), "parts", 20),
        (3.000001, ("threads: 1 then, 2 now",), "within tolerance", None),
        (3.2, ("threads: 1 then, 2 now",), "within tolerance", None),
        (3.6, ("threads: 1 then, 2 now",), "parts", 20),
        (float("nan"), ("x",), "parts", 20),
    ],
)
def test_the_promise_depends_on_the_machine(loss, differs, word, step):
    found = judge([line(10), line(20)], [line(10, time=9.9), line(20, loss), line(30)], differs, 20)
    assert (found.word, found.step) == (word, step)
    assert found.first == (11 if step else None) and found.quantity == ("loss" if step else None)


@pytest.mark.parametrize("step, loss, lr, word", [
    (10, 3.02, 1e-3, "within tolerance"), (10, 3.05, 1e-3, "parts"), (50, 3.5, 1e-3, "within tolerance"),
    (50, 3.0, 1.1e-3, "parts"),
])  # fmt: skip
def test_elsewhere_the_tolerance_grows_with_the_steps_and_the_rate_is_exact(step, loss, lr, word):
    assert judge([line(step)], [line(step, loss, lr=lr)], ("cpu: x then, y now",), step).word == word


def test_another_way_to_save_memory_is_a_difference():
    entry = {"what": "fused attention", "effect": "equal up to rounding", "why": "memory"}
    assert differing({**RUN, "ledger": [entry]}, RUN) == ("fused attention: then, not now",)
    assert differing({**RUN, "ledger": [{**entry, "effect": "identical"}]}, RUN) == ()


def test_another_operator_or_lever_is_a_difference_and_its_entry_is_not_told_again():
    then = {**session(), "operators": {"attention": "cpp"}, "levers": {"adamw": "fused"}}
    now = {**then, "operators": {"attention": "reference"}}
    entry = {"what": "by cpp", "effect": "equal up to rounding", "why": "-", "lever": "attention"}
    runs = ({**RUN, "sessions": [then], "ledger": [entry]}, {**RUN, "sessions": [now]})
    assert differing(*runs) == ("attention: cpp then, reference now",)
    assert differing(RUN, runs[1]) == ()  # an older record says neither


def test_what_an_older_record_does_not_say_is_no_difference():
    assert differing(RUN, {**RUN, "sessions": [session(cpu_capability="AVX2")]}) == ()


def test_a_term_that_only_one_has_is_a_difference():
    assert judge([line(10)], [line(10, loss_cls=1.0)], (), 10).quantity == "loss_cls"


def test_nothing_in_common_is_an_error():
    with pytest.raises(DataError, match="no logged step in common"):
        judge([line(50)], [line(10)], (), 10)


def test_what_the_bits_depend_on_is_compared():
    other = {**RUN, "sessions": [session(cpu="y")], "ranks": {"world": 8, "processes": 2}}
    assert differing(RUN, other) == ("cpu: x then, y now", "processes: 1 then, 2 now")
    assert differing(RUN, RUN) == ()


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A work folder, and a train that logs what it is told to."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(RUN))
    (folder / "x.log.json").write_text(json.dumps(line(10)) + '\n{"mode": "tr')
    made = {"loss": 3.0, "run": RUN}

    def train(verb, argv, *, on_event, inside=None):
        work = Path(argv[argv.index("--work-dir") + 1])
        assert json.loads(Path(argv[0]).read_text()) == RUN["config"]
        work.mkdir()
        (work / "run.json").write_text(json.dumps(made["run"]))
        for done in range(40):
            if done == 10:
                (work / "y.log.json").write_text(json.dumps(line(10, made["loss"])))
            event: Event = {"event": "progress", "task": "train", "done": done, "total": 400}
            on_event(event)
        raise AssertionError("it was not stopped")

    monkeypatch.setattr(module, "run_model", train)
    return folder, made


def test_training_is_stopped_after_the_step(recorded, capsys):
    assert replay(recorded[0], 5).word == "equal"
    recorded[1]["loss"] = 2.0
    assert cli.main(["replay", str(recorded[0] / "run.json"), "--steps", "5"]) == 1
    assert "parts at step 10 (the line of steps 1 to 10): loss 3.0 then, 2.0 now" in capsys.readouterr().out


def test_paths_that_are_gone_are_asked_for(recorded, monkeypatch):
    def train(verb, argv, *, on_event, inside=None):
        raise DataError("no such infos file: i")

    monkeypatch.setattr(module, "run_model", train)
    with pytest.raises(DataError, match="no such infos file") as caught:
        replay(recorded[0], 5)
    assert "--data-root and --infos" in caught.value.do


def test_settings_of_another_version_name_the_version(recorded, monkeypatch):
    def train(verb, argv, *, on_event, inside=None):
        raise ConfigError("unknown fields in a stored configuration: ['schedule.quantum']")

    monkeypatch.setattr(module, "run_model", train)
    run = {**RUN, "code": {"commit": "c" * 40}}
    run["sessions"] = [{**session(), "versions": {"bevformer": "9.1"}}]
    (recorded[0] / "run.json").write_text(json.dumps(run))
    with pytest.raises(ConfigError, match="unknown fields") as caught:
        replay(recorded[0], 5)
    assert "bevformer 9.1 at commit cccccccccccc" in caught.value.why and "that version" in caught.value.do


def test_other_data_is_refused(recorded):
    recorded[1]["run"] = {**RUN, "infos_digest": "bb"}
    with pytest.raises(DataError, match="the frames differ"):
        replay(recorded[0], 5)


@pytest.mark.parametrize("content", ["", "{}", '{"config": {}, "sessions": [{"command": ["eval"]}]}', "[1]"])
def test_what_is_no_run_record_is_said_to_be_none(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(DataError, match=r"no run\.json of a training"):
        replay(tmp_path)
