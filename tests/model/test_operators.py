"""What ran is in the record, what was passed over is said, and what does not repeat is named."""

import json

import pytest
import torch

from bevformer import operators, train
from bevformer.config import override, preset, to_dict
from bevformer.detector import build_model
from bevformer.ledger import fidelity_ledger
from bevformer.ops import backends
from bevformer.resume import check_resumed
from bevformer.runstate import Options
from bevformer.talk import Talk

CUDA = torch.device("cuda")


@pytest.fixture
def micro():
    return build_model(override(preset("bevformer_micro"), ["ops.attention=reference"]))


def test_the_record_names_what_runs(micro):
    assert operators.operators_record(micro, "cpu") == {"attention": "reference"}


def test_what_auto_passes_over_is_a_note(monkeypatch, capsys):
    def fail(*args):
        raise OSError("no compiler")

    model = build_model(preset("bevformer_micro"))
    backends.choose.cache_clear()
    monkeypatch.setattr(backends, "_loaded", fail)
    found = operators.tell_operators(model, "cpu", Talk(events=True))
    backends.choose.cache_clear()
    said = json.loads(capsys.readouterr().out)
    assert found == {"attention": "reference"} and said["event"] == "note" and "no compiler" in said["text"]


@pytest.mark.parametrize(
    "name, exact, parts", [("reference", True, 1), ("triton", False, 1), ("triton", True, 0)]
)
def test_only_tritons_own_way_repeats_on_a_gpu(monkeypatch, micro, name, exact, parts):
    monkeypatch.setattr(operators, "operators_record", lambda *args: {"attention": name})
    for module in micro.modules():
        if hasattr(module, "deterministic"):
            module.deterministic = exact
    assert len(operators.not_repeatable(micro, CUDA)) == parts
    assert operators.not_repeatable(micro, torch.device("cpu")) == []


@pytest.mark.parametrize(
    "options, asked",
    [([], True), (["ops.attention=reference"], False), (["ops.deterministic=False"], False),
     (["ops.attention=triton"], True), (["ops.attention=mmcv", "ops.deterministic=True"], True)],
)  # fmt: skip
def test_deterministic_training_asks_the_attention_for_it_where_it_can(options, asked):
    config = train._repeatable(preset("bevformer_micro"), options, True)
    assert config.ops.deterministic is asked
    assert train._repeatable(config, [], False) == config


@pytest.mark.parametrize("flag, option", [(True, False), (False, True), (False, False)])
def test_the_ledger_says_what_does_not_repeat_whoever_asked(tmp_path, flag, option):
    config = override(preset("bevformer_micro"), ["ops.deterministic=%s" % option])
    options = Options(str(tmp_path), deterministic=flag)
    entries = fidelity_ledger(config, options, torch.device("cpu"), atomic=["deformable attention (mmcv)"])
    found = [entry["what"] for entry in entries if "bit for bit" in entry["what"]]
    asked = "--deterministic" if flag else "ops.deterministic=True"
    assert found == (["not bit for bit in spite of " + asked] if flag or option else [])


def test_a_run_goes_on_where_it_is_computed_in_another_way(tmp_path):
    then = override(preset("bevformer_micro"), ["ops.attention=reference"])
    meta = {"iter": 1, "config": json.dumps(to_dict(then)), "seed": 3}
    resumed = {"meta": meta, "path": "iter_1.pth", "optimizer": {}}
    assert check_resumed(resumed, preset("bevformer_micro"), Options(str(tmp_path))) == 3
