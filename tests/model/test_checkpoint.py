"""Checkpoints are written whole, read safely, and say what they are when they do not fit."""

import os
import subprocess

import numpy as np
import pytest
import torch
from torch import nn

from bevformer import checkpoint
from bevformer.checkpoint import link_latest, load_checkpoint, looks_like, save_checkpoint
from bevformer.errors import CheckpointError, DiskError


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


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


def test_plain_torch_reads_it_with_weights_only(tmp_path, model):
    path = str(tmp_path / "a.pth")
    save_checkpoint(path, model, meta={"iter": 0})
    assert set(torch.load(path, weights_only=True)) == {"meta", "state_dict"}


def test_full_disk_leaves_the_old_file_and_no_litter(tmp_path, model, monkeypatch):
    path = str(tmp_path / "a.pth")
    save_checkpoint(path, model, meta={"iter": 1})

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
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


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated_file_is_a_sentence(tmp_path, model, keep):
    path = tmp_path / "a.pth"
    save_checkpoint(str(path), model)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(str(path))


@pytest.mark.parametrize(
    "content, word",
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git-lfs"),
        (b"\x80\x02garbage", "broken"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, word):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=word):
        load_checkpoint(str(path))


def test_missing_file_lists_its_neighbours(tmp_path, model):
    save_checkpoint(str(tmp_path / "iter_5.pth"), model)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(str(tmp_path / "iter_6.pth"))
    assert "iter_5.pth" in caught.value.why


def test_meta_with_numpy_scalars_is_read(tmp_path):
    path = str(tmp_path / "upstream.pth")
    torch.save({"meta": {"seed": np.int64(3)}, "state_dict": {"w": torch.ones(2)}}, path)
    assert int(load_checkpoint(path)["meta"]["seed"]) == 3


@pytest.mark.parametrize("old_format", [False, True])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, old_format):
    class Evil:
        def __reduce__(self):
            return subprocess.check_call, (["touch", str(tmp_path / "ran")],)

    path = str(tmp_path / "evil.pth")
    torch.save(
        {"state_dict": {"w": torch.ones(2)}, "meta": {"x": Evil()}},
        path,
        _use_new_zipfile_serialization=not old_format,
    )
    with pytest.raises(CheckpointError, match="check_call"):
        load_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_parallel_prefix_and_bare_state_dict_are_accepted(tmp_path, model):
    path = str(tmp_path / "bare.pth")
    torch.save({"module." + key: value for key, value in model.state_dict().items()}, path)
    assert set(load_checkpoint(path, model)["state_dict"]) == set(model.state_dict())


def test_keys_that_do_not_fit_are_counted_by_module(tmp_path, model):
    path = str(tmp_path / "fcos3d.pth")
    torch.save({"state_dict": {"backbone.conv1.weight": torch.ones(1), "bbox_head.a.b": torch.ones(1)}}, path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, model)
    assert "4 of the model's 4 weights missing" in caught.value.seen and "backbone 1" in caught.value.seen
    assert "FCOS3D" in caught.value.why


def test_other_shapes_are_shown(tmp_path, model):
    path = str(tmp_path / "a.pth")
    save_checkpoint(path, nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5)))
    with pytest.raises(CheckpointError, match=r"1\.weight is \(5, 3\), not \(2, 3\)"):
        load_checkpoint(path, model)


def test_another_preset_is_recognised_by_its_grid():
    assert "bevformer_base" in looks_like({"pts_bbox_head.bev_embedding.weight": torch.empty(40000, 256)})


def test_latest_follows_the_newest(tmp_path, model):
    for step in (1, 2):
        path = str(tmp_path / f"iter_{step}.pth")
        save_checkpoint(path, model, meta={"iter": step})
        link_latest(path)
    assert load_checkpoint(str(tmp_path / "latest.pth"))["meta"] == {"iter": 2}
