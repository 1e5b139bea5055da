"""The stack that the target pins is the one that is imported, with its operators."""

import json
import os
import sys
from pathlib import Path

import mmcv
import mmdet
import mmdet3d
import mmseg
import pytest

RECEIPT = Path(sys.prefix) / "bevrepro-env.json"


@pytest.fixture(scope="module")
def packages():
    return json.loads(RECEIPT.read_text())["packages"]


@pytest.mark.parametrize(
    ("module", "name"),
    [(mmcv, "mmcv-full"), (mmdet, "mmdet"), (mmseg, "mmsegmentation"), (mmdet3d, "mmdet3d")],
)
def test_what_is_imported_is_what_was_locked(packages, module, name):
    assert module.__version__ == packages[name]
    assert os.path.realpath(module.__file__).startswith(os.path.realpath(sys.prefix) + os.sep)


def test_the_tests_bring_nothing_but_their_runner():
    import packaging
    import typing_extensions

    for each in (packaging, typing_extensions):
        assert os.path.realpath(each.__file__).startswith(os.path.realpath(sys.prefix) + os.sep)
    assert os.path.realpath(pytest.__file__).startswith(os.path.realpath(sys.prefix)) is False
