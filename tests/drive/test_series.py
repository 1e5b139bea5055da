"""Training logs of every kind that people have, as one shape."""

import json

import pytest

from bevrepro.core.errors import DataError
from bevrepro.drive.series import read_series

MMCV = """\
2022-06-14 10:00:00,001 - mmdet - INFO - Environment info:
PyTorch: 1.9.1+cu111
2022-06-14 10:00:00,002 - mmdet - INFO - Set random seed to 0, deterministic: True
2022-06-14 10:00:00,003 - mmdet - INFO - Config:
queue_length = 3
data = dict(
    samples_per_gpu=1,
    workers_per_gpu=4)
optimizer = dict(
    type='AdamW',
    lr=0.0002,
    paramwise_cfg=dict(custom_keys=dict(img_backbone=dict(lr_mult=0.1))))
gpu_ids = range(0, 8)
2022-06-14 10:01:00,000 - mmdet - INFO - Epoch [1][50/3517]\tlr: 7.973e-05, eta: 2 days, 1:00:00, time: 2.1, \
data_time: 0.06, memory: 6446, loss_cls: 1.2, d0.loss_cls: 1.2, loss: 23.5241, grad_norm: 61.4
2022-06-14 10:02:00,000 - mmdet - INFO - Epoch [1][100/3517]\tlr: 9.307e-05, eta: 2 days, time: 2.1, \
data_time: 0.06, memory: 6446, loss_cls: 1.1, loss_bbox: 1.9, loss: 21.1000, grad_norm: nan
2022-06-14 12:00:00,000 - mmdet - INFO - Epoch(val) [1][6019]\tpts_bbox_NuScenes/NDS: 0.2
2022-06-14 12:01:00,000 - mmdet - INFO - Epoch [2][50/3517]\tlr: 2.000e-04, eta: 2 days, loss: 19.0
"""
MMENGINE = """\
2023/05/01 12:00:00 - mmengine - INFO - Epoch(train)  [1][  50/3517]  lr: 7.97e-05  eta: 1 day, 2:00:00  \
time: 1.2000  data_time: 0.05  memory: 6446  grad_norm: 40.5000  loss: 30.1000  loss_cls: 1.0000
2023/05/01 12:00:00 - mmengine - INFO - Epoch(val) [1][6019/6019]    NuScenes metric/NDS: 0.3
"""


def write(tmp_path, name, text):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_mmcvs_text_log(tmp_path):
    found = read_series(write(tmp_path, "tiny.log", MMCV))
    assert found.kind == "mmcv .log" and found.per_epoch == 3517 and found.by_epoch
    assert sorted(found.steps()) == [50, 100, 3567]
    assert found.points[0].values == {"lr": 7.973e-05, "loss": 23.5241, "grad_norm": 61.4}
    assert found.points[1].values["grad_norm"] != found.points[1].values["grad_norm"]  # nan stays
    assert found.about == {"lr": 2e-4, "samples_per_gpu": 1, "queue_length": 3, "gpus": 8,
                           "torch": "1.9.1+cu111", "seed": "0"}  # fmt: skip


def test_mmcvs_json_log_learns_the_epochs_length_from_the_text_beside_it(tmp_path):
    lines = [{"env_info": "x", "seed": 0}, {"mode": "train", "epoch": 2, "iter": 50, "lr": 1e-4, "loss": 3.0},
             {"mode": "val", "epoch": 2, "iter": 6019, "loss": 1.0}]  # fmt: skip
    path = write(tmp_path, "a.log.json", "\n".join(map(json.dumps, lines)) + '\n{"mode": "tr')
    assert read_series(path).steps() == {}
    write(tmp_path, "a.log", MMCV)
    found = read_series(path)
    assert list(found.steps()) == [3567] and found.about["seed"] == 0 and found.kind == "mmcv .log.json"


def test_mmengines_text_and_scalars(tmp_path):
    found = read_series(write(tmp_path, "x.log", MMENGINE))
    assert found.kind == "mmengine .log" and found.points[0].values["grad_norm"] == 40.5
    line = {"lr": 7.97e-05, "grad_norm": 40.5, "loss": 30.1, "epoch": 1, "iter": 50, "step": 50}
    path = write(tmp_path, "20230501/vis_data/scalars.json", json.dumps(line) + '\n{"NDS": 0.3, "step": 1}\n')
    found = read_series(path)
    assert found.kind == "mmengine scalars" and list(found.steps()) == [50]
    assert read_series(tmp_path).points  # the folder finds one of them


def test_a_list_of_rates_is_read_as_the_models(tmp_path):
    text = json.dumps({"mode": "train", "epoch": 1, "iter": 5, "lr": [2e-5, 2e-4], "loss": 1.0})
    assert read_series(write(tmp_path, "a.log.json", text)).points[0].values["lr"] == 2e-4


def test_a_work_folder_joins_its_sessions_and_later_ones_win(tmp_path):
    def line(step, loss):
        return json.dumps({"mode": "train", "epoch": 1, "iter": step, "step": step, "lr": 1.0, "loss": loss})

    write(tmp_path, "20260101_000000.log.json", "\n".join((line(10, 3.0), line(20, 2.0))))
    write(tmp_path, "20260102_000000.log.json", "\n".join((line(20, 2.5), line(30, 1.0))))
    write(tmp_path, "run.json", json.dumps({"seed": 1, "steps_per_epoch": 40}))
    found = read_series(tmp_path)
    assert {step: point.values["loss"] for step, point in found.steps().items()} == {
        10: 3.0,
        20: 2.5,
        30: 1.0,
    }
    assert found.run["seed"] == 1 and not found.by_epoch


@pytest.mark.parametrize("text", ["", "nothing here\n", '{"a": 1}\n', "\x00\xff"])
def test_what_is_no_training_log_is_said_to_be_none(tmp_path, text):
    with pytest.raises(DataError, match="no line of a training"):
        read_series(write(tmp_path, "x.log", text))


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        read_series(tmp_path / "none.log")
    with pytest.raises(DataError, match="holds no training log"):
        read_series(tmp_path)


def epoch_lines(seed, steps, lr="2.000e-04", header=True):
    """A log of mmcv, a line every 50 of 200 steps per epoch."""
    text = f"2022 - mmdet - INFO - Set random seed to {seed}, deterministic: True\n" if header else ""
    for step in steps:
        epoch, place = divmod(step - 1, 200)
        text += (f"2022 - mmdet - INFO - Epoch [{epoch + 1}][{place + 1}/200]\tlr: {lr}, eta: 1:00, "
                 f"loss: {seed + step / 1000:.4f}, grad_norm: 12.5000\n")  # fmt: skip
    return text


def test_of_several_runs_in_one_file_the_last_counts(tmp_path):
    first, second = epoch_lines(1, range(50, 401, 50)), epoch_lines(2, range(50, 301, 50))
    found = read_series(write(tmp_path, "all.log", first + second))
    assert found.dropped == 1 and found.about["seed"] == "2" and max(found.steps()) == 300
    assert all(point.values["loss"] > 2 for point in found.points)


def test_a_run_that_went_on_is_one_run_and_its_later_lines_win(tmp_path):
    went_on = epoch_lines(1, range(50, 351, 50)) + epoch_lines(2, range(250, 501, 50))
    found = read_series(write(tmp_path, "resumed.log", went_on))
    assert found.dropped == 0 and found.about["seed"] == "1" and len(found.points) == 10
    assert found.steps()[200].values["loss"] < 2 < found.steps()[250].values["loss"]


@pytest.mark.parametrize("cut, points, last", [(1, 8, {"lr", "loss"}), (22, 7, None), (40, 7, None)])
def test_a_number_that_the_end_of_the_file_cut_is_left_out(tmp_path, cut, points, last):
    text = epoch_lines(1, range(50, 401, 50))
    found = read_series(write(tmp_path, "cut.log", text[:-cut]))
    assert len(found.points) == points and (last is None or set(found.points[-1].values) == last)


def test_json_logs_of_several_runs_too(tmp_path):
    lines = [{"mode": "train", "epoch": 1, "iter": place, "lr": 1e-4, "loss": loss}
             for loss in (9.0, 3.0) for place in (50, 100)]  # fmt: skip
    found = read_series(write(tmp_path, "a.log.json", "\n".join(map(json.dumps, lines))))
    assert found.dropped == 1 and [point.values["loss"] for point in found.points] == [3.0, 3.0]


def test_sessions_are_joined_in_the_order_of_their_numbers(tmp_path):
    for number in (2, 10):
        line = {"mode": "train", "iter": 20, "step": 20, "lr": 1.0, "loss": float(number)}
        begin = {"mode": "train", "iter": 10, "step": 10, "lr": 1.0, "loss": 0.5}
        text = "\n".join(map(json.dumps, [begin, line] if number == 2 else [line]))
        write(tmp_path, f"20260101_000000_{number}.log.json", text)
    assert read_series(tmp_path).steps()[20].values["loss"] == 10.0


@pytest.mark.slow
def test_a_log_of_100_mb_takes_seconds_and_little_memory(tmp_path):
    """Counted with tracemalloc, which makes it several times slower."""
    import tracemalloc

    path, head = tmp_path / "big.log", "x" * 330
    with path.open("w") as file:
        file.write(
            "2022 - mmdet - INFO - Set random seed to 7, deterministic: True\n" + "config line\n" * 50_000
        )
        for step in range(50, 50 * 240_000, 50):
            epoch, place = divmod(step - 1, 3500)
            file.write(f"2022 - mmdet - INFO - Epoch [{epoch + 1}][{place + 1}/3500]\tlr: 2.000e-04, {head}, "
                       f"loss: {step / 7:.4f}, grad_norm: 12.5\n")  # fmt: skip
    assert path.stat().st_size > 100e6
    tracemalloc.start()
    found = read_series(path)
    peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert len(found.points) == 239_999 and found.about["seed"] == "7" and peak_mb < 250
