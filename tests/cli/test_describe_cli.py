"""`bevrepro eval --describe`."""

import json

import pytest

from bevrepro import cli
from bevrepro.cli.describe_view import description
from bevrepro.drive import launch

RESULT = {
    "event": "result",
    "config": "bevformer_tiny",
    "parameters": {"total": 33521157, "trainable": 33245627, "frozen": 275530},
    "state_dict_keys": 643,
    "parts": [{"part": "neck", "keys": 4, "total": 1114624, "trainable": 1114624, "frozen": 0}],
    "image": {
        "source_hw": [900, 1600], "scale": 0.5, "scaled_hw": [450, 800], "padded_hw": [480, 800],
        "levels_hw": [[15, 25]],
    },
    "bev": {"h": 50, "w": 50, "cell_y_m": 2.048, "cell_x_m": 2.048},
    "memory": {
        "weights_gib": 0.125, "gradients_gib": 0.124, "optimizer_gib": 0.248, "saved_gib": 2.5,
        "total_gib": 2.997, "saved_by_part_gib": {"neck": 0.002}, "samples": 1, "dcn_backend": None,
        "measured": "How.", "not_included": "What not.",
    },
}  # fmt: skip


@pytest.fixture
def run(monkeypatch):
    """Run a command; returns (exit code, verb, argv of the model plane)."""
    seen = {}

    def fake(verb, argv, *, python=None, on_event=None, processes=None, inside=None):
        seen.update(verb=verb, argv=argv)
        return dict(RESULT)

    monkeypatch.setattr(launch, "run_model", fake)

    def play(*words):
        seen.clear()
        code = cli.main([str(word) for word in words])
        return code, seen.get("verb"), seen.get("argv")

    return play


def test_it_needs_neither_checkpoint_nor_data(run, capsys):
    assert run("eval", "--describe", "bevformer_tiny") == (0, "describe", ["bevformer_tiny"])
    out = capsys.readouterr().out
    assert "33,521,157 parameters (33,245,627 trainable, 275,530 frozen), 643 keys" in out
    assert "1600x900 x 0.5 = 800x450, padded to 800x480" in out and "How." in out


def test_overrides_are_passed_on(run):
    _, _, argv = run("eval", "--describe", "upstream.py", "--cfg-options", "a=1", "b=2", "c=3")
    assert argv == ["upstream.py", "--cfg-options", "a=1", "b=2", "c=3"]
    _, _, argv = run("eval", "bevformer_tiny", "--cfg-options", "a=1", "--describe")
    assert argv == ["bevformer_tiny", "--cfg-options", "a=1"]


def test_json_is_the_model_planes_answer(run, capsys):
    run("eval", "--describe", "bevformer_tiny", "--json")
    assert json.loads(capsys.readouterr().out) == {key: RESULT[key] for key in RESULT if key != "event"}


@pytest.mark.parametrize(
    "words",
    [["c.pth"], ["--infos", "i"], ["--gpus", "0"], ["--limit", "3"], ["--format-only"], ["--split", "train"]],
)
def test_what_it_would_ignore_is_refused(run, words, capsys):
    code, verb, _ = run("eval", "--describe", "bevformer_tiny", *words)
    assert code == 2 and verb is None and "--describe takes CONFIG" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["c.pth"], ["--infos", "i"]])
def test_an_evaluation_still_needs_checkpoint_and_infos(run, words, capsys):
    code, verb, _ = run("eval", "bevformer_tiny", *words)
    assert code == 2 and verb is None and "--infos and CKPT" in capsys.readouterr().err


def test_two_samples_are_said():
    two = dict(RESULT, memory=dict(RESULT["memory"], samples=2))
    assert any("with 2 samples per device" in line for line in description(two))


@pytest.mark.slow  # two programs that import torch; tests/model/test_describe.py asks without them
def test_the_real_thing_end_to_end(tmp_path, capsys):
    pytest.importorskip("torch")
    assert cli.main(["eval", "--describe", "bevformer_micro", "--cfg-options", "head.num_query=50"]) == 0
    assert "bevformer_micro: 1,038,085 parameters" in capsys.readouterr().out
    assert cli.main(["eval", "--describe", "bevformer_huge"]) == 6
    assert "unknown preset" in capsys.readouterr().err
