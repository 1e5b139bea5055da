"""From words on the command line to the model plane's words."""

import json

import pytest

from bevrepro import cli
from bevrepro.core.errors import CheckpointError
from bevrepro.drive import launch


@pytest.fixture
def infos(tmp_path):
    path = tmp_path / "nuscenes_infos_temporal_train.pkl"
    path.write_bytes(b"")
    return path


@pytest.fixture
def run(monkeypatch, infos):
    """Run a command; returns (exit code, verb, argv of the model plane)."""
    seen = {}

    def fake(verb, argv, *, python=None, on_event=None, processes=None, inside=None):
        seen.update(verb=verb, argv=argv, processes=processes)
        if "broken.pth" in argv:
            raise CheckpointError("broken.pth is truncated", "w", "d")
        return {
            "event": "result", "checkpoint": "w/latest.pth", "steps": 20, "seconds_per_step": 0.125,
            "results": "r.json", "pictures": [{"path": "p.png"}],
            "metrics": {"labelled": {"mAP": 0.5, "NDS": 0.4, "num_samples": 40, "split": "mini_train"}},
        }  # fmt: skip

    monkeypatch.setattr(launch, "run_model", fake)

    def play(*words):
        seen.clear()
        code = cli.main([str(word) for word in words])
        return code, seen.get("verb"), seen.get("argv")

    return play


def test_train_passes_what_people_type(run, infos, tmp_path):
    code, verb, argv = run(
        "train", "bevformer_micro", "--infos", infos, "--data-root", tmp_path, "--work-dir", "w",
        "--gpus", "0", "--seed", "3",
        "--cfg-options", "a=1", "b=2", "--resume", "auto", "--no-validate", "--deterministic",
    )  # fmt: skip
    assert (code, verb, argv[0]) == (0, "train", "bevformer_micro")
    assert argv[argv.index("--cfg-options") + 1 :][:2] == ["a=1", "b=2"]
    for pair in (("--gpus", "0"), ("--seed", "3"), ("--resume", "auto"), ("--work-dir", "w")):
        assert argv[argv.index(pair[0]) + 1] == pair[1]
    assert {"--no-validate", "--deterministic"} <= set(argv)


def test_model_plane_understands_what_train_and_eval_pass_on(run, infos, tmp_path):
    pytest.importorskip("torch")
    from bevformer import evaluate, train

    _, _, argv = run("train", "bevformer_micro", "--infos", infos, "--resume-from", "f.pth", "--seed", "1")
    assert train.parse(argv).resume_from == "f.pth"
    _, _, argv = run(
        "eval", "bevformer_micro", "c.pth", "--infos", infos, "--subset", "labelled", "--eval", "bbox"
    )
    assert evaluate.parse(argv).subset == ["labelled"]


def test_initial_weights_are_passed_on_and_not_mixed_with_resuming(run, infos):
    pytest.importorskip("torch")
    from bevformer import train

    words = ["train", "bevformer_tiny", "--infos", infos, "--init-from", "r50.pth"]
    parsed = train.parse(run(*words, "--allow-partial-init", "--resume", "auto")[2])
    assert (parsed.init_from, parsed.allow_partial_init, parsed.resume) == ("r50.pth", True, "auto")
    assert run(*words, "--resume-from", "f.pth")[:2] == (2, None)
    assert run("train", "bevformer_tiny", "--infos", infos, "--allow-partial-init")[:2] == (2, None)


def test_work_folder_is_named_after_the_configuration_by_default(run, infos):
    _, _, argv = run("train", "bevformer_micro", "--infos", infos)
    assert argv[argv.index("--work-dir") + 1] == "work_dirs/bevformer_micro"


def test_missing_data_root_is_chosen_aloud(run, infos, capsys):
    _, _, argv = run("train", "bevformer_micro", "--infos", infos)
    assert argv[argv.index("--data-root") + 1] == str(infos.parent)
    assert "No --data-root given" in capsys.readouterr().err


def test_several_devices_are_started_by_torchrun(run, infos, monkeypatch):
    _, _, argv = run("train", "bevformer_tiny", "--infos", infos, "--gpus", "0", "--processes", "2",
                     "--emulate-gpus", "8", "--launcher", "pytorch")  # fmt: skip
    assert argv[argv.index("--emulate-gpus") + 1] == "8" and "--processes" not in argv


@pytest.mark.parametrize("launcher", ["slurm", "mpi"])
def test_other_launchers_are_refused_with_a_sentence(run, infos, launcher, capsys):
    code, verb, _ = run("train", "bevformer_micro", "--infos", infos, "--launcher", launcher)
    assert code == 6 and verb is None and f"--launcher {launcher}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["stray"], ["--resume", "--seed"], ["--no-such-option"], ["--gpus", "many"], ["--launcher", "x"]],
)
def test_wrong_usage_is_exit_code_two(run, infos, words):
    code, verb, _ = run("train", "bevformer_micro", "--infos", infos, *words)
    assert code == 2 and verb is None


def test_eval_prints_the_scores(run, infos, capsys):
    assert run("eval", "bevformer_micro", "c.pth", "--infos", infos, "--split", "train")[0] == 0
    out = capsys.readouterr().out
    assert "labelled: mAP 0.5000  NDS 0.4000  (40 frames of mini_train)" in out and "r.json" in out


def test_json_goes_to_stdout_alone(run, infos, capsys):
    run("train", "bevformer_micro", "--infos", infos, "--json")
    assert json.loads(capsys.readouterr().out)["steps"] == 20


def test_error_of_the_child_is_a_sentence_and_its_code(run, infos, capsys):
    assert run("eval", "bevformer_micro", "broken.pth", "--infos", infos)[0] == 7
    assert "broken.pth is truncated" in capsys.readouterr().err


def test_viz_prints_the_pictures(run, infos, capsys):
    code, _, argv = run("viz", "--infos", infos, "--out", "o", "--sample", "a", "--sample", "b")
    assert code == 0 and capsys.readouterr().out == "p.png\n"
    assert [argv[i + 1] for i, word in enumerate(argv) if word == "--sample"] == ["a", "b"]


def test_report_of_nothing_is_a_sentence(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 4
    assert "nothing to report" in capsys.readouterr().err


def test_demo_does_not_touch_a_folder_of_others(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("")
    assert cli.main(["demo", "--out", str(tmp_path)]) == 6
    assert "not a demo's folder" in capsys.readouterr().err


def test_ctrl_c_inside_a_nested_command_comes_back_as_itself(monkeypatch):
    from bevrepro.cli import demo, doctor

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "_machine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo._invoke(["doctor"])
