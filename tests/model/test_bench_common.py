"""What all benchmarks share: rows, ratios, turns, and documents that are read back or refused."""

import json

import pytest
import torch

from bevformer import bench, bench_common, bench_read, gpu_check
from bevformer.bench_common import Protocol
from bevformer.errors import ConfigError, DataError

CPU = torch.device("cpu")


def test_a_row_holds_median_and_quartiles_of_all_its_values():
    row = bench_common.row("base spatial", "forward", "cpp", [5.0, 1.0, 2.0, 3.0, 4.0], saved_mb=0.0)
    assert (row["low"], row["median"], row["high"], row["unit"], row["saved_mb"]) == (2.0, 3.0, 4.0, "s", 0.0)
    assert bench_common.row("a", "b", "c", [7.0])["low"] == 7.0


@pytest.mark.parametrize("unit, times", [("s", 4.0), ("GB", 4.0), ("frames/s", 0.25)])
def test_a_ratio_is_above_one_when_the_contender_is_better(unit, times):
    rows = [bench_common.row("a", "b", who, [value], unit) for who, value in (("plain", 8.0), ("fast", 2.0))]
    found = bench_common.ratio(rows, "a", "b", "fast", "plain", goal=3.0)
    assert found[0]["times"] == times and found[0]["met"] is (times >= 3)


def test_there_is_no_ratio_to_what_was_not_measured():
    assert bench_common.ratio([bench_common.row("a", "b", "fast", [1.0])], "a", "b", "fast", "plain") == []


def test_contenders_take_turns_in_changing_order_after_warming_up():
    order = []
    runs = {name: (lambda name=name: order.append(name) or len(order)) for name in "ab"}
    found = bench_common.take_turns(runs, Protocol(warm_up=1, repeats=3))
    assert "".join(order) == "ab" + "ab" + "ba" + "ab" and found == {"a": [3, 6, 7], "b": [4, 5, 8]}


def test_no_new_round_begins_after_the_time_but_the_least_are_made():
    found = bench_common.take_turns({"a": lambda: 1}, Protocol(repeats=9, seconds=0.0, least=2))
    assert found == {"a": [1, 1]}


def test_a_contender_that_fails_is_out_and_the_others_go_on_and_are_told_of_each_round():
    lost, told, calls = {}, [], []

    def failing():
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("illegal address\nmore")
        return 1

    runs = {"a": failing, "b": lambda: 2}
    found = bench_common.take_turns(
        runs, Protocol(warm_up=0, repeats=3), lost, lambda so_far: told.append(dict(so_far))
    )
    assert found == {"b": [2, 2, 2]} and lost == {"a": "RuntimeError: illegal address"} and len(calls) == 2
    assert [set(each) for each in told] == [{"a", "b"}, {"b"}, {"b"}]
    with pytest.raises(RuntimeError):  # asked for without a place for it, it is not lost
        calls.pop()
        bench_common.take_turns({"a": failing}, Protocol())


def test_a_contender_that_breaks_the_gpu_ends_the_turns_and_is_named(monkeypatch):
    def gone():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(bench_common, "give_back", gone)
    with pytest.raises(bench_common.GpuLost, match="^a broke the GPU for this process: ValueError: its own$"):
        bench_common.take_turns({"a": failing_with("its own"), "b": lambda: 2}, Protocol(), {})


def failing_with(words):
    def fails():
        raise ValueError(words)

    return fails


def test_times_are_seconds_of_the_clock():
    times = bench_common.compete({"a": lambda: None}, CPU, Protocol(repeats=2, least=2))
    assert len(times["a"]) == 2 and all(0 <= each < 1 for each in times["a"])


def test_on_a_gpu_the_time_is_that_between_two_events(monkeypatch):
    done = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            done.append("event")

        def elapsed_time(self, last):
            return 2.5  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append("wait"))
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: done.append("sleep"), raising=False)
    work = lambda: done.append("work")
    assert bench_common.seconds_of(work, torch.device("cuda"), queued=True) == 0.0025
    assert done == ["wait", "sleep", "event", "work", "event", "wait"]


def test_presets_have_short_names_and_unknown_ones_are_refused():
    assert bench_common.preset_of("base") == bench_common.preset_of("bevformer_base")
    with pytest.raises(ConfigError, match="unknown preset: 'huge'"):
        bench_common.preset_of("huge")


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, words in (("cuda", "sees no GPU"), ("tpu", "--device tpu")):
        with pytest.raises(ConfigError, match=words):
            bench_common.device_of(name)


def document(kind="ops", **more):
    header = bench_common.begin(kind, ["--preset", "micro"], CPU, 0.0)
    return bench_common.finish(header, [bench_common.row("a", "b", "c", [1.0, 2.0])], **more)


def test_a_document_says_what_it_was_measured_with_and_is_read_back(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(bench_common.as_text(document(about="words")))
    found = bench_read.read(str(path))
    assert found["command"] == "python -m bevformer.bench ops --preset micro" and found["about"] == "words"
    assert found["host"]["cpus"] >= 1 and "scipy" in found["versions"] and "load_1m_before" in found
    assert '"all": [1.0, 2.0]' in path.read_text()  # a list of numbers is one line


def test_lists_of_words_survive_being_written_on_one_line():
    odd = {"a": ["x, y", "[1,  2]", "[\n1]"], "b": [], "c": [[1, -2.5e-3], [3], [float("inf")], [None, True]]}
    assert json.loads(bench_common.as_text(odd)) == odd


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "cannot read"),
        ('{"schema": ', "is no JSON"),
        ("[1, 2]", "is not from"),
        ('{"schema": "bevformer-bench/1", "kind": "other"}', "is not from"),
        ('{"schema": "bevformer-bench/1", "kind": "ops"}', "row 0"),
        ('{"schema": "bevformer-bench/1", "kind": "ops", "rows": [{"case": "a"}]}', "has no what, who, unit"),
    ],
)
def test_what_is_no_benchmark_is_refused_by_name(tmp_path, content, words):
    path = tmp_path / "b.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=words) as caught:
        bench_read.read(str(path))
    assert "b.json" in caught.value.seen


def test_the_parts_of_a_gpu_check_are_read_as_one_document(tmp_path):
    parts = [
        {"name": "machine", "found": {"gpu": "H200"}},
        {"found": document()},
        {"found": document("step")},
    ]
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"schema": gpu_check.SCHEMA, "parts": [*parts, {"found": None}]}))
    found = bench_read.read(str(path))
    assert found["kind"] == "gpu-check" and len(found["rows"]) == 2 and found["host"]["cpus"] >= 1


@pytest.mark.parametrize("parts", [None, 3, "x", {}, [None, 3, {"found": [1]}, {"found": {"rows": 4}}]])
def test_a_gpu_check_whose_parts_are_something_else_has_no_rows(tmp_path, parts):
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"schema": gpu_check.SCHEMA, "parts": parts}))
    assert bench_read.read(str(path))["rows"] == []


def test_of_a_gpu_check_the_machine_is_that_of_the_first_part_that_knows_it(tmp_path):
    path, parts = tmp_path / "gpu.json", [{"found": {"rows": [], "processes": 16}}, {"found": document()}]
    path.write_text(json.dumps({"schema": gpu_check.SCHEMA, "parts": parts}))
    assert bench_read.read(str(path))["host"]["cpus"] >= 1


@pytest.mark.parametrize("verb", ["--compare", "--plot"])
@pytest.mark.parametrize(
    "changes, in_row, words",
    [
        ({}, {"median": "fast"}, "row 0 of .* has no number"),
        ({}, {"median": None}, "row 0 of .* has no number"),
        ({}, {"median": True}, "row 0 of .* has no number"),
        ({}, {"median": float("nan")}, "row 0 of .* has no number"),
        ({}, {"median": 10**400}, "row 0 of .* has no number"),
        ({}, {"low": [1]}, "row 0 of .* has no number"),
        ({}, {"case": ["l"]}, "row 0 of .* that is no text"),
        ({}, {"who": None}, "row 0 of .* that is no text"),
        ({}, {"unit": {}}, "row 0 of .* that is no text"),
        ({"rows": {}}, {}, "row 0"),
        ({"rows": [3]}, {}, "row 0"),
        ({"host": "x"}, {}, "host of .* is no table"),
        ({"versions": [1]}, {}, "versions of .* is no table"),
        ({"commit": 5}, {}, "commit of .* is no text"),
        ({"time": {}}, {}, "time of .* is no text"),
        ({"kind": ["ops"]}, {}, "is not from"),
        ({"schema": []}, {}, "is not from"),
    ],
)
def test_what_was_changed_by_hand_is_refused_in_a_sentence(tmp_path, heard, verb, changes, in_row, words):
    broken, good, bad = document(), tmp_path / "a.json", tmp_path / "b.json"
    good.write_text(json.dumps(broken))
    broken["rows"][0].update(in_row)
    bad.write_text(json.dumps(dict(broken, **changes)))
    first = tmp_path / "picture.png" if verb == "--plot" else good
    with pytest.raises(DataError, match=words):
        bench.main([verb, str(first), str(bad)], heard)


@pytest.mark.parametrize("content", ["[" * 100000, "\xff\xfe", '{"a": 1' + "0" * 5000 + "}"])
def test_what_json_itself_cannot_read_is_refused(tmp_path, content):
    path = tmp_path / "b.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match="b.json"):
        bench_read.read(str(path))
