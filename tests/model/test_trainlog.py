"""`<ts>.log` and `<ts>.log.json` as the scripts of OpenMMLab read them."""

import json
import re
from collections import defaultdict

import pytest

from bevformer import trainlog, usage
from bevformer.trainlog import TrainLog

EPOCHS, STEPS, EVERY = 3, 7, 3
SCORES = {
    "pts_bbox_NuScenes/car_AP_dist_0.5": 0.1,
    "pts_bbox_NuScenes/NDS": 0.5,
    "pts_bbox_NuScenes/mAP": 0.25,
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """(text lines, JSON lines) of three epochs with a validation after each."""
    monkeypatch.setattr(trainlog, "peak_mib", lambda: 6446)
    log = TrainLog(str(tmp_path), EVERY, EPOCHS * STEPS, STEPS, by_epoch=True)
    log.header(exp_name="tiny", seed=0)
    for step in range(EPOCHS * STEPS):
        terms = {
            "loss_cls": 1.0,
            "d0.loss_cls": 2.0,
            "loss": 3.0,
            "grad_norm": 4.0,
            "time": 0.5,
            "data_time": 0.1,
        }
        log.step(step, 2e-4, terms)
        if (step + 1) % STEPS == 0:
            log.validated(step + 1, 2e-4, SCORES)
    log.close()
    text, lines = (
        (tmp_path / name).read_text().splitlines() for name in sorted(p.name for p in tmp_path.iterdir())
    )
    return text, [json.loads(line) for line in lines]


def test_each_epoch_counts_anew_and_ends_with_a_line(files):
    places = [(line["epoch"], line["iter"]) for line in files[1] if line.get("mode") == "train"]
    assert places == [(epoch, place) for epoch in (1, 2, 3) for place in (3, 6, 7)]


def test_mmdet_2_draws_losses_and_scores(files):
    """Its analyze_logs.py: by `epoch`; the last line of an epoch may be a validation."""
    by_epoch = defaultdict(lambda: defaultdict(list))
    for line in files[1]:
        for key, value in line.items() if "epoch" in line else ():
            by_epoch[line["epoch"]][key].append(value)
    assert list(by_epoch) == [1, 2, 3]
    for found in by_epoch.values():
        assert found["mode"] == ["train"] * 3 + ["val"]
        assert (
            len(found["iter"][:-1]) == len(found["loss"]) == len(found["time"]) == len(found["memory"]) == 3
        )
        assert found["pts_bbox_NuScenes/mAP"] == [0.25]


def test_mmdet3d_1_draws_losses_and_scores(files):
    """Its analyze_logs.py: keys after the first one with a slash are left out, `step` is the x axis."""
    found = defaultdict(list)
    for line in files[1]:
        scores = [place for place, key in enumerate(line) if "/" in key]
        for key in list(line)[: scores[0] if scores else None]:
            found[key].append(line[key])
    assert len(found["step"]) == len(found["loss"]) == EPOCHS * 3


def test_a_line_of_text_is_cut_up_as_mmcvs(files):
    line = next(text for text in files[0] if "Epoch [2][6/7]" in text)
    words = (
        r"Epoch \[2\]\[6/7\]\tlr: 2\.000e-04, eta: 0:00:00, time: 0\.500, data_time: 0\.100, memory: 6446, "
    )
    assert re.search(
        words + r"loss_cls: 1\.0000, d0\.loss_cls: 2\.0000, loss: 3\.0000, grad_norm: 4\.0000$", line
    )
    assert any("Epoch(val) [3]" in text and "NuScenes/NDS: 0.5000" in text for text in files[0])


def test_memory_is_that_of_this_process():
    assert 10 < usage.peak_mib() < 10**6
