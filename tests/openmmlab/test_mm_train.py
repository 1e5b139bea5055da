"""mmcv's own runner, hooks, optimiser and data containers train the bundled model as our loop does."""

import copy
import logging

import mmcv
import numpy as np
import pytest
import torch
from mmcv.parallel import MMDataParallel, collate
from mmcv.runner import EpochBasedRunner, Hook
from mmcv.runner import build_optimizer as mmcv_optimizer
from mmdet.datasets import build_dataloader
from mmdet3d.datasets import build_dataset

import mm_case
from bevformer.amp import FULL, LossScale
from bevformer.boxes import legacy_to_new
from bevformer.checkpoint import load_checkpoint
from bevformer.loading import open_loader
from bevformer.optim import build_optimizer, lr_factor, set_lr
from bevformer.ranks import ALONE
from bevformer.step import Training, train_step

STEPS = 6


class Kept(Hook):
    def __init__(self):
        self.terms = []

    def after_train_iter(self, runner):
        self.terms.append(dict(runner.outputs["log_vars"]))


@pytest.fixture(scope="module")
def case(tmp_path_factory, synth):
    torch.manual_seed(0)
    return mm_case.both(tmp_path_factory.mktemp("config"), synth)


def of_our_loop(ours):
    model, order = copy.deepcopy(ours.model).train(), mm_case.order_of(ours)
    schedule = ours.config.schedule
    optimizer = build_optimizer(model, schedule, "loop")
    job = Training(model, optimizer, ours.train, order, schedule, 0, STEPS, LossScale(FULL))
    loader = open_loader(ours.train, order, ALONE, range(STEPS), 0)
    terms = []
    for step in range(STEPS):
        set_lr(optimizer, lr_factor(schedule, step, STEPS))
        terms.append(train_step(job, loader, step))
    return terms, model


def of_mmcvs_runner(case, folder):
    theirs, config = case.theirs, case.config
    model = MMDataParallel(copy.deepcopy(theirs.model), device_ids=[])
    data = mm_case.Steps(theirs.train, case.ours.train, mm_case.order_of(case.ours), STEPS)
    loader = build_dataloader(data, 1, 0, num_gpus=1, dist=False, shuffle=False)
    runner = EpochBasedRunner(
        model,
        optimizer=mmcv_optimizer(model, config.optimizer),
        work_dir=str(folder),
        logger=logging.getLogger("quiet"),
        max_epochs=24,
    )
    runner._max_epochs = 24
    kept = Kept()
    runner.register_training_hooks(
        config.lr_config, config.optimizer_config, dict(interval=1), dict(interval=2, hooks=[])
    )
    runner.register_hook(kept)
    runner.call_hook("before_run")
    runner.train(loader)
    return kept.terms, model.module


def test_the_losses_are_those_of_our_loop(case, tmp_path):
    ours, our_model = of_our_loop(case.ours)
    theirs, their_model = of_mmcvs_runner(case, tmp_path)
    assert len(theirs) == STEPS
    for mine, other in zip(ours, theirs):
        assert set(other) <= set(mine)
        assert {key: mine[key] for key in other} == pytest.approx(other, rel=2e-5)
    for key, value in our_model.state_dict().items():
        assert torch.allclose(value.double(), their_model.state_dict()[key].double(), atol=2e-6), key
    state = load_checkpoint(str(tmp_path / "epoch_1.pth"), copy.deepcopy(case.ours.model))["state_dict"]
    assert list(state) == list(their_model.state_dict())


def test_a_queue_is_the_sample_of_the_bundled_data_set(case):
    queue = [1, 2]
    np.random.seed(5)
    data = case.theirs.train.queue(queue)
    sample = case.ours.train.load_queue(queue, np.random.RandomState(5))
    for place, frame in enumerate(sample.frames):
        meta = data["img_metas"].data[place]
        assert torch.equal(data["img"].data[place], frame.images_NCHW)
        assert np.array_equal(np.stack(meta["lidar2img"]), frame.meta.lidar2img_N44)
        assert np.array_equal(meta["can_bus"], frame.meta.can_bus_18)
        assert meta["prev_bev_exists"] == frame.meta.prev_bev_exists
        assert meta["img_shape"][0][:2] == frame.meta.img_shape_hw
    assert torch.equal(data["gt_labels_3d"].data, sample.truth.labels_G)


def test_two_samples_on_one_device_are_a_batch(case):
    model, queues = copy.deepcopy(case.theirs.model).eval(), ([0, 1], [1, 2])
    data = [case.theirs.train.queue(queue) for queue in queues]
    batch = collate(data, samples_per_gpu=2)
    found = MMDataParallel(model, device_ids=[]).train_step(batch, None)
    samples = [case.ours.train.load_queue(queue, np.random.RandomState(0)) for queue in queues]
    for one, other in zip(samples, data):
        for place, frame in enumerate(one.frames):  # what was distorted differs: take the same images
            frame.images_NCHW.copy_(other["img"].data[place])
    wanted = case.ours.model.eval().loss(samples, np.random)
    assert found["num_samples"] == 2
    assert float(found["loss"]) == pytest.approx(float(sum(wanted.values())), rel=1e-5)


def test_prepared_files_of_mmdet3d_1_0_are_named_and_converted(case, tmp_path):
    part = copy.deepcopy(case.config.data.train)
    raw = mmcv.load(part.ann_file)
    for info in raw["infos"]:
        info["gt_boxes"] = legacy_to_new(info["gt_boxes"])
    part.ann_file = str(tmp_path / "nuscenes_infos_temporal_train.pkl")
    mmcv.dump({"infos": raw["infos"], "metadata": {"version": raw["metadata"]["version"]}}, part.ann_file)
    with pytest.warns(UserWarning, match="boxes were converted from the convention of mmdet3d 1.0"):
        other = build_dataset(part)
    for index in range(len(other)):
        one, two = (data.get_ann_info(index)["gt_bboxes_3d"] for data in (other, case.theirs.train))
        assert torch.allclose(one.corners, two.corners, atol=1e-4)
