"""The steps of a reproduction: their order, what is done already, where it stops. No model runs here."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from bevrepro import cli
from bevrepro.core.errors import CheckpointError, ConfigError, DataError, UserError
from bevrepro.core.machine import Machine
from bevrepro.doctor.record import save
from bevrepro.drive import evidence
from bevrepro.drive import reproduce as module
from bevrepro.drive.recipes import EVAL, TRAIN, recipe
from bevrepro.drive.reproduce import Wish, commands_of, run_reproduction
from bevrepro.probe.infos import Infos
from bevrepro.probe.nuscenes import TABLES

MICRO, TINY = recipe("micro_synth"), recipe("bevformer_tiny")


class Silent:
    def step(self, number, total, step): ...

    def say(self, text): ...


class Commands:
    """Stands for the real command line: notes what was asked, leaves what `eval` and `train` leave."""

    def __init__(self, work, numbers=(0.08, 0.22)):
        self.work, self.numbers, self.asked, self.codes = work, numbers, [], {}

    def __call__(self, argv):
        self.asked.append(argv[0] if argv[0] != "data" else f"data {argv[1]}")
        code = self.codes.get(self.asked[-1], 0)
        if isinstance(code, Exception):
            raise code
        if argv[:2] == ["doctor", "--record"]:
            save(Machine(), Path(argv[2]))
        if argv[:2] == ["data", "synth"]:
            self.leave_tables()
        if argv[0] == "train" and not code:
            self.leave_run()
        if argv[0] == "eval" and not code:
            self.leave_eval(Path(argv[argv.index("--out") + 1]))
        return code

    def leave_tables(self):
        folder = self.work / "data" / "nuscenes" / "v1.0-mini"
        folder.mkdir(parents=True, exist_ok=True)
        for name in TABLES:
            (folder / f"{name}.json").write_text("[]")

    def leave_run(self, **changes):
        config = {"schedule": {"lr": 1e-3, "max_steps": 400}, "data": {"queue_length": 2}}
        run = {"config_name": "bevformer_micro", "config": config, "effective_batch": 1, "frames": 40,
               "status": "finished", "ledger": []}  # fmt: skip
        (self.work / "run").mkdir(parents=True, exist_ok=True)
        (self.work / "run" / "run.json").write_text(json.dumps({**run, **changes}))

    def leave_eval(self, out):
        folder = out / "metrics" / "labelled"
        folder.mkdir(parents=True, exist_ok=True)
        summary = {"mean_ap": self.numbers[0], "nd_score": self.numbers[1], "tp_errors": {}}
        (folder / "metrics_summary.json").write_text(json.dumps(summary))
        score = {"mAP": self.numbers[0], "NDS": self.numbers[1], "num_samples": 40, "world_size": 1}
        (out / "eval.json").write_text(json.dumps({"labelled": score}))


@pytest.fixture
def wish(tmp_path):
    return Wish(MICRO, TRAIN, tmp_path / "work", gpus=0)


@pytest.fixture
def commands(wish):
    return Commands(wish.work_dir)


def run(wish, commands):
    return run_reproduction(wish, commands, Silent())


def test_all_of_it_ends_with_a_pass_and_a_page(wish, commands):
    verdict = run(wish, commands)
    assert commands.asked == ["doctor", "doctor", "data synth", "data prepare", "train", "eval"]
    assert verdict.word == "pass" and json.loads((wish.work_dir / "verdict.json").read_text())["passed"]
    assert "<h2>Verdict</h2>" in (wish.work_dir / "report.html").read_text()


def test_what_is_done_is_not_done_again(wish, commands):
    commands.codes["eval"] = 9
    with pytest.raises(UserError, match="exit code 9") as caught:
        run(wish, commands)
    assert caught.value.exit_code == 9
    commands.codes, commands.asked = {}, []
    assert run(wish, commands).passed and commands.asked[-1:] == ["eval"] and "train" not in commands.asked
    commands.asked = []
    assert run(wish, commands).passed and commands.asked == []


@pytest.mark.parametrize("start, asked", [("eval", ["eval"]), ("train", ["train", "eval"]), ("compare", [])])
def test_it_begins_again_at_a_step(wish, commands, start, asked):
    run(wish, commands)
    commands.asked = []
    run(replace(wish, start=start), commands)
    assert commands.asked == asked


def test_findings_of_the_doctor_do_not_stop_it(wish, commands):
    commands.codes["doctor"] = 1
    assert run(wish, commands).passed


def test_a_result_outside_names_what_the_record_says(wish, commands):
    commands.numbers = (0.0001, 0.01)
    run(wish, commands)
    commands.leave_run(effective_batch=4)
    verdict = run(replace(wish, start="compare"), commands)
    assert verdict.word == "below" and verdict.causes[0].name == "batch and learning rate"


def test_data_that_cannot_give_the_result_stops_it_before_training(wish, commands, monkeypatch):
    known = evidence.gather

    def half(*words):
        return replace(known(*words), infos={"train": Infos("t", frames=40), "val": Infos("v", frames=20)})

    monkeypatch.setattr(evidence, "gather", half)
    verdict = run(wish, commands)
    assert verdict.word == "not reached" and "train" not in commands.asked
    assert [cause.name for cause in verdict.causes] == ["incomplete data"]
    assert run(replace(wish, anyway=True), commands).word == "not comparable" and "train" in commands.asked


def test_a_checkpoint_that_does_not_load_becomes_the_verdict(wish, commands, tmp_path):
    (tmp_path / "c.pth").write_bytes(b"x")
    commands.codes["eval"] = CheckpointError("c.pth lacks 138 keys")
    commands.leave_eval(wish.work_dir / "eval")  # of another checkpoint: not to be judged
    verdict = run(replace(wish, checkpoint=tmp_path / "c.pth"), commands)
    assert verdict.word == "not reached"
    (cause,) = verdict.causes  # by the doctor's name for such a file, in the loader's words
    assert (cause.name, cause.seen) == ("a broken checkpoint", "c.pth lacks 138 keys")
    assert not verdict.passed and verdict.next and "train" not in commands.asked


@pytest.mark.parametrize("step", ["data prepare", "train", "eval"])
def test_data_that_stops_a_step_becomes_the_verdict(wish, commands, step):
    commands.codes[step] = DataError("no samples/CAM_BACK/a.jpg in the data")
    verdict = run(wish, commands)
    assert verdict.word == "not reached" and "could not go on" in verdict.sentence
    assert [(each.name, each.seen) for each in verdict.causes] == [
        ("data that cannot be used", "no samples/CAM_BACK/a.jpg in the data")
    ]
    assert verdict.next == f"bevrepro data verify {wish.roots[0]} --fast"
    commands.codes = {}
    assert run(wish, commands).passed  # the same command goes on


def test_other_errors_stay_errors(wish, commands):
    commands.codes["data synth"] = ConfigError("there is something at the place already")
    with pytest.raises(ConfigError):
        run(wish, commands)
    commands.codes = {"train": CheckpointError("latest.pth is of another run")}
    with pytest.raises(CheckpointError):
        run(wish, commands)


def test_infos_are_prepared_again_from_data_on(wish, commands):
    run(wish, commands)
    wish.infos_dir.mkdir()
    (wish.infos_dir / "nuscenes_infos_temporal_train.bev").touch()
    commands.asked = []
    run(replace(wish, start="train"), commands)
    assert "data prepare" not in commands.asked
    run(replace(wish, start="data"), commands)
    assert commands.asked.count("data prepare") == 1


@pytest.mark.parametrize("content", ['{"recipe": ', "[]", "\x00"])
def test_a_broken_note_of_what_is_done_is_a_sentence(wish, commands, content):
    wish.work_dir.mkdir()
    (wish.work_dir / "reproduce.json").write_text(content)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        run(wish, commands)
    assert f"rm {wish.work_dir}" in caught.value.do


def test_the_next_command_has_this_reproductions_paths(tmp_path):
    wish = Wish(TINY, EVAL, tmp_path / "w", (tmp_path / "a b", tmp_path / "c.tgz"), tmp_path / "i")
    filled = module._filled(wish, "bevrepro eval CONFIG FILE --data-root DATA --infos INFOS")
    words = shlex.split(filled)
    assert words[2:4] == ["bevformer_tiny", str(tmp_path / "w/ckpts/bevformer_tiny_epoch_24.pth")]
    assert words[4:] == ["--data-root", str(tmp_path / "a b"), "--data-root", str(tmp_path / "c.tgz"),
                         "--infos", str(tmp_path / "i")]  # fmt: skip
    assert module._filled(wish, "bevrepro data verify DATA").endswith(f"'{tmp_path}/a b' {tmp_path}/c.tgz")


def test_another_checkpoint_is_evaluated_anew_and_another_seed_is_another_folder(wish, commands, tmp_path):
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(b"x")
    evals = []
    for name in ("a.pth", "a.pth", "b.pth"):
        run(replace(wish, checkpoint=tmp_path / name), commands)
        evals.append(commands.asked.count("eval"))
    assert evals == [1, 1, 2]
    with pytest.raises(ConfigError, match="with seed 0, not 1"):
        run(replace(wish, seed=1), commands)


def test_what_the_commands_print_is_no_part_of_the_verdict(tmp_path, monkeypatch, capsys):
    commands = Commands(tmp_path / "w")

    def spoken(argv):
        print("talk")
        return commands(argv)

    monkeypatch.setattr("bevrepro.cli.demo._invoke", spoken)
    words = ["reproduce", "micro_synth", "--work-dir", str(tmp_path / "w"), "--gpus", "0", "--json"]
    assert cli.main(words) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["passed"] and "talk" in printed.err


def test_a_folder_holds_one_reproduction(wish, commands, tmp_path):
    run(wish, commands)
    other = Wish(TINY, EVAL, wish.work_dir, (tmp_path,))
    with pytest.raises(ConfigError, match="holds a reproduction of micro_synth"):
        run(other, commands)


def test_published_weights_are_fetched_and_a_training_starts_from_its_own(tmp_path):
    asked = [step.argv for _, step in commands_of(Wish(TINY, EVAL, tmp_path, (tmp_path,)))]
    assert ("weights", "get", "bevformer_tiny") in [argv[:3] for argv in asked] and asked[-1][0] == "eval"
    asked = [step.argv for _, step in commands_of(Wish(TINY, TRAIN, tmp_path, (tmp_path,)))]
    train = next(argv for argv in asked if argv[0] == "train")
    assert train[train.index("--init-from") + 1].endswith("resnet50-0676ba61.pth")


@pytest.mark.parametrize("words, code", [
    (["reproduce", "nothing"], 6), (["reproduce"], 2), (["reproduce", "bevformer_tiny"], 6),
    (["reproduce", "micro_synth", "--kind", "eval"], 6), (["reproduce", "micro_synth", "--from", "x"], 6),
    (["reproduce", "micro_synth", "--checkpoint", "none.pth"], 7), (["reproduce", "--list"], 0),
])  # fmt: skip
def test_wrong_words_are_sentences(words, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*words, "--dry-run"]) == code
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_prints_what_can_be_pasted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["reproduce", "micro_synth", "--dry-run", "--gpus", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "doctor",
        "env",
        "data",
        "data",
        "train",
        "eval",
        "compare",
    ]
    assert all(line.split()[1] == "bevrepro" for line in lines) and list(tmp_path.iterdir()) == []
