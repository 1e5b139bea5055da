"""Built environments, spoiled as people do it: the doctor names each, before anything is imported.

The environment itself is left alone: a stand-in links to what is in it and is spoiled instead.
"""

import os
from pathlib import Path

import pytest

from bevrepro.core.errors import MachineError
from bevrepro.core.finding import Severity
from bevrepro.doctor import stack

pytestmark = pytest.mark.openmmlab
TARGETS = ("cpu-openmmlab", "cpu-openmmlab-torch2")


class StandIn:
    """.python, .site: links into the real environment, and a folder mmcv of our own."""

    def __init__(self, real: Path, folder: Path):
        [site] = real.glob("lib/python*/site-packages")
        self.site = folder / site.relative_to(real)
        self.python = folder / "bin/python"
        for made in (self.site / "mmcv", folder / "bin"):
            made.mkdir(parents=True)
        for path in (*site.iterdir(), *site.glob("mmcv/*"), real / "pyvenv.cfg", real / "bevrepro-env.json"):
            if path != site / "mmcv":
                (folder / path.relative_to(real)).symlink_to(path)
        self.python.symlink_to(os.path.realpath(real / "bin/python"))

    def version(self, name: str, version: str) -> None:
        """As if another version had been installed: its metadata."""
        for old in self.site.glob(f"{name}-*.dist-info"):
            old.rename(old.with_name(f"{name}-{version}.dist-info"))
            return
        (self.site / f"{name}-{version}.dist-info").mkdir()

    def failing(self) -> dict[str, str]:
        found = [each for each in stack.examine(self.python) if each.severity is Severity.FAIL]
        return {each.id: each.seen for each in found}


def mmcv_too(env: StandIn) -> None:
    env.version("mmcv", "1.7.2")


def newer_mmdet3d(env: StandIn) -> None:
    env.version("mmdet3d", "1.4.0")


def without_operators(env: StandIn) -> None:
    for path in env.site.glob("mmcv/_ext*.so"):
        path.unlink()


def old_numba_newer_numpy(env: StandIn) -> None:
    env.version("numba", "0.53.0")
    env.version("numpy", "1.24.4")


@pytest.fixture(params=TARGETS)
def stand_in(request, built, tmp_path):
    return StandIn(built(request.param), tmp_path / "env")


@pytest.mark.parametrize("target", TARGETS)
def test_a_built_environment_is_well(built, target):
    assert stack.examine(built(target) / "bin/python") == ()


@pytest.mark.parametrize(
    "spoil, check",
    [
        (mmcv_too, "mmcv-twice"),
        (newer_mmdet3d, "mmdet3d-next"),
        (without_operators, "mmcv-no-ops"),
        (old_numba_newer_numpy, "numba-numpy-1-24"),
    ],
)
def test_what_was_done_to_it_is_named(stand_in, spoil, check):
    assert stand_in.failing() == {}
    spoil(stand_in)
    found = stand_in.failing()
    assert list(found) == [check]
    with pytest.raises(MachineError, match="not as it was built"):
        stack.refuse_broken(stack.examine(stand_in.python), "T", "bevrepro env build --target T --rebuild")
