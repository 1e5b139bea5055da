"""What is read of the files that a reproduction leaves, and what of it speaks against the recipe's result."""

import json
import pickle
from dataclasses import replace

import pytest

from bevrepro.drive import evidence
from bevrepro.drive.causes import causes_of
from bevrepro.drive.recipes import TRAIN, recipe
from bevrepro.probe.nuscenes import TABLES

np = pytest.importorskip("numpy")
MICRO = recipe("micro_synth")


def frame(at, scene="a", time=None):
    boxes = np.array([[10.0, 0, 0, 1.9, 4.6, 1.7, 0.1]])
    return {"token": str(at), "scene_token": scene, "timestamp": at if time is None else time, "prev": "",
            "next": "", "can_bus": np.ones(18), "frame_idx": at, "cams": {}, "lidar2ego_translation": [0] * 3,
            "ego2global_translation": [0] * 3, "gt_boxes": boxes, "gt_names": np.array(["car"])}  # fmt: skip


@pytest.fixture
def infos(tmp_path):
    """Writes the train infos; returns the folder."""

    def write(frames, **metadata):
        content = {"infos": frames, "metadata": {"version": "v1.0-mini", **metadata}}
        (tmp_path / "nuscenes_infos_temporal_train.pkl").write_bytes(pickle.dumps(content))
        return tmp_path

    return write


def seen(folder):
    return evidence.gather(MICRO, None, None, folder)


def turned(frames):
    for each in frames:
        each["gt_boxes"] = each["gt_boxes"][:, [0, 1, 2, 4, 3, 5, 6]]
    return frames


@pytest.mark.parametrize("metadata, fault", [
    ({"bevrepro_tables_digest": "x"}, True),  # a file of `data prepare`: its boxes are taken as they are
    ({"bevrepro_boxes": "0.17"}, True),
    ({}, False),  # of mmdet3d 1.0: the cars tell, and training converts them
    ({"bevrepro_tables_digest": "x", "bevrepro_boxes": "1.0"}, False),
])  # fmt: skip
def test_boxes_that_are_converted_are_no_fault(infos, metadata, fault):
    folder = infos(turned([frame(at) for at in range(4)]), **metadata)
    names = [each.name for each in causes_of(MICRO, TRAIN, seen(folder)) if each.stops]
    assert ("box convention" in names) == fault


def test_scenes_are_followed_in_the_order_of_time(infos):
    frames = [frame(0, "a"), frame(2, "a"), frame(1, "b", time=1), frame(3, "b"), frame(9, "a", time=9)]
    known = seen(infos(frames)).infos["train"]
    assert (known.scenes, known.stretches) == (2, 5)
    del frames[0]["timestamp"]
    assert seen(infos(frames)).infos["train"].stretches is None


def test_images_are_looked_for_below_the_one_data_root(tmp_path):
    (tmp_path / "v1.0-mini").mkdir()
    for name in TABLES:
        (tmp_path / "v1.0-mini" / f"{name}.json").write_text("[]")
    rows = [{"filename": f"samples/{kind}/{at}.x"} for kind in ("CAM_BACK", "LIDAR_TOP") for at in range(3)]
    (tmp_path / "v1.0-mini" / "sample_data.json").write_text(json.dumps(rows))
    known = evidence.gather(MICRO, None, None, None, (tmp_path,))
    assert known.images == (3, 3, "samples/CAM_BACK/0.x")
    (tmp_path / "samples" / "CAM_BACK").mkdir(parents=True)
    for at in range(3):  # cameras alone are enough: their keyframes are 46 of 315 GB
        (tmp_path / "samples" / "CAM_BACK" / f"{at}.x").touch()
    known = evidence.gather(MICRO, None, None, None, (tmp_path,))
    assert known.images == (0, 3, "") and causes_of(MICRO, TRAIN, known) == ()
    assert evidence.gather(MICRO, None, None, None, (tmp_path, tmp_path / "samples")).images is None


def test_a_data_root_that_is_none_stops(tmp_path):
    known = evidence.gather(MICRO, None, None, None, (tmp_path / "gone",))
    (cause,) = causes_of(MICRO, TRAIN, known)
    assert cause.stops and cause.name == "data that cannot be used" and "gone" in cause.seen


def test_the_frames_have_the_digest_that_a_run_records(infos):
    from bevformer.record import infos_digest

    frames = [frame(at) for at in (3, 1, 2)]
    for each in frames[:2]:  # two boxes that lie by column, as after [:, [...]]
        each["gt_boxes"] = np.asfortranarray(np.arange(14.0).reshape(2, 7))
        each["gt_names"] = np.array(["car", "bus"])
    digest = infos_digest(sorted(frames, key=lambda each: each["timestamp"]))
    known = seen(infos(frames, bevrepro_tables_digest="x"))
    assert known.infos["train"].digest == digest
    same, other = ({"infos_digest": each} for each in (digest, "f" * 64))
    told = [causes_of(MICRO, TRAIN, replace(known, run=run)) for run in (same, other)]
    assert ["other frames or boxes" in [cause.name for cause in each] for each in told] == [False, True]
