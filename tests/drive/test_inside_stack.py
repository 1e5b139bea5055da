"""`train --target` in an environment that somebody spoiled: refused with the cause before anything starts."""

import pytest

from bevrepro.core.errors import MachineError
from bevrepro.drive.inside import enter
from tests.drive.test_in_environment import build

PINS = {"torch": "1.10.0", "mmcv-full": "1.6.0", "mmdet3d": "1.0.0rc6", "numpy": "1.23.5", "numba": "0.53.0"}
__all__ = ["build"]


@pytest.fixture
def site(build):
    """An environment as it was built: metadata, and a file that stands for mmcv's operators."""
    folder = build(packages=PINS) / "lib/python3.8/site-packages"
    for old in folder.glob("*.dist-info"):
        old.rmdir()
    for name, version in PINS.items():
        (folder / f"{name.replace('-', '_')}-{version}.dist-info").mkdir()
    return folder


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda site: (site / "mmcv-1.7.2.dist-info").mkdir(), "both mmcv 1.7.2 and mmcv-full 1.6.0"),
        (
            lambda site: (site / "mmdet3d-1.0.0rc6.dist-info").rename(site / "mmdet3d-1.4.0.dist-info"),
            "mmdet3d 1.4.0 with mmcv-full 1.6.0",
        ),
        (
            lambda site: (site / "numpy-1.23.5.dist-info").rename(site / "numpy-1.24.4.dist-info"),
            "numba 0.53.0 with numpy 1.24.4",
        ),
        (lambda site: None, "mmcv-full 1.6.0 has no compiled operators"),
    ],
)
def test_the_cause_is_named_with_the_command_that_makes_it_whole(site, spoil, said):
    spoil(site)
    with pytest.raises(MachineError, match=said) as caught:
        enter("cpu-openmmlab", None)
    assert "env build --target cpu-openmmlab --rebuild" in caught.value.do
