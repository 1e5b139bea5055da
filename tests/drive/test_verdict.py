"""Verdicts on recorded results: full-scale metrics files, run records, findings; no model runs."""

import json
import statistics
from pathlib import Path

import pytest

from bevrepro import cli
from bevrepro.core.finding import Finding, Severity
from bevrepro.drive.causes import Evidence
from bevrepro.drive.published import against_table
from bevrepro.drive.recipes import EVAL, TRAIN, recipe, recipes
from bevrepro.drive.verdict import judge
from bevrepro.probe.metrics import Metrics, probe_metrics
from bevrepro.probe.paths import Place

TINY = recipe("bevformer_tiny")
# (mAP, NDS, mATE, mASE, mAOE, mAVE, mAAE): tiny as its log has them, and published mistakes
GOOD = (0.2519, 0.3545, 0.8986, 0.2930, 0.6510, 0.6559, 0.2157)
SWAPPED = (0.2520, 0.2560, 0.8990, 0.7100, 1.5500, 0.6560, 0.2160)
README_ONE = (0.2647, 0.2667, 0.8565, 0.7685, 1.2584, 0.7330, 0.2986)  # RajKumarMcW/bev_former
NO_WEIGHTS = (0.0000, 0.0009, 1.1, 0.99, 1.6, 1.9, 0.99)
BATCH_4 = (0.2210, 0.3180, 0.93, 0.30, 0.74, 0.73, 0.22)
NO_HISTORY = (0.2200, 0.2950, 0.94, 0.30, 0.72, 1.11, 0.25)  # as RoboBEV's models without it: mAVE over 0.8


def summary(tmp_path, numbers, **class_ap):
    """A metrics_summary.json of the devkit."""
    names = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")
    content = {"mean_ap": numbers[0], "nd_score": numbers[1], "tp_errors": dict(zip(names, numbers[2:]))}
    path = tmp_path / "metrics_summary.json"
    path.write_text(json.dumps({**content, "mean_dist_aps": class_ap}))
    return path


def metrics(map_, nds, **errors):
    return Metrics(Place("x", "file"), map=map_, nds=nds, errors=errors)


def run(**changes):
    """A run.json that is tiny's to the letter."""
    made = {"config_name": "bevformer_tiny", "status": "finished", "effective_batch": 8, "frames": 28130,
            "ledger": []}  # fmt: skip
    schedule = {"lr": changes.pop("lr", 2e-4), "max_epochs": changes.pop("epochs", 24)}
    queue = changes.pop("queue", 3)
    return {**made, "config": {"schedule": schedule, "data": {"queue_length": queue}}, **changes}


@pytest.mark.parametrize(
    "numbers, word, cause",
    [
        (GOOD, "pass", None),
        (SWAPPED, "below", "box convention"),
        (README_ONE, "below", "box convention"),
        (NO_WEIGHTS, "below", "weights that do not belong to the model"),
        (BATCH_4, "below", "batch and learning rate"),
        (NO_HISTORY, "below", "history lost"),
    ],
)
def test_a_recorded_file_gets_its_verdict_and_its_fingerprint(tmp_path, numbers, word, cause):
    verdict = against_table(summary(tmp_path, numbers), TINY)
    assert verdict.word == word and verdict.passed == (word == "pass")
    assert [each.name for each in verdict.causes][:1] == ([cause] if cause else [])
    assert bool(verdict.next) == (word != "pass")


def test_classes_without_any_hit_say_another_split(tmp_path):
    found = {"car": 0.4, "truck": 0.2, "bus": 0.3, "trailer": 0.0, "barrier": 0.0}
    verdict = against_table(summary(tmp_path, (0.2, 0.28, 0.9, 0.4, 0.8, 0.7, 0.3), **found), TINY)
    assert "another split" in [cause.name for cause in verdict.causes]


@pytest.mark.parametrize("nds, word", [(0.355, "pass"), (0.3529, "below"), (0.3556, "above")])
def test_weights_are_held_to_a_thousandth(nds, word):
    assert judge(TINY, EVAL, Evidence(metrics(0.2519, nds), score={"world_size": 1})).word == word


@pytest.mark.parametrize("score, word", [
    ({"world_size": 8, "cut": "upstream", "num_samples": 6019}, "pass"),
    ({"world_size": 4, "cut": "scene", "num_samples": 6019}, "pass"),  # as one process
    ({"world_size": 4, "cut": "upstream", "num_samples": 6019}, "not comparable"),
])  # fmt: skip
def test_only_evaluations_cut_alike_are_compared(score, word):
    assert judge(TINY, EVAL, Evidence(metrics(0.252, 0.3542), score=score)).word == word


def test_what_cannot_be_compared_names_the_evaluation_that_can():
    verdict = judge(recipe("bevformer_base"), EVAL, Evidence(metrics(0.416, 0.517), score={"world_size": 1}))
    assert verdict.word == "not comparable" and "--gpus 8 --cut upstream" in verdict.next


@pytest.mark.parametrize("numbers, word", [
    ((0.2622, 0.3653), "pass"), ((0.26836, 0.37884), "pass"),
    ((0.2401, 0.360), "below"), ((0.26, 0.39), "above"),
])  # fmt: skip
def test_a_training_is_inside_or_outside_the_published_band(numbers, word):
    assert judge(TINY, TRAIN, Evidence(metrics(*numbers), run())).word == word


@pytest.mark.parametrize("record, name, words", [
    (run(lr=1e-4), "batch and learning rate", "learning rate 0.0001 instead of 0.0002"),
    (run(effective_batch=4), "batch and learning rate", "batch 4 instead of 8"),
    (run(queue=1), "history lost", "length 1 instead of 3"),
    (run(frames=14065), "incomplete data", "14065 instead of 28130"),
    (run(epochs=12), "trained for another time", "epochs: 12 instead of 24"),
    (run(status="interrupted"), "trained for another time", "interrupted"),
    (run(config_name="bevformer_small"), "another model", "bevformer_small"),
    (run(ledger=[{"what": "random backbone", "effect": "changes the result", "why": "no --init-from"}]),
     "departure: random backbone", "no --init-from"),
])  # fmt: skip
def test_what_the_record_says_differently_is_the_cause(record, name, words):
    verdict = judge(TINY, TRAIN, Evidence(metrics(0.2, 0.318, mAVE=0.9), record))
    assert verdict.causes[0].name == name and words in verdict.causes[0].seen and verdict.causes[0].sure
    assert verdict.causes[0].where == "run.json" and verdict.next.startswith("bevrepro ")


def test_right_numbers_of_another_recipe_are_no_pass():
    verdict = judge(TINY, TRAIN, Evidence(metrics(0.26, 0.36), run(lr=4e-4)))
    assert verdict.word == "not comparable" and not verdict.passed


def test_a_mild_departure_is_no_cause():
    ledger = [{"what": "8 ranks one after another", "effect": "equal up to rounding", "why": "one GPU"}]
    assert judge(TINY, TRAIN, Evidence(metrics(0.26, 0.36), run(ledger=ledger))).passed


def test_a_part_of_the_split_is_never_compared():
    score = {"num_samples": 3000, "split": "val", "complete": True}
    for changes, cause in (({}, "incomplete data"), ({"subset": "between"}, "another split"),
                           ({"split": "mini_val", "num_samples": 81}, "another split")):  # fmt: skip
        verdict = judge(TINY, EVAL, Evidence(metrics(0.2519, 0.3545), score={**score, **changes}))
        assert verdict.word == "not comparable" and [each.name for each in verdict.causes] == [cause]
        assert verdict.next.startswith("bevrepro ")


def test_findings_on_data_and_checkpoint_come_before_what_numbers_suggest():
    bad = Finding(
        "infos-convention", "data", Severity.FAIL, "cars are long", "", "", ("bevrepro data prepare",)
    )
    known = Evidence(metrics(0.252, 0.256, mASE=0.71, mAOE=1.55), found=(bad,))
    (cause,) = judge(TINY, EVAL, known).causes
    assert (cause.name, cause.where, cause.sure) == ("box convention", "data", True)


def test_a_checkpoint_that_did_not_load_is_the_verdict():
    verdict = judge(TINY, EVAL, Evidence(refused="x.pth lacks 600 keys"))
    assert verdict.word == "not reached" and verdict.causes[0].name == "keys that do not match"


def test_every_recipe_is_sound():
    for each in recipes():
        assert each.kinds and each.source and each.expect and each.trainings
        for value, nds in each.trainings:
            assert (
                each.map_band[0] <= value <= each.map_band[1] and each.nds_band[0] <= nds <= each.nds_band[1]
            )


def test_a_log_with_the_devkits_table_is_a_result(tmp_path):
    (tmp_path / "x.log").write_text("mAP: 0.2521\nmASE: 0.2700\nmAOE: 0.6500\nNDS: 0.3544\n")
    assert probe_metrics(tmp_path / "x.log").nds == 0.3544
    assert against_table(tmp_path / "x.log", TINY).passed


def test_micro_synths_band_is_the_recorded_one():
    root = Path(__file__).parents[2]
    made, known = json.loads((root / "benchmarks" / "micro_synth.json").read_text()), recipe("micro_synth")
    seeds = made["seeds"]
    assert len(seeds) >= 5 and len({each["weights_digest"] for each in seeds}) == len(seeds)
    assert known.trainings == tuple((each["map"], each["nds"]) for each in seeds)
    assert (list(known.map_band), list(known.nds_band)) == (made["band"]["map"], made["band"]["nds"])
    assert made["steps"] == known.expect["steps"] and made["frames"] == known.expect["frames"]
    scores = [each["nds"] for each in seeds]  # Student's t, 97.5 %, seven degrees of freedom
    half = 2.365 * statistics.stdev(scores) * (1 + 1 / len(scores)) ** 0.5
    assert known.nds_band == pytest.approx(
        (statistics.mean(scores) - half, statistics.mean(scores) + half), abs=1e-4
    )


def test_the_table_on_the_command_line(tmp_path, capsys):
    words = ["compare", str(summary(tmp_path, GOOD)), "bevformer_tiny"]
    assert cli.main(words) == 0 and capsys.readouterr().out.startswith("PASS: bevformer_tiny, eval-verified")
    summary(tmp_path, SWAPPED)
    assert cli.main([*words, "--kind", "train"]) == 1
    printed = capsys.readouterr().out
    assert "Looks like: box convention (from metrics)" in printed and "Next: bevrepro doctor data" in printed
    assert cli.main([*words, "--json"]) == 1 and json.loads(capsys.readouterr().out)["word"] == "below"
    assert cli.main([*words, "--kind", "both"]) == 6
    assert cli.main(["compare", str(tmp_path / "none.json"), "bevformer_tiny"]) == 4
    (tmp_path / "metrics_summary.json").write_text("[]")
    assert cli.main(words) == 4 and "no metrics_summary" in capsys.readouterr().err


def test_a_work_folder_is_judged_as_the_training_that_it_is(tmp_path):
    folder = tmp_path / "eval" / "metrics" / "all"
    folder.mkdir(parents=True)
    summary(folder, (0.2622, 0.3653, 0.9, 0.29, 0.65, 0.66, 0.2))
    (tmp_path / "eval" / "eval.json").write_text(json.dumps({"all": {"num_samples": 6019, "world_size": 1}}))
    (tmp_path / "run.json").write_text(json.dumps(run()))
    for path in (tmp_path, tmp_path / "eval"):
        verdict = against_table(path, TINY)
        assert (verdict.kind, verdict.word) == (TRAIN, "pass")
