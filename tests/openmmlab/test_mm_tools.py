"""From a configuration file through mmdet's own training: validation, log, checkpoint, going on."""

import json

import mmcv
import pytest
import torch
from mmcv.parallel import MMDataParallel
from mmdet.apis import train_detector  # mmdet3d's own wants a GPU
from mmdet.datasets import build_dataloader
from mmdet3d.apis import single_gpu_test
from mmdet3d.datasets import build_dataset
from mmdet3d.models import build_model

import mm_case


@pytest.fixture(scope="module")
def trained(tmp_path_factory, synth):
    folder = tmp_path_factory.mktemp("run")
    config = mm_case.parsed(tmp_path_factory.mktemp("config"), synth)
    config.data.val = mmcv.ConfigDict(config.data.test, test_mode=True, samples_per_gpu=1)
    config.data.workers_per_gpu = 0
    config.merge_from_dict(
        dict(
            total_epochs=1,
            runner=dict(type="EpochBasedRunner", max_epochs=1),
            evaluation=dict(interval=1, pipeline=config.data.test.pipeline),
            checkpoint_config=dict(interval=1, meta=dict(CLASSES=("car",))),
            log_config=dict(interval=1, hooks=[dict(type="TextLoggerHook")]),
            workflow=[("train", 1)],
            work_dir=str(folder),
            log_level="ERROR",
            gpu_ids=[0],
            device="cpu",
            seed=0,
            resume_from=None,
            load_from=None,
        )
    )
    torch.manual_seed(2)
    model = build_model(config.model)
    model.init_weights()
    data = build_dataset(config.data.train)
    train_detector(model, data, config, validate=True, meta=dict(seed=0), timestamp="run")
    return folder, config, model


def test_each_iteration_is_logged_with_upstreams_terms(trained):
    folder, _, _ = trained
    rows = [json.loads(line) for line in (folder / "run.log.json").read_text().splitlines()]
    steps = [row for row in rows if row.get("mode") == "train"]
    assert len(steps) == 3 and all(
        {"loss", "loss_cls", "d0.loss_bbox", "grad_norm"} <= set(row) for row in steps
    )
    (score,) = [row for row in rows if row.get("mode") == "val"]
    assert 0 <= score["pts_bbox_NuScenes/NDS"] <= 1


def test_a_second_evaluation_finds_the_same(trained):
    _, config, model = trained
    loader = build_dataloader(build_dataset(config.data.test), 1, 0, num_gpus=1, dist=False, shuffle=False)
    runs = [single_gpu_test(MMDataParallel(model.eval(), device_ids=[]), loader) for _ in range(2)]
    for one, two in zip(*runs):
        assert torch.equal(one["pts_bbox"]["boxes_3d"].tensor, two["pts_bbox"]["boxes_3d"].tensor)


def test_it_goes_on_from_its_checkpoint(trained, tmp_path):
    folder, config, model = trained
    config = mmcv.Config(dict(config._cfg_dict))
    config.merge_from_dict(
        dict(
            resume_from=str(folder / "latest.pth"),
            total_epochs=2,
            runner=dict(max_epochs=2),
            work_dir=str(tmp_path),
        )
    )
    again = build_model(config.model)
    train_detector(again, build_dataset(config.data.train), config, meta=dict(seed=0), timestamp="more")
    rows = [json.loads(line) for line in (tmp_path / "more.log.json").read_text().splitlines()]
    assert [row["epoch"] for row in rows if row.get("mode") == "train"] == [2, 2, 2]
