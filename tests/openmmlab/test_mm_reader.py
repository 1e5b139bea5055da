"""Checkpoints by mmcv's own functions: the boxes that a file has learned are named, programs are refused."""

import logging
import os
import warnings

import mmdet3d
import numpy as np
import pytest
import torch
from mmcv import Config
from mmcv.runner import CheckpointLoader, EpochBasedRunner, load_checkpoint, save_checkpoint
from mmcv.utils import ConfigDict
from mmdet3d.apis import init_model
from mmdet3d.models import build_model

import bevformer.mm.register  # noqa: F401
from bevformer.errors import CheckpointError
from bevformer.mm import reader
from bevformer.mm.boxes import LEGACY, NEW, convention_of

SMALL = dict(type="BEVFormer", preset="bevformer_micro")
TOLD = {"0.17.1": "mmdet3d 0.17.1: its boxes are", "1.0.0rc6": "mmdet3d 1.0.0rc6. Its boxes are taken for"}


@pytest.fixture(scope="module")
def model():
    return build_model(ConfigDict(SMALL))


def saved(model, folder, **meta):
    path = str(folder / "epoch_24.pth")
    save_checkpoint(model, path, meta=meta)
    return path


def by_runner(model, path):
    EpochBasedRunner(model, logger=logging.getLogger("quiet"), max_epochs=1).load_checkpoint(path)


def by_init_model(model, path):
    init_model(mmdet_config(), path, device="cpu")


def mmdet_config():
    return Config(dict(model=dict(SMALL), data=dict(test=dict(type="CustomNuScenesDataset"))))


def by_init_cfg(model, path):
    build_model(ConfigDict(SMALL, init_cfg=dict(type="Pretrained", checkpoint=path))).init_weights()


READERS = [
    lambda model, path: load_checkpoint(model, path, map_location="cpu"),
    by_runner,
    by_init_model,
    by_init_cfg,
]


@pytest.mark.parametrize("read", READERS, ids=["load_checkpoint", "runner", "init_model", "init_cfg"])
@pytest.mark.parametrize("version", list(TOLD))
def test_every_way_of_mmcvs_names_the_boxes_of_a_file(model, tmp_path, read, version):
    path = saved(model, tmp_path, mmdet3d_version=version, CLASSES=("car",))
    silent = version.startswith("0.") and convention_of(mmdet3d.__version__) == LEGACY
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read(model, path)
    told = [str(each.message) for each in caught if "epoch_24.pth" in str(each.message)]
    assert [TOLD[version] in each for each in told] == [True] * (not silent)


@pytest.mark.parametrize("here, count", [(LEGACY, 0), (NEW, 1)])
def test_only_old_boxes_in_an_old_mmdet3d_need_no_word(model, tmp_path, monkeypatch, here, count):
    monkeypatch.setattr(reader, "BOXES", here)
    path = saved(model, tmp_path, mmdet3d_version="0.17.1")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_checkpoint(model, path, map_location="cpu")
    assert len([each for each in caught if "its boxes are" in str(each.message)]) == count


def test_other_models_and_files_without_a_version_are_read_without_a_word(model, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_checkpoint(model, saved(model, tmp_path, epoch=3), map_location="cpu")
        path = saved(torch.nn.Linear(2, 2), tmp_path, mmdet3d_version="0.17.1")
        assert CheckpointLoader.load_checkpoint(path)["meta"]["mmdet3d_version"] == "0.17.1"


def test_what_mmcv_writes_into_a_meta_comes_back(model, tmp_path):
    path = saved(
        model, tmp_path, config=ConfigDict(a=dict(b=1)), hook_msgs=dict(best_score=np.float64(0.375))
    )
    meta = CheckpointLoader.load_checkpoint(path)["meta"]
    assert meta["config"] == {"a": {"b": 1}} and meta["hook_msgs"]["best_score"] == 0.375


class Runs:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_what_could_run_is_refused_on_every_torch(tmp_path):
    torch.save({"state_dict": {}, "meta": Runs(tmp_path / "ran")}, str(tmp_path / "evil.pth"))
    with pytest.raises(CheckpointError, match="evil.pth carries"):
        load_checkpoint(torch.nn.Linear(1, 1), str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("address", ["open-mmlab://typo", "torchvision://resnet5", "elsewhere://x"])
def test_an_address_that_mmcv_does_not_know_is_named(address):
    start = dict(type="Pretrained", checkpoint=address)
    with pytest.raises(CheckpointError, match=address):
        build_model(ConfigDict(SMALL, init_cfg=start)).init_weights()


def test_what_mmcv_fetches_for_init_cfg_is_named_by_its_address(model, tmp_path, monkeypatch):
    path = saved(model, tmp_path, mmdet3d_version="1.0.0rc6")
    far = {"far://": lambda filename, map_location=None: torch.load(path)}
    monkeypatch.setattr(CheckpointLoader, "_schemes", {**far, **CheckpointLoader._schemes})
    start = dict(type="Pretrained", checkpoint="far://a")
    with pytest.warns(UserWarning, match="far://a: It was trained with mmdet3d 1.0.0rc6"):
        build_model(ConfigDict(SMALL, init_cfg=start)).init_weights()
