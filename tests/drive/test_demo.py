"""The demo's order, what it leaves after a stop, and that its mount never outlives it."""

import json
from types import SimpleNamespace

import pytest

from bevrepro.core.errors import ConfigError, UserError
from bevrepro.data import status
from bevrepro.drive import demo as demo_module
from bevrepro.drive.demo import RECIPE_STEPS, Demo, run_demo, steps_of
from bevrepro.drive.launch import Interrupted
from bevrepro.drive.steps import Step


class Voice:
    def __init__(self):
        self.steps, self.said = [], []

    def step(self, number, total, step):
        self.steps.append((number, total, step.argv[0]))

    def say(self, text):
        self.said.append(text)


class Commands:
    """Plays the commands: writes the files they would, and `stop` happens at the command named."""

    def __init__(self, demo, mounts, at=None, stop=None):
        self.demo, self.mounts, self.at, self.stop, self.ran = demo, mounts, at, stop, []

    def __call__(self, argv):
        name = " ".join(argv[:2]) if argv[0] == "data" else argv[0]
        self.ran.append(name)
        if name == "data mount":
            self.mounts.append(SimpleNamespace(mountpoint=str(self.demo.mountpoint.resolve())))
        if name == "data umount":
            self.mounts.clear()
        if name == self.at:
            if isinstance(self.stop, int):
                return self.stop
            raise self.stop
        self._write(name, argv)
        return 0

    def _write(self, name, argv):
        out = self.demo.out
        if name == "data synth":
            (out / "data").mkdir()
            (out / "data" / "synth.json").write_text("{}")
        if name == "train":
            (self.demo.work_dir / "run.json").write_text('{"seconds_per_step": 0.12}')
        if name == "eval":
            folder = out.__class__(argv[argv.index("--out") + 1])
            folder.mkdir(parents=True, exist_ok=True)
            subsets = [argv[i + 1] for i, word in enumerate(argv) if word == "--subset"] or ["all"]
            (folder / "eval.json").write_text(json.dumps({subset: {"mAP": 0.5} for subset in subsets}))
            results = {f"token{i}": [] for i in range(80)}
            (folder / "results_nusc.json").write_text(json.dumps({"results": results}))


@pytest.fixture
def mounts(monkeypatch):
    held = []
    monkeypatch.setattr(status, "status", lambda: list(held))
    return held


@pytest.fixture
def demo(tmp_path):
    return Demo(tmp_path / "demo", steps=20, seed=1)


def test_commands_run_in_the_order_of_the_readme(demo, mounts):
    commands, voice = Commands(demo, mounts), Voice()
    summary = run_demo(demo, commands, voice)
    assert commands.ran == [
        "doctor", "data synth", "data mount", "data prepare", "train",
        "eval", "eval", "eval", "viz", "viz", "viz", "report", "data umount",
    ]  # fmt: skip
    assert voice.steps[0][:2] == (1, 12) and voice.steps[-1][:2] == (12, 12)
    assert (summary.before, summary.labelled, summary.between, summary.unseen) == (0.5, 0.5, 0.5, 0.5)
    assert summary.seconds_per_step == 0.12


def test_commands_are_kept_for_the_report_as_they_can_be_pasted(demo, mounts):
    run_demo(demo, Commands(demo, mounts), Voice())
    kept = json.loads((demo.work_dir / "commands.json").read_text())["commands"]
    assert kept[1]["text"].startswith("bevrepro data synth ") and kept[1]["seconds"] >= 0


def test_frames_drawn_are_trained_between_and_unseen_ones(demo, mounts):
    run_demo(demo, Commands(demo, mounts), Voice())
    drawn = [step.argv for step in steps_of(demo) if step.argv[0] == "viz"]
    samples = [[word for word in argv if word.startswith("token")] for argv in drawn]
    assert samples == [["token3", "token45"], ["token24"], ["token5"]]  # odd places are trained on


@pytest.mark.parametrize("at", ["doctor", "data mount", "data prepare", "train", "eval", "viz", "report"])
def test_ctrl_c_at_any_step_leaves_no_mount(demo, mounts, at):
    voice = Voice()
    with pytest.raises(KeyboardInterrupt):
        run_demo(demo, Commands(demo, mounts, at, KeyboardInterrupt()), voice)
    assert mounts == [] and any("goes on where it stopped" in line for line in voice.said)


def test_saved_training_says_how_the_demo_goes_on(demo, mounts):
    stop = Interrupted("Stopped after step 7 of 20.", "Saved.", "--resume auto", 143)
    with pytest.raises(Interrupted) as caught:
        run_demo(demo, Commands(demo, mounts, "train", stop), Voice())
    assert caught.value.exit_code == 143 and "same demo again" in caught.value.do and mounts == []


def test_failed_step_stops_and_unmounts(demo, mounts):
    commands = Commands(demo, mounts, "data prepare", UserError("no space left"))
    with pytest.raises(UserError, match="no space left"):
        run_demo(demo, commands, Voice())
    assert commands.ran[-1] == "data umount" and "train" not in commands.ran


def test_step_that_ends_with_an_exit_code_is_named(demo, mounts):
    with pytest.raises(UserError) as caught:
        run_demo(demo, Commands(demo, mounts, "train", 2), Voice())
    assert "bevrepro train" in caught.value.seen and caught.value.exit_code == 2


def test_findings_of_the_doctor_do_not_stop_it(demo, mounts):
    voice = Voice()
    run_demo(demo, Commands(demo, mounts, "doctor", 1), voice)
    assert len(voice.steps) == 12 and any("doctor found" in line for line in voice.said)


def test_second_start_keeps_the_data_and_resumes(demo, mounts):
    with pytest.raises(KeyboardInterrupt):
        run_demo(demo, Commands(demo, mounts, "train", KeyboardInterrupt()), Voice())
    again = Commands(demo, mounts)
    run_demo(demo, again, Voice())
    assert "data synth" not in again.ran and "train" in again.ran
    train = next(step.argv for step in steps_of(demo) if step.argv[0] == "train")
    assert train[train.index("--resume") + 1] == "auto"


def test_mount_of_a_killed_demo_is_taken_away_first(demo, mounts):
    demo.work_dir.mkdir(parents=True)
    (demo.out / "demo.json").write_text('{"steps": 20, "seed": 1}')
    mounts.append(SimpleNamespace(mountpoint=str(demo.mountpoint.resolve())))
    commands = Commands(demo, mounts)
    run_demo(demo, commands, Voice())
    assert commands.ran[0] == "data umount"


def test_other_steps_or_a_strange_folder_are_refused(demo, mounts, tmp_path):
    run_demo(demo, Commands(demo, mounts), Voice())
    with pytest.raises(ConfigError, match="20 steps and seed 1"):
        run_demo(Demo(demo.out, steps=30, seed=1), Commands(demo, mounts), Voice())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="not a demo's folder"):
        run_demo(Demo(tmp_path / "mine"), Commands(demo, mounts), Voice())
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_recipe_is_untouched_at_its_own_length_and_scaled_otherwise(tmp_path):
    def train(steps):
        demo = Demo(tmp_path, steps=steps)
        return next(step.text for step in steps_of(demo, lambda results: []) if step.argv[0] == "train")

    assert "--cfg-options" not in train(1400)
    assert "schedule.max_steps=850 schedule.warmup_steps=26" in train(850)


def test_printed_command_can_be_pasted_from_a_folder_with_spaces():
    assert Step("x", ("report", "my work")).text == "bevrepro report 'my work'"


def test_gpu_counts_only_with_a_torch_built_for_it(monkeypatch):
    from bevrepro.core.machine import Cuda, Gpu, Python, Torch
    from bevrepro.probe import cuda, python

    monkeypatch.setattr(cuda, "probe_cuda", lambda: Cuda(gpus=(Gpu("H100"),)))
    for built, expected in (("12.4", 1), ("", 0)):
        monkeypatch.setattr(python, "probe_python", lambda *a, b=built: Python(torch=Torch("2.0", b)))
        assert demo_module.usable_gpus() == expected


def test_the_demos_length_is_the_presets():
    from bevformer.config import preset

    assert preset("bevformer_micro").schedule.max_steps == RECIPE_STEPS
