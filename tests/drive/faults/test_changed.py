"""A run goes on only as what it is: other frames, settings, ranks or seed are refused, with what differs."""

import pickle
import re
import shutil

import numpy as np
import pytest

pytestmark = pytest.mark.slow
INFOS = "nuscenes_infos_temporal_train.pkl"


@pytest.mark.parametrize(
    "more, options, code, said",
    [
        ((), ("schedule.lr=0.5",), 6, r"epoch_6\.pth was trained with: schedule\.lr: 0\.001 -> 0\.5"),
        ((), ("data.queue_length=3", "encoder.bev_h=9"), 6, r"queue_length: 2 -> 3; encoder\.bev_h: 8 -> 9"),
        (("--seed", "4"), (), 6, "--seed 4, but .*epoch_6.pth was trained with seed 3"),
        (("--emulate-gpus", "2"), (), 6, "trained with 1 ranks, this would go on with 2"),
        (("--amp", "bf16"), (), 6, "trained in fp32, this would go on in bf16"),
        (("--init-from", "x.pth"), (), 6, "started from random weights"),
    ],
)  # fmt: skip
def test_other_settings_are_refused_with_what_differs(training, whole, more, options, code, said):
    got, err = training.says(whole(), "--resume", "auto", *more, options=options)
    assert got == code and re.search(said, err) and re.search("another --work-dir|Leave", err), err


def moved_box(infos):
    infos[3]["gt_boxes"] = np.array(infos[3]["gt_boxes"]) + [0.1, 0, 0, 0, 0, 0, 0]


def lost_frame(infos):
    del infos[-1]


def other_can_bus(infos):
    for info in infos:
        info["can_bus"] = np.zeros(18)


def hidden_box(infos):
    infos[2]["valid_flag"] = ~np.array(infos[2]["valid_flag"], dtype=bool)


def other_velocity(infos):
    infos[1]["gt_velocity"] = np.array(infos[1]["gt_velocity"]) + 1.0


def other_camera(infos):
    infos[0]["cams"]["CAM_BACK"]["cam_intrinsic"] = (
        np.array(infos[0]["cams"]["CAM_BACK"]["cam_intrinsic"]) * 1.01
    )


@pytest.mark.parametrize(
    "change, said",
    [
        (moved_box, r"1 of \d+ has other boxes, such as \w+"),
        (hidden_box, r"1 of \d+ has other boxes, such as \w+"),
        (other_velocity, r"1 of \d+ has other boxes, such as \w+"),
        (lost_frame, r"1 of \d+ is missing, such as \w+"),
        (other_can_bus, r"(\d+) of \1 have other poses or calibration, such as \w+"),
        (other_camera, r"1 of \d+ has other poses or calibration, such as \w+"),
    ],
)
def test_other_frames_are_refused_with_what_differs(training, whole, tmp_path, change, said):
    shutil.copytree(training.infos, tmp_path / "infos", ignore=shutil.ignore_patterns("*.twin*"))
    content = pickle.loads((tmp_path / "infos" / INFOS).read_bytes())
    change(content["infos"])
    (tmp_path / "infos" / INFOS).write_bytes(pickle.dumps(content))
    changed = type(training)(training.frames, tmp_path / "infos")
    code, err = changed.says(whole(), "--resume", "auto")
    assert code == 4 and "the frames differ from those that" in err and re.search(said, err), err
    assert "another --work-dir" in err
