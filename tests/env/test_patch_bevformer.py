"""The set for a BEVFormer checkout: what its lines do, and a real one where BEVREPRO_BEVFORMER names it."""

import ast
import os
import os.path as osp
import shutil
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from bevrepro.env import patching, patchset
from tests.env.patch_sets import contents

SET = patchset.load("bevformer-66b65f3")
PLUGIN = "projects/mmdet3d_plugin"


def added(path, patch, hunk):
    """What a hunk adds, as code of its own."""
    link = next(each for each in SET.chains[path] if each.patch.startswith(patch))
    lines = link.diff.hunks[hunk - 1]
    return textwrap.dedent("".join(line.decode() for line in lines.new if line not in lines.old))


@pytest.mark.parametrize(
    ("variables", "root", "infos"),
    [
        ({}, "data/nuscenes/", "data/nuscenes/a.pkl"),
        ({"NUSCENES_ROOT": "/mnt/set"}, "/mnt/set/", "/mnt/set/a.pkl"),
        ({"NUSCENES_ROOT": "/mnt/set", "NUSCENES_INFOS": "/home/me"}, "/mnt/set/", "/home/me/a.pkl"),
        ({"NUSCENES_INFOS": "/home/me"}, "data/nuscenes/", "/home/me/a.pkl"),
    ],
)
def test_the_data_folder_follows_the_variables(monkeypatch, variables, root, infos):
    for name in ("NUSCENES_ROOT", "NUSCENES_INFOS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    path, self = f"{PLUGIN}/datasets/nuscenes_dataset.py", SimpleNamespace()
    names = {
        "self": self,
        "kwargs": {"data_root": "data/nuscenes/", "ann_file": "data/nuscenes/a.pkl"},
        "os": os,
        "osp": osp,
        "image_paths": ["./data/nuscenes/samples/CAM_FRONT/n.jpg"],
    }
    exec(added(path, "0007", 2), names)
    assert names["kwargs"] == {"data_root": root, "ann_file": infos}
    exec(added(path, "0007", 3), names)
    moved = "/mnt/set/samples/CAM_FRONT/n.jpg"
    assert names["image_paths"] == [
        moved if "NUSCENES_ROOT" in variables else "./data/nuscenes/samples/CAM_FRONT/n.jpg"
    ]


@pytest.mark.parametrize("tool", ["train", "test"])
def test_a_tool_finds_its_checkout(tmp_path, monkeypatch, tool):
    monkeypatch.setattr("sys.path", ["elsewhere"])
    exec(added(f"tools/{tool}.py", "0004", 1), {"os": os, "__file__": str(tmp_path / f"tools/{tool}.py")})
    import sys

    assert sys.path == [str(tmp_path), "elsewhere"]


def test_no_patch_leaves_the_model_to_cuda():
    for patch in SET.patches:
        for diff in patch.diffs:
            added_lines = [line for hunk in diff.hunks for line in hunk.new if line not in hunk.old]
            assert not any(b".cuda(" in line for line in added_lines), patch.file


def test_a_real_checkout_is_patched_and_comes_back(tmp_path):
    """Only the files that the set changes are read; the checkout is never written."""
    given = os.environ.get("BEVREPRO_BEVFORMER")
    if not given:
        pytest.skip("BEVREPRO_BEVFORMER does not name a checkout of fundamentalvision/BEVFormer at 66b65f3")
    for path in SET.chains:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(given) / path, tmp_path / path)
    patching.revert(SET, tmp_path)
    before = contents(tmp_path)
    assert set(patching.apply(SET, tmp_path).files) == set(SET.chains)
    for path in SET.chains:
        ast.parse((tmp_path / path).read_text(), feature_version=(3, 8))
    assert set(patching.state(SET, tmp_path).values()) == {patching.APPLIED}
    patching.revert(SET, tmp_path)
    assert contents(tmp_path) == before
