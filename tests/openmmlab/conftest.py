"""Tests that run inside an environment with mmcv and mmdet3d 1.x: `make test-openmmlab`, or inside.py.

Each has the marker `openmmlab`. Where there is no mmcv they cannot even be imported; the header says so.
"""

import importlib.util
import os
import sys
import types
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "model")]  # the helpers of these tests, such as mm_case
HAS_MMCV = importlib.util.find_spec("mmcv") is not None


def pytest_report_header(config):
    if not HAS_MMCV:
        return "tests/openmmlab: nothing is collected, no mmcv in this Python; make test-openmmlab"


def pytest_ignore_collect(collection_path, config):
    return True if not HAS_MMCV and collection_path.parent == HERE else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if str(item.path).startswith(str(HERE) + os.sep):
            item.add_marker(pytest.mark.openmmlab)


@pytest.fixture(scope="session")
def synth(tmp_path_factory):
    """A synthetic set of 2 scenes x 3 frames, prepared: .root (as data/nuscenes), .infos (folder)"""
    from bevformer.data.prepare import main as prepare
    from bevformer.data.synth.main import main as make
    from bevformer.talk import Talk

    class Silent(Talk):
        def note(self, text):
            """Nothing: the set-up of a test has nothing to say."""

        progress = result = lambda self, *args, **fields: None

    out, infos = tmp_path_factory.mktemp("synth") / "set", tmp_path_factory.mktemp("infos")
    make([str(out), "--scenes", "2", "--samples", "3", "--scale", "0.1"], Silent(False))
    prepare(["--data-root", str(out / "nuscenes"), "--out", str(infos)], Silent(False))
    return types.SimpleNamespace(root=str(out / "nuscenes"), infos=str(infos))
