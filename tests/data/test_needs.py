"""What a task needs, and the smallest download for what is missing."""

import pytest

from bevrepro.data.needs import Piece, by_counts, judge, pieces_of, tasks, wanted

TASKS = {task.id: task for task in tasks()}
TRAINVAL = "v1.0-trainval"
TABLES = pieces_of("meta", TRAINVAL, None)
CAN = pieces_of("can_bus", "", None)


def parts(kind, numbers=range(1, 11)):
    return frozenset(piece for number in numbers for piece in pieces_of(kind, TRAINVAL, number))


def test_cameras_only_needs_46_gb_and_not_315():
    state = judge(TASKS["camera"], ())
    assert len(state.fetch) == 12 and 46.0e9 < state.fetch_b < 46.3e9
    assert sum(each.name.endswith("_keyframes.tgz") for each in state.fetch) == 10


@pytest.mark.parametrize("kind", ["blobs", "keyframes", "camera"])
def test_any_archive_with_the_cameras_will_do(kind):
    assert judge(TASKS["camera"], TABLES | CAN | parts(kind)).complete


@pytest.mark.parametrize("kind", ["lidar", "radar"])
def test_other_sensors_do_not_make_up_for_cameras(kind):
    state = judge(TASKS["camera"], TABLES | CAN | parts(kind))
    assert len(state.missing) == 10


def test_kinds_may_be_mixed_part_by_part():
    here = (
        TABLES | CAN | parts("blobs", (1, 2)) | parts("camera", (3, 4)) | parts("keyframes", (5, 6, 8, 9, 10))
    )
    state = judge(TASKS["camera"], here)
    assert [each.name for each in state.fetch] == ["v1.0-trainval07_keyframes.tgz"]
    assert (state.have, state.of) == (11, 12)


def test_lidar_on_top_of_keyframes_fetches_the_lidar_archives_only():
    state = judge(TASKS["lidar"], TABLES | parts("keyframes"))
    assert {each.name[15:] for each in state.fetch} == {"_blobs_lidar.tgz"} and all(
        each.about for each in state.fetch
    )


@pytest.mark.parametrize("task, names", [
    ("mini", ["v1.0-mini.tgz", "can_bus.zip"]),
    ("test", ["v1.0-test_meta.tgz", "v1.0-test_blobs.tgz", "can_bus.zip"]),
])  # fmt: skip
def test_the_small_tasks(task, names):
    assert [each.name for each in judge(TASKS[task], ()).fetch] == names


def test_an_archive_of_an_unknown_part_brings_no_pictures():
    assert pieces_of("blobs", "", None) == frozenset()
    assert pieces_of("set", TRAINVAL, None) == TABLES


def test_nothing_that_bevformer_does_not_read_is_asked_for():
    assert not {piece.what for task in TASKS.values() for piece in wanted(task)} & {"radar", "camera_sweeps"}


@pytest.mark.parametrize(
    "count, samples, complete",
    [
        (34149, {TRAINVAL: 34149}, True),
        (34148, {TRAINVAL: 34149}, False),
        (34149, {TRAINVAL: 34149, "v1.0-test": 6008}, False),
        (40157, {TRAINVAL: 34149, "v1.0-test": 6008}, True),
        (404, {TRAINVAL: 34149, "v1.0-mini": 404}, False),
        (None, {TRAINVAL: 34149}, False),
    ],
)
def test_a_folder_is_judged_by_its_number_of_files(count, samples, complete):
    found = by_counts({"cameras": count}, samples)
    assert (Piece("cameras", TRAINVAL, 7) in found) is complete
