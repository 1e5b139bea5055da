"""Checkpoints are written whole and as upstream writes them, loaded strictly, and say what they are."""

import inspect
import os
import re
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bevformer import atomic
from bevformer.atomic import link_latest
from bevformer.checkpoint import load_checkpoint, load_weights, notes_on, save_checkpoint
from bevformer.config import override, preset
from bevformer.detector import build_model
from bevformer.errors import CheckpointError, DiskError
from bevformer.key_tables import weightless_model
from bevformer.work_folder import checkpoint_meta

sys.path.insert(0, str(Path(__file__).parent))
import fake_weights as fake  # noqa: E402

GRID = r"bev_embedding\.weight is \(22500, 256\), not \(2500, 256\): a BEV grid of 22500 cells, not 2500"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


@pytest.fixture(scope="module")
def micro():
    return build_model(preset("bevformer_micro"))


@pytest.fixture(scope="module")
def on_meta():
    """A preset's model without memory: enough for everything that stops before weights are copied."""

    return lambda name: weightless_model(preset(name))


def test_round_trip_keeps_weights_optimizer_and_meta(tmp_path, model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    path = str(tmp_path / "iter_1.pth")
    save_checkpoint(path, model, optimizer, {"iter": 1, "CLASSES": ["car"]})
    other = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    content = load_checkpoint(path, other)
    assert content["meta"] == {"iter": 1, "CLASSES": ["car"]}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters()))
    torch.optim.AdamW(other.parameters()).load_state_dict(content["optimizer"])


def test_upstreams_tools_find_what_they_read(tmp_path, micro):
    config = preset("bevformer_micro")
    meta = dict(checkpoint_meta(config, 3, "digest", None), epoch=2, iter=10, time="2026-01-01 00:00:00")
    save_checkpoint(str(tmp_path / "epoch_2.pth"), micro, torch.optim.AdamW(micro.parameters()), meta)
    careful = {"weights_only": True} if "weights_only" in inspect.signature(torch.load).parameters else {}
    content = torch.load(str(tmp_path / "epoch_2.pth"), **careful)
    assert set(content) == {"meta", "state_dict", "optimizer"}
    assert {"epoch", "iter", "time", "config", "CLASSES", "PALETTE", "exp_name", "seed"} <= set(
        content["meta"]
    )
    assert list(content["state_dict"]) == list(micro.state_dict())
    assert all(
        value.is_contiguous() and value.device.type == "cpu" for value in content["state_dict"].values()
    )


def test_stored_configuration_is_python_as_mmcv_reads_it_back():
    names = {}
    exec(checkpoint_meta(preset("bevformer_tiny"), 0, "", None)["config"], names)
    assert names["encoder"]["bev_h"] == 50 and names["encoder"]["shift_current_reference"] is False


def test_tensors_in_another_layout_are_written_contiguous(tmp_path):
    model = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    save_checkpoint(str(tmp_path / "a.pth"), model)
    assert torch.load(str(tmp_path / "a.pth"))["state_dict"]["weight"].is_contiguous()


def test_full_disk_leaves_the_old_file_and_no_litter(tmp_path, model, monkeypatch):
    path = str(tmp_path / "a.pth")
    save_checkpoint(path, model, meta={"iter": 1})

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(DiskError, match="No space left"):
        save_checkpoint(path, model, meta={"iter": 2})
    assert load_checkpoint(path)["meta"] == {"iter": 1}
    assert os.listdir(str(tmp_path)) == ["a.pth"]


def test_disk_that_fills_while_torch_writes_is_a_sentence(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200000, hard))
    try:
        with pytest.raises(DiskError, match="could not write .*a.pth"):
            save_checkpoint(str(tmp_path / "a.pth"), nn.Linear(500, 500))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(str(tmp_path)) == []


def test_latest_follows_the_newest(tmp_path, model):
    for step in (1, 2):
        path = str(tmp_path / f"iter_{step}.pth")
        save_checkpoint(path, model, meta={"iter": step})
        link_latest(path)
    assert load_checkpoint(str(tmp_path / "latest.pth"))["meta"] == {"iter": 2}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_upstream_file_with_numpy_in_its_meta_loads(tmp_path, micro, zipped, prefix):
    state = {prefix + key: value for key, value in micro.state_dict().items()}
    path = str(tmp_path / "epoch_24.pth")
    torch.save(fake.upstream_file(state), path, _use_new_zipfile_serialization=zipped)
    meta = load_checkpoint(path, micro)["meta"]
    assert (meta["epoch"], int(meta["seed"]), meta["CLASSES"]) == (24, 0, ("car", "truck"))


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {"ema_state_dict": s}])
def test_other_wrappers_around_one_set_of_weights_are_accepted(tmp_path, micro, wrap):
    torch.save(wrap(micro.state_dict()), str(tmp_path / "bare.pth"))
    assert set(load_checkpoint(str(tmp_path / "bare.pth"), micro)["state_dict"]) == set(micro.state_dict())


def test_two_sets_of_weights_are_not_chosen_between(tmp_path, model):
    torch.save(
        {"state_dict": model.state_dict(), "ema_state_dict": model.state_dict()}, str(tmp_path / "a.pth")
    )
    with pytest.raises(CheckpointError, match="two sets of weights: state_dict and ema_state_dict"):
        load_checkpoint(str(tmp_path / "a.pth"))


def test_keys_with_and_without_prefix_are_not_chosen_between(tmp_path):
    torch.save({"w": torch.ones(1), "module.w": torch.zeros(1)}, str(tmp_path / "a.pth"))
    with pytest.raises(CheckpointError, match="with and without"):
        load_checkpoint(str(tmp_path / "a.pth"))


def test_file_saved_on_a_gpu_loads_where_there_is_none(tmp_path, model, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:3")
    torch.save({"state_dict": model.state_dict()}, str(tmp_path / "a.pth"))
    state = load_checkpoint(str(tmp_path / "a.pth"), model)["state_dict"]
    assert all(value.device.type == "cpu" for value in state.values())


def test_half_precision_widens_and_integers_are_refused(model):
    half = {key: value.half() for key, value in model.state_dict().items()}
    load_weights(model, half)
    assert model[0].weight.dtype == torch.float32 and torch.equal(model[0].weight, half["0.weight"].float())
    with pytest.raises(CheckpointError, match=r"x\.pth: 1\.bias is int64, the model's is float32"):
        load_weights(model, {**half, "1.bias": half["1.bias"].long()}, "x.pth")
    with pytest.raises(CheckpointError, match="sparse"):
        load_weights(model, {**half, "0.weight": half["0.weight"].float().to_sparse()})


@pytest.mark.parametrize(
    "state, wanted, seen, why, do",
    [
        (fake.fcos3d, "base", "bbox_head 2", "FCOS3D", "train bevformer_base --init-from f.pth"),
        (fake.fcos3d, "tiny", "bbox_head 2", "ResNet-101 with DCNv2", r"small\|bevformer_base --init"),
        (lambda: fake.expanded({"layer1.0.conv1.weight": (1,), "conv1.weight": (1,)}), "tiny",
         "conv1 1", "ImageNet", "of no preset"),
        (fake.imagenet, "tiny", "590 of the model's 643", "ImageNet", "bevformer_tiny --init-from f.pth"),
        (lambda: fake.with_ema_twin(fake.detector("bevformer_tiny")), "tiny",
         r"643 unknown to it \(ema_\* 643\)", "EMA twin", "own keys"),
        (fake.bevformer_v2, "base", "fcos3d_bbox_head 1", "BEVFormer v2", "the code it was trained with"),
        (lambda: fake.detector("bevformer_small"), "tiny", GRID, "preset bevformer_small", "bevformer_small"),
        (lambda: fake.detector("bevformer_tiny"), "micro", "missing", "preset bevformer_tiny", "Give bev"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_diagnosed(on_meta, state, wanted, seen, why, do):

    with pytest.raises(CheckpointError) as caught:
        load_weights(on_meta("bevformer_" + wanted), state(), "f.pth")
    assert caught.value.seen.startswith("f.pth does not fit bevformer_%s: " % wanted)
    for pattern, text in ((seen, caught.value.seen), (why, caught.value.why), (do, caught.value.do)):
        assert re.search(pattern, text), text


def test_overrides_that_change_the_model_are_blamed(on_meta):
    config = override(preset("bevformer_micro"), ["head.num_classes=5"])
    with pytest.raises(CheckpointError) as caught:
        load_weights(build_model(config), fake.detector("bevformer_micro"))
    assert "10 classes, not 5 (and 3 like it)" in caught.value.seen and "--cfg-options" in caught.value.do


@pytest.mark.parametrize("name", ["tiny", "small", "base"])
def test_every_missing_or_left_over_key_is_an_error(on_meta, name):
    model, state = on_meta("bevformer_" + name), fake.detector("bevformer_" + name)
    gone = {key: value for key, value in state.items() if key != "img_neck.fpn_convs.0.conv.bias"}
    with pytest.raises(CheckpointError, match="1 of the model's .* missing .img_neck 1"):
        load_weights(model, gone)
    with pytest.raises(CheckpointError, match="1 unknown to it .extra 1"):
        load_weights(model, {**state, "extra.weight": torch.ones(1)})


@pytest.mark.parametrize(
    "meta, said",
    [
        ({"time": "Sat Mar 26 06:14:06 2022", "mmcv_version": "1.4.0"}, True),
        ({"time": "Sat Mar 26 06:14:06 2024", "mmcv_version": "1.4.0"}, False),
        ({"mmcv_version": "1.4.0"}, True),
        ({"time": "2026-02-03 10:00:00", "bevformer_version": "0.1.0"}, False),
        ({}, False),
    ],
)
def test_files_of_2022_get_a_note_about_the_shift(meta, said):
    config = preset("bevformer_tiny")
    notes = notes_on("a.pth", meta, config)
    assert any("encoder.shift_current_reference=true" in note for note in notes) is said
    shifted = replace(config, encoder=replace(config.encoder, shift_current_reference=True))
    assert notes_on("a.pth", meta, shifted) == []


def test_ema_file_beside_a_plain_one_is_mentioned(tmp_path):
    (tmp_path / "epoch_20_ema.pth").write_bytes(b"")
    assert "epoch_20_ema.pth" in notes_on(str(tmp_path / "epoch_20.pth"), {}, preset("bevformer_tiny"))[0]
    assert notes_on(str(tmp_path / "epoch_20_ema.pth"), {}, preset("bevformer_tiny")) == []


def test_numpy_scalar_of_another_numpy_is_read(tmp_path):
    torch.save({"meta": {"seed": np.int64(3)}, "state_dict": {"w": torch.ones(2)}}, str(tmp_path / "a.pth"))
    for name in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        data = (tmp_path / "a.pth").read_bytes()
        assert b"multiarray" in data
        content = load_checkpoint(_renamed(tmp_path, name))
        assert int(content["meta"]["seed"]) == 3


def _renamed(folder, name):
    import zipfile

    out = folder / "b.pth"
    with zipfile.ZipFile(folder / "a.pth") as old, zipfile.ZipFile(out, "w") as new:
        for member in old.infolist():
            data = old.read(member).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            new.writestr(member.filename, data.replace(b"numpy.core.multiarray", name))
    return str(out)


def test_the_meta_of_mmcv_is_read_as_plain_dicts(tmp_path, monkeypatch):
    """Upstream's meta is a ConfigDict; its class is not loaded, what it holds is."""
    module = types.ModuleType("mmcv.utils.config")

    class ConfigDict(dict):
        pass

    ConfigDict.__module__, ConfigDict.__qualname__ = module.__name__, "ConfigDict"
    module.ConfigDict = ConfigDict
    for name in ("mmcv", "mmcv.utils", "mmcv.utils.config"):
        monkeypatch.setitem(sys.modules, name, module)
    meta = ConfigDict(mmdet3d_version="0.17.1", nested=ConfigDict(a=1))
    torch.save({"meta": meta, "state_dict": {"x": torch.zeros(1)}}, str(tmp_path / "a.pth"))
    monkeypatch.undo()
    found = load_checkpoint(str(tmp_path / "a.pth"))["meta"]
    assert found == {"mmdet3d_version": "0.17.1", "nested": {"a": 1}} and type(found["nested"]) is dict
