"""Upstream's own tools, patched, on a machine without a GPU: where BEVREPRO_BEVFORMER names a checkout."""

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(os.environ.get("BEVREPRO_BEVFORMER", "no-checkout"))
DATASET = CHECKOUT / "projects/mmdet3d_plugin/datasets/nuscenes_dataset.py"
PATCHED = DATASET.is_file() and "NUSCENES_ROOT" in DATASET.read_text()
NEEDED = "bevrepro patch apply bevformer-66b65f3 --tree BEVFormer; BEVREPRO_BEVFORMER=BEVFormer"
SMALL = """
_base_ = [{base!r}]
total_epochs = 1
runner = dict(max_epochs=1)
log_config = dict(_delete_=True, interval=1, hooks=[dict(type='TextLoggerHook')])
data = dict(workers_per_gpu=0)
model = dict(
    pretrained=None,
    img_backbone=dict(depth=18),
    img_neck=dict(in_channels=[512]),
    pts_bbox_head=dict(
        bev_h=10,
        bev_w=10,
        num_query=60,
        bbox_coder=dict(max_num=60),
        positional_encoding=dict(row_num_embed=10, col_num_embed=10),
        transformer=dict(encoder=dict(num_layers=1), decoder=dict(num_layers=2))))
"""
pytestmark = [
    pytest.mark.skipif(not PATCHED, reason=NEEDED),
    pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="upstream needs torchvision"),
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory, synth):
    """The work_dir after tools/train.py with validation, then tools/test.py, both from a folder elsewhere."""
    elsewhere, work = tmp_path_factory.mktemp("elsewhere"), tmp_path_factory.mktemp("work")
    config = work / "small.py"
    config.write_text(
        SMALL.format(base=str(CHECKOUT.resolve() / "projects/configs/bevformer/bevformer_tiny.py"))
    )
    train = ["train.py", config, "--work-dir", work]
    test = ["test.py", config, work / "latest.pth", "--eval", "bbox", "--out", work / "results.pkl"]
    for tool, *words in (train, [*test, "--cfg-options", "work_dir=" + str(work)]):
        done = subprocess.run(
            [sys.executable, str(CHECKOUT.resolve() / "tools" / tool), *map(str, words)],
            cwd=str(elsewhere),
            env=dict(
                os.environ, NUSCENES_ROOT=synth.root, NUSCENES_INFOS=synth.infos, CUDA_VISIBLE_DEVICES=""
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, done.stdout.decode()[-3000:]
    assert list(elsewhere.iterdir()) == []
    return work


def test_it_trains_without_a_launcher(ran):
    rows = [json.loads(line) for log in ran.glob("*.log.json") for line in log.read_text().splitlines()]
    losses = [row["loss"] for row in rows if row.get("mode") == "train"]
    assert len(losses) == 3 and all(0 < loss < 100 for loss in losses)


def test_its_own_test_gives_what_the_validation_gave(ran):
    (val,), (test,) = (sorted(ran.glob(each + "/**/metrics_summary.json")) for each in ("val", "test"))
    said = [json.loads(each.read_text()) for each in (val, test)]
    assert said[0]["nd_score"] == said[1]["nd_score"] and said[0]["label_aps"] == said[1]["label_aps"]


def test_the_results_are_written(ran):
    results = pickle.loads((ran / "results.pkl").read_bytes())
    assert len(results) == 3 and set(results[0]) == {"pts_bbox"}
