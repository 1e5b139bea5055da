"""`bench memory`: the ladder as rows with the goals it has to meet, and files that grow preset by preset."""

import json
from pathlib import Path

import pytest

from bevformer import bench, bench_memory
from bevformer.bench_common import preset_of
from bevformer.bench_read import read
from bevformer.errors import ConfigError, DataError
from bevformer.nominal import image_size
from bevformer.plan import peak_memory
from bevformer.rungs import LADDER, rungs_up_to

RECORDED = json.loads((Path(__file__).parents[2] / "benchmarks" / "plan_memory.json").read_text())


def goals(rows):
    return {(row["case"], row["who"]): row["met"] for row in rows if "goal" in row}


def test_the_committed_memory_meets_every_goal():
    rows = bench_memory.rows_of(RECORDED["ladder_gib"])
    assert set(goals(rows).values()) == {True} and {case for case, _ in goals(rows)} == {"base", "tiny"}
    assert {who for case, who in goals(rows) if case == "base"} >= {"bf16"} and len(goals(rows)) == 4


def test_the_committed_memory_has_every_rung_of_the_ladder_with_its_effect():
    told = [(rung["name"], rung["what"], rung["effect"]) for rung in RECORDED["ladder"]]
    assert told == [(rung.name, rung.what, rung.effect) for rung in LADDER]


def test_goals_are_of_one_sample_of_a_queue_of_four_at_full_size():
    base = preset_of("base")
    assert (base.data.queue_length, base.schedule.samples_per_gpu) == (4, 1)
    assert image_size(base).padded_hw == (928, 1600)


def test_a_goal_that_is_missed_is_said():
    found = {"none": 40.0, "rungs": [dict(name="a", effect="identical", peak_gib=12.0)]}
    rows = bench_memory.rows_of({"bevformer_base": found})
    assert goals(rows) == {("base", "a"): False}
    assert "at most 10.5: MISSED" in "\n".join(bench_memory.told(rows))
    assert rows[1]["median"] == pytest.approx(12 * 2**30 / 1e9, rel=1e-4)


def test_it_writes_rows_and_keeps_what_is_not_measured_now(tmp_path, heard, monkeypatch):
    measured = {"none": 0.5, "rungs": [dict(name="sampling", effect="identical", peak_gib=0.25)]}
    monkeypatch.setattr(bench_memory, "ladder", lambda config, talk: measured)
    out = tmp_path / "memory.json"
    out.write_text(
        json.dumps({"ladder_gib": {"bevformer_base": {"none": 1.0, "rungs": []}}, "calibration": {}})
    )
    assert bench.main(["memory", "--preset", "micro", "--out", str(out)], heard) == 0
    found = read(str(out))
    assert {row["case"] for row in found["rows"]} == {"base", "micro"}
    assert [rung["name"] for rung in found["ladder"]] == [rung.name for rung in LADDER]
    assert any("micro" in note and "GB" in note for note in heard.notes)


def test_a_calibration_alone_leaves_the_ladders_date_and_command(tmp_path, heard, monkeypatch):
    monkeypatch.setattr(bench_memory, "calibration", lambda config, talk: [])
    out = tmp_path / "memory.json"
    out.write_text(json.dumps(dict(RECORDED, command="as it was")))
    assert bench.main(["memory", "--preset", "--calibrate", "micro", "--out", str(out)], heard) == 0
    found = read(str(out))
    assert (found["command"], found["time"], found["rows"]) == (
        "as it was",
        RECORDED["time"],
        RECORDED["rows"],
    )
    assert found["calibration"]["bevformer_micro"]["rows"] == []


def test_an_unknown_preset_is_refused_before_anything_is_measured(heard):
    with pytest.raises(ConfigError, match="unknown preset: 'huge'"):
        bench.main(["memory", "--preset", "base", "huge"], heard)


@pytest.mark.parametrize(
    "content",
    [
        '{"ladder_gib": {"bevformer_base": {"none": 1.0, ',
        "",
        "my own notes",
        "[1, 2]",
        "null",
        '{"ladder_gib": null}',
        '{"ladder_gib": {"bevformer_base": 3}}',
        '{"ladder_gib": {"bevformer_base": {"none": "x", "rungs": []}}}',
        '{"ladder_gib": {"bevformer_base": {"none": 1, "rungs": [null]}}}',
        '{"ladder_gib": {"base": {"none": 1, "rungs": [{"name": 1, "effect": "", "peak_gib": 2}]}}}',
        '{"ladder_gib": {}, "calibration": [1]}',
        "[" * 100000,
    ],
)
def test_a_file_that_is_something_else_is_refused_and_left_as_it_is(tmp_path, heard, content):
    out = tmp_path / "memory.json"
    out.write_text(content)
    with pytest.raises(DataError, match="memory.json") as caught:
        bench.main(["memory", "--preset", "micro", "--out", str(out)], heard)
    assert out.read_text() == content and "another file" in caught.value.do


@pytest.mark.slow
@pytest.mark.parametrize("amp", [False, True], ids=["to the bit", "bf16"])
def test_tiny_trains_within_two_gigabytes(amp):
    names = [rung.name for rung in rungs_up_to("equal up to rounding" if amp else "identical")]
    assert peak_memory(preset_of("tiny"), names, amp)["peak_gib"] * 2**30 <= 2.0e9
