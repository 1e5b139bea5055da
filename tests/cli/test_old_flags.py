"""The options of BEVFormer's and mmdetection3d's own scripts, as people type them."""

import pytest

from bevrepro import cli, facts
from bevrepro.cli.old_flags import translated
from bevrepro.drive import launch

VALUES = {0: [], 1: ["3"], -1: ["a=1", "b=2"]}
ROWS = [(row, flag) for row in facts.table("old_flags") for flag in row["flags"]]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run a command on infos; returns (exit code, argv of the model plane, None where it was not reached)."""
    seen = {}

    def fake(verb, argv, *, python=None, on_event=None, processes=None, inside=None):
        seen.update(argv=argv)
        return {"event": "result", "checkpoint": "w", "steps": 1, "results": "r.json", "metrics": {}}

    monkeypatch.setattr(launch, "run_model", fake)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")

    def play(verb, *words):
        seen.clear()
        start = [verb, "c.py", *(["c.pth"] if verb == "eval" else []), "--infos", str(tmp_path)]
        return cli.main([*start, "--data-root", str(tmp_path), *words]), seen.get("argv")

    return play


@pytest.mark.parametrize(
    "words, becomes",
    [
        ("--resume", "--resume auto"),
        ("--resume --amp", "--resume auto --amp fp16"),
        ("--resume e.pth --amp bf16", "--resume e.pth --amp bf16"),
        ("--amp c.py", "--amp fp16 c.py"),
        ("--auto-resume c.py", "--resume auto c.py"),
        ("--gpu-ids 0 2 --seed 1", "--gpu-ids 0,2 --seed 1"),
        ("--gpu-id 1 c.py", "--gpu-ids 1 c.py"),
        ("--gpu-id=1", "--gpu-ids=1"),
        ("--options a=1 b=2", "--cfg-options a=1 b=2"),
        ("c.py -- --amp", "c.py -- --amp"),
    ],
)
def test_old_words_become_ours(words, becomes):
    assert translated("train", words.split()) == becomes.split()


@pytest.mark.parametrize("row, flag", ROWS, ids=[f"{row['id']}{flag}" for row, flag in ROWS])
def test_what_has_no_twin_is_refused_or_said_to_change_nothing(run, row, flag, capsys):
    code, argv = run(row["id"].split()[0], flag, *VALUES[row["values"]], "--gpus", "0")
    said = capsys.readouterr().err
    assert flag in said and row["why"] in said
    if row["outcome"] == "refused":
        assert (code, argv) == (6, None) and row["do"] in said
    else:
        assert code == 0 and flag not in argv and argv[argv.index("--gpus") + 1] == "0"


@pytest.mark.parametrize("verb", ["train", "eval"])
def test_gpus_are_chosen_by_number_among_the_visible(run, verb, monkeypatch):
    code, argv = run(verb, "--gpu-ids", "1", "3")
    assert code == 0 and argv[argv.index("--gpus") + 1] == "2"
    assert launch.model_env()["CUDA_VISIBLE_DEVICES"] == "5,7"


@pytest.mark.parametrize(
    "words, code", [("--gpu-ids 4", 6), ("--gpu-ids 1 1", 2), ("--gpu-ids x", 2), ("--gpu-ids 0 --gpus 1", 2)]
)
def test_gpus_that_cannot_be_are_refused(run, words, code):
    assert run("train", *words.split()) == (code, None)


def test_the_line_that_dist_test_runs_is_understood(run):
    assert run("eval", "--launcher", "pytorch", "--eval", "bbox", "--deterministic")[0] == 0
    assert run("eval", "--launcher", "slurm")[0] == 6


def test_a_pickle_of_results_is_not_promised(run, capsys):
    assert run("eval", "--out", "results.pkl") == (2, None)
    assert "names a folder" in " ".join(capsys.readouterr().err.replace("│", " ").split())
