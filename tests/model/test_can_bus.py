"""Ego motion as upstream's converter and data set make it."""

import copy
import json

import numpy as np
import pytest

from bevformer.data import can_bus
from bevformer.data.store import open_store
from bevformer.errors import DataError


def message(utime, value):
    return dict(
        accel=[value, 0, 0], orientation=[1, 0, 0, value], pos=[value] * 3, rotation_rate=[value] * 3,
        utime=utime, vel=[value] * 3,
    )  # fmt: skip


def upstream(messages, stamp):
    """The converter's own statements, on a copy because it empties the message."""
    pose_list = copy.deepcopy(messages)
    numbers = []
    last_pose = pose_list[0]
    for pose in pose_list:
        if pose["utime"] > stamp:
            break
        last_pose = pose
    last_pose.pop("utime")
    numbers.extend(last_pose.pop("pos"))
    numbers.extend(last_pose.pop("orientation"))
    for key in last_pose:
        numbers.extend(pose[key])
    return np.array([*numbers, 0.0, 0.0])


@pytest.mark.parametrize("stamp", (5, 10, 15, 20, 25, 30, 99))
def test_the_same_18_numbers_as_the_converter_also_before_the_first_and_after_the_last(stamp):
    messages = [message(10 * k, float(k)) for k in (1, 2, 3)]
    np.testing.assert_array_equal(can_bus.can_bus_at(messages, stamp), upstream(messages, stamp))


def test_position_is_of_the_last_message_before_and_acceleration_of_the_one_after():
    row = can_bus.can_bus_at([message(10, 1.0), message(20, 2.0)], 15)
    assert (row[0], row[6], row[7], row[15]) == (1.0, 1.0, 2.0, 2.0)


def test_a_real_recording_is_read(shared):
    messages = can_bus.pose_messages(open_store([str(shared / "data")]), "scene-0103")
    row = can_bus.can_bus_at(messages, messages[100]["utime"] + 1)
    np.testing.assert_array_equal(row, upstream(messages, messages[100]["utime"] + 1))
    assert row.shape == (18,) and abs(row[9] - 9.8) < 1


def test_scenes_that_nuscenes_lists_as_without_can_are_zero_even_with_a_file(tmp_path):
    (tmp_path / "can_bus").mkdir()
    for name in ("scene-0161", "scene-0162", "scene-0169"):
        (tmp_path / "can_bus" / (name + "_pose.json")).write_text(json.dumps([message(1, 1.0)]))
    store = open_store([str(tmp_path)])
    assert can_bus.pose_messages(store, "scene-0161") is None
    assert can_bus.pose_messages(store, "scene-0999") is None
    assert len(can_bus.pose_messages(store, "scene-0169")) == 1
    assert not can_bus.can_bus_at(None, 5).any()


def test_the_blacklist_is_the_devkits(tmp_path):
    from nuscenes.can_bus.can_bus_api import NuScenesCanBus

    (tmp_path / "can_bus").mkdir()
    assert can_bus.WITHOUT_CAN == set(NuScenesCanBus(str(tmp_path)).can_blacklist)


def damaged(key, value):
    return json.dumps([message(1, 1.0), dict(message(2, 1.0), **{key: value})])


@pytest.mark.parametrize(
    "text",
    (
        "[{",
        '{"a": 1}',
        '[{"utime": 1}]',
        "[7]",
        '["pos"]',
        "[" * 10000,
        damaged("vel", [1, 2, float("nan")]),
        damaged("vel", [1, 2, 10**400]),
        damaged("vel", [1, 2]),
        damaged("vel", "abc"),
        damaged("vel", [1, 2, "3"]),
        damaged("utime", float("inf")),
        damaged("utime", None),
    ),
)
def test_a_broken_recording_is_named_instead_of_becoming_zero(tmp_path, text):
    (tmp_path / "can_bus").mkdir()
    (tmp_path / "can_bus/scene-0001_pose.json").write_text(text)
    with pytest.raises(DataError, match="scene-0001_pose.json"):
        can_bus.pose_messages(open_store([str(tmp_path)]), "scene-0001")


@pytest.mark.parametrize("yaw_deg, expected", ((30.0, 30.0), (-30.0, 330.0), (180.0, 180.0), (-179.0, 181.0)))
def test_the_ego_pose_fills_in_with_yaw_from_0_to_360(yaw_deg, expected):
    half = np.radians(yaw_deg) / 2
    row = can_bus.with_ego_pose(np.full(18, 7.0), [1, 2, 3], [np.cos(half), 0, 0, np.sin(half)])
    np.testing.assert_allclose(row[:4], [1, 2, 3, np.cos(half)])
    np.testing.assert_allclose(row[16:], [np.radians(expected), expected])
    assert (row[7:16] == 7).all()


def test_a_queue_holds_differences_and_starts_anew_with_a_scene():
    rows = np.arange(4 * 18, dtype=float).reshape(4, 18)
    rows[1, 17], rows[0, 17] = 1.0, 359.0
    out = can_bus.queue_differences(rows, ["a", "a", "b", "b"])
    np.testing.assert_array_equal(out[:, 0], [0, 18, 0, 18])
    np.testing.assert_array_equal(out[:, 17], [0, -358, 0, 18])  # the wrap is kept
    np.testing.assert_array_equal(out[:, 3:17], rows[:, 3:17])
