"""Reading results files: sample by sample, and everything that the devkit would refuse is a sentence."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from peak import rise_kib  # noqa: E402

from bevformer import results_read  # noqa: E402
from bevformer.errors import DataError  # noqa: E402
from bevformer.results import META, ResultsWriter  # noqa: E402
from bevformer.results_read import ATTRIBUTES, Results, check_submission  # noqa: E402


def box(token="a", **changes):
    entry = dict(
        sample_token=token,
        translation=[1.0, 2.0, 3.0],
        size=[1.0, 2.0, 3.0],
        rotation=[1.0, 0.0, 0.0, 0.0],
        velocity=[0.0, float("nan")],
        detection_name="car",
        detection_score=0.5,
        attribute_name="vehicle.parked",
    )
    return {**entry, **changes}


@pytest.fixture
def file(tmp_path):
    """Writes a results file of {token: boxes}; returns its path."""

    def write(samples, meta=META):
        (tmp_path / "r.json").write_text(json.dumps({"meta": meta, "results": samples}))
        return str(tmp_path / "r.json")

    return write


def read(path, **wanted):
    results = Results(path)
    return dict(results.samples(**wanted)), results.meta


def test_what_was_written_is_read_back(tmp_path):
    path = str(tmp_path / "r.json")
    with ResultsWriter(path) as writer:
        writer.add("a", [])
        writer.add("b", [box("b", velocity=[0.5, 1e-9])])
    assert read(path) == ({"a": [], "b": [box("b", velocity=[0.5, 1e-9])]}, META)


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_may_end_anywhere(file, monkeypatch, block):
    samples = {name: [box(name, velocity=[-1.5e-3, 12.0])] * 3 for name in ("a", 'b \\" \u00e9')}
    monkeypatch.setattr(results_read, "BLOCK_CHARS", block)
    assert read(file(samples)) == (samples, META)


def test_meta_may_come_last_and_other_keys_are_passed_over(tmp_path):
    (tmp_path / "r.json").write_text('{"results": {"a": []}, "more": [1], "meta": {"use_map": true}} \n')
    assert read(str(tmp_path / "r.json")) == ({"a": []}, {"use_map": True})


def test_only_wanted_samples_are_kept(file):
    assert list(read(file({"a": [box()], "b": ["not looked at"]}), wanted=lambda token: token == "a")[0]) == [
        "a"
    ]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"meta": {}}', '{"meta": {}, "results": []}', "\x00", '{"a": 1} x']
)
def test_other_files_are_not_results(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match="not a nuScenes results file"):
        read(str(tmp_path / "r.json"))


def test_what_is_no_text_or_not_there_is_a_sentence(tmp_path):
    (tmp_path / "r.json").write_bytes(b"\x80\x02}q\xff")
    with pytest.raises(DataError, match="it is no text"):
        read(str(tmp_path / "r.json"))
    with pytest.raises(DataError, match="no results file"):
        read(str(tmp_path / "none.json"))
    with pytest.raises(DataError, match="cannot read"):
        read(str(tmp_path))


def test_a_file_cut_anywhere_is_refused(file):
    path = file({"a": [box(velocity=[0.0, 1.5])], "b": []})
    with open(path) as whole:
        text = whole.read()
    for end in range(len(text)):
        with open(path, "w") as part:
            part.write(text[:end])
        with pytest.raises(DataError, match="cut short|not a nuScenes results file"):
            read(path)


@pytest.mark.parametrize(
    "changes, seen",
    [
        (dict(detection_score=1), "detection_score is 1 and not a float"),
        (dict(detection_score="0.5"), "not a float"),
        (dict(detection_score=float("nan")), "detection_score is nan"),
        (dict(detection_score=float("inf")), "detection_score is inf"),
        (dict(translation=[float("nan"), 0.0, 0.0]), "translation is"),
        (dict(size=[1.0, 2.0]), "not 3 numbers"),
        (dict(rotation=None), "not 4 numbers"),
        (dict(velocity=["a", "b"]), "wrong kind"),
        (dict(detection_name="animal"), "not one of the ten classes"),
        (dict(detection_name=["car"]), "wrong kind"),
        (dict(attribute_name="vehicle.flying"), "attribute_name"),
        (dict(sample_token="b"), "sample_token is 'b'"),
    ],
)
def test_a_box_that_the_devkit_refuses_is_named(file, changes, seen):
    with pytest.raises(DataError, match="r.json, sample a: box 1: .*" + seen):
        read(file({"a": [box(), box(**changes)]}))


@pytest.mark.parametrize(
    "boxes, seen",
    [
        ([box()] * 501, "501 boxes, and nuScenes allows 500"),
        ({}, "and not a list"),
        ([3], "box 0: it is 3"),
        ([{"sample_token": "a"}], "it has no 'translation'"),
    ],
)
def test_samples_of_another_form_are_refused(file, boxes, seen):
    with pytest.raises(DataError, match=seen):
        read(file({"a": boxes}))


def test_a_sample_given_twice_is_refused(tmp_path):
    (tmp_path / "r.json").write_text('{"meta": {}, "results": {"a": [], "a": []}}')
    with pytest.raises(DataError, match="sample a twice"):
        read(str(tmp_path / "r.json"))


def test_a_value_without_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(results_read, "MAX_VALUE_CHARS", 1000)
    monkeypatch.setattr(results_read, "BLOCK_CHARS", 100)
    (tmp_path / "r.json").write_text('{"meta": {}, "results": {"a": [' + "0, " * 10000)
    with pytest.raises(DataError, match="longer than any sample"):
        read(str(tmp_path / "r.json"))


def test_memory_does_not_grow_with_the_file(tmp_path):
    with ResultsWriter(str(tmp_path / "r.json")) as writer:
        for number in range(300):
            writer.add("t%d" % number, [box("t%d" % number)] * 300)  # 23 MB, 150 MB as Python objects
    with rise_kib() as found:
        assert sum(1 for _ in Results(str(tmp_path / "r.json")).samples()) == 300
    assert found[0] < 60 << 10


def test_what_the_test_server_asks_for_is_checked(file):
    assert check_submission(file({"a": [box()], "b": []}), ["a", "b"]) == 1
    with pytest.raises(DataError, match="lacks 1 of 3, such as c"):
        check_submission(file({"a": [], "b": []}), ["a", "b", "c"])
    with pytest.raises(DataError, match="has other samples than the infos: 1 of 1, such as b"):
        check_submission(file({"a": [], "b": []}), ["a"])
    with pytest.raises(DataError, match="does not say use_map, use_external"):
        check_submission(file({"a": []}, dict(use_camera=True, use_lidar=False, use_radar=False)), ["a"])


def test_attributes_are_the_devkits():
    from nuscenes.eval.detection.constants import ATTRIBUTE_NAMES

    assert ATTRIBUTES == {"", *ATTRIBUTE_NAMES}
