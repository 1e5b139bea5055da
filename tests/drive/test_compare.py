"""Where two runs part, and why."""

import json

import pytest

from bevrepro import cli
from bevrepro.drive.compare import compare, thinned
from bevrepro.drive.compare_html import overlay, section
from bevrepro.drive.series import Point, Series, read_series


def series(losses, lr=1e-3, every=10, kind="work folder", run=None, norm=20.0, **about):
    points = [
        Point(None, at * every, at * every, {"lr": lr, "loss": loss, "grad_norm": norm})
        for at, loss in enumerate(losses, start=1)
    ]
    return Series("w", kind, tuple(points), None, about, run)


def record(lr=1e-3, **changes):
    session = {"versions": {"torch": changes.pop("torch", "2.13")}, "host": {"cpu": "x", "threads": 2}}
    return {"config": {"schedule": {"lr": lr}}, "seed": 0, "infos_digest": "aa", "sessions": [session],
            "code": {"commit": "c" * 40}, **changes}  # fmt: skip


def test_equal_runs_part_nowhere():
    found = compare(series([9.0, 8.0, 7.0]), series([9.0, 8.0, 7.0]))
    assert found.equal and found.common == 3 and not found.differences


def test_the_first_step_that_parts_is_named_for_each_quantity():
    found = compare(series([9.0, 8.0, 7.0]), series([9.0, 8.0, 7.5], norm=21.0))
    assert [(each.quantity, each.at) for each in found.partings] == [
        ("grad_norm", "step 10"),
        ("loss", "step 30"),
    ]


@pytest.mark.parametrize(
    "other, equal", [(8.00005, True), (8.0005, True), (8.1, False), (float("nan"), False)]
)
def test_tolerance_is_a_share(other, equal):
    assert compare(series([9.0, 8.0]), series([9.0, other])).equal == equal


@pytest.mark.parametrize("changes, words", [
    ({"lr": 2e-3}, "config.schedule.lr: 0.001 | 0.002"),
    ({"seed": 1}, "seed: 0 | 1"),
    ({"infos_digest": "bb"}, "data (digest of the frames): aa | bb"),
    ({"torch": "1.10"}, "versions.torch: 2.13 | 1.10"),
    ({"code": {"commit": "c" * 40, "dirty": True}}, "with local changes"),
])  # fmt: skip
def test_what_the_records_say_differently_is_the_cause(changes, words):
    found = compare(series([9.0], run=record()), series([8.0], run=record(**changes)))
    assert any(words in each for each in found.differences) and not found.equal


def test_another_base_rate_shows_without_any_record():
    found = compare(series([9, 8, 7], lr=1e-3), series([9, 8, 7], lr=2e-4))
    assert any("5 times" in each for each in found.differences) and found.partings[0].quantity == "lr"


def test_an_upstream_log_is_aligned_by_epoch_and_iteration(tmp_path):
    text = "\n".join(
        f"2022 - mmdet - INFO - Epoch [{epoch}][{place}/100]\tlr: 2.000e-04, loss: {loss}, grad_norm: 3.0"
        for epoch, place, loss in ((1, 50, 9.0), (1, 100, 8.0), (2, 50, 7.0))
    )
    (tmp_path / "up.log").write_text(text)
    lines = [
        {"mode": "train", "epoch": e, "iter": i, "step": (e - 1) * 100 + i, "lr": 2e-4, "loss": loss,
         "grad_norm": 3.0}
        for e, i, loss in ((1, 50, 9.0), (1, 100, 8.0), (2, 50, 7.5))
    ]  # fmt: skip
    (tmp_path / "ours.log.json").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "run.json").write_text(json.dumps({"steps_per_epoch": 100}))
    found = compare(read_series(tmp_path), read_series(tmp_path / "up.log"))
    assert found.common == 3 and [(each.quantity, each.at) for each in found.partings] == [
        ("loss", "epoch 2 iteration 50")
    ]


def test_epochs_of_another_length_are_aligned_by_step_and_said_to_be_another_batch():
    left = Series(
        "a", "mmcv .log", (Point(1, 50, None, {"loss": 3.0}), Point(2, 50, None, {"loss": 2.0})), 100
    )
    right = Series(
        "b", "mmcv .log", (Point(1, 50, None, {"loss": 3.0}), Point(1, 150, None, {"loss": 2.0})), 200
    )
    found = compare(left, right)
    assert found.common == 2 and found.equal and any("another batch" in each for each in found.differences)


def test_lines_over_other_intervals_get_a_note_and_nothing_in_common_is_no_success():
    found = compare(series([9, 8], every=10), series([9, 8], every=50))
    assert found.common == 0 and not found.equal and "nothing could be compared" in found.notes[0]
    assert "mean over 10 steps" in compare(series([9] * 9), series([9, 9], every=50)).notes[0]


def test_thinning_keeps_ends_and_what_parts():
    rows = compare(series([1.0] * 100), series([1.0] * 100)).rows
    kept = [row.at for row in thinned(rows, 5, ["step 310"])]
    assert kept[0] == "step 10" and kept[-1] == "step 1000" and "step 310" in kept and len(kept) == 6


def test_the_section_draws_both_and_escapes():
    found = compare(series([9.0, 8.0], run=record(seed="<b>")), series([9.0, 7.0], run=record()))
    text = section(found)
    assert text.count("<polyline") == 6 and "parts first at" in text and "&lt;b&gt;" in text
    assert "<script" not in text and overlay(found.rows[:1], "loss") == ""


def test_on_the_command_line(tmp_path, capsys):
    for name, loss in (("a", 2.0), ("b", 3.0)):
        folder = tmp_path / name
        folder.mkdir()
        line = {"mode": "train", "step": 10, "iter": 10, "lr": 1e-3, "loss": loss}
        (folder / "x.log.json").write_text(json.dumps(line))
    words = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--html", str(tmp_path / "c.html")]
    assert cli.main(words) == 1 and "loss parts first at step 10: 2 and 3" in capsys.readouterr().out
    assert "Compared step by step" in (tmp_path / "c.html").read_text()
    assert cli.main([*words[:2], str(tmp_path / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["equal"] is True
    assert cli.main(["compare", str(tmp_path / "a"), "no_such_file"]) == 4
