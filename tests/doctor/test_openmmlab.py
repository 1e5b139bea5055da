"""Stacks that cannot work, as they lie in site-packages: each is named, and nothing of them is imported."""

import json
import sys
from pathlib import Path

import pytest

from bevrepro.core.errors import MachineError
from bevrepro.core.finding import Severity
from bevrepro.core.machine import Package, Python, Torch
from bevrepro.doctor import stack

PINS = {"torch": "1.10.0", "mmcv-full": "1.6.0", "mmdet": "2.28.2", "mmsegmentation": "0.30.0",
        "mmdet3d": "1.0.0rc6", "numpy": "1.23.5", "numba": "0.53.0"}  # fmt: skip
NEWER = {"mmcv-full": "1.7.2", "mmdet3d": "1.0.0rc6", "nuscenes-devkit": "1.2.0", "numpy": "2.4.6"}

PAPER = ("ext-unreadable", "torch-library-deleted")

# what somebody did to the environment -> the check that names it, what it says
BAD = {
    "mmcv beside mmcv-full": (dict(mmcv="1.7.2"), "mmcv-twice", "both mmcv 1.7.2 and mmcv-full 1.6.0"),
    "mmcv 2 beside mmcv-full": (dict(mmcv="2.1.0"), "mmcv-twice", "both mmcv 2.1.0 and mmcv-full 1.6.0"),
    "an unpinned mmdet3d": (dict(mmdet3d="1.4.0"), "mmdet3d-next", "mmdet3d 1.4.0 with mmcv-full 1.6.0"),
    "a newer numpy": (dict(numpy="1.24.4"), "numba-numpy-1-24", "numba 0.53.0 with numpy 1.24.4"),
}


class Place:
    """A virtual environment of metadata: an interpreter, and packages that nobody could import."""

    def __init__(self, folder: Path):
        self.folder = folder
        version = "python%d.%d" % sys.version_info[:2]
        self.site = folder / "lib" / version / "site-packages"
        self.site.mkdir(parents=True)
        (folder / "bin").mkdir()
        self.python = folder / "bin/python"
        self.python.symlink_to(Path(sys.executable).resolve())
        home = Path(sys.executable).resolve().parent
        (folder / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
        (self.site / "torch").mkdir()
        (self.site / "torch/version.py").write_text("__version__ = '1.10.0'\ncuda = None\n")
        (self.site / "torch/__init__.py").write_text("raise SystemExit('somebody imported torch')\n")

    def install(self, **versions: str) -> None:
        """The metadata alone."""
        for name, version in versions.items():
            for old in self.site.glob(f"{name}-*.dist-info"):
                old.rmdir()
            (self.site / f"{name}-{version}.dist-info").mkdir()

    def named(self) -> dict[str, str]:
        """id -> what was seen, of what fails; but the libraries are no libraries here"""
        found = [each for each in stack.examine(self.python) if each.severity is Severity.FAIL]
        return {each.id: each.seen for each in found if each.id not in PAPER}


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path / "env")
    made.install(**{name.replace("-", "_"): version for name, version in PINS.items()})
    (made.site / "mmcv").mkdir()
    (made.site / f"mmcv/_ext.{sys.implementation.cache_tag}-x86_64-linux-gnu.so").write_bytes(
        b"not looked into here"
    )
    return made


def test_the_pins_themselves_are_well(place):
    assert place.named() == {}


@pytest.mark.parametrize("change, check, said", BAD.values(), ids=BAD)
def test_what_somebody_installed_on_top_is_named(place, change, check, said):
    place.install(**change)
    found = place.named()
    assert list(found) == [check] and said in found[check]
    with pytest.raises(MachineError, match=said) as error:
        stack.refuse_broken(stack.examine(place.python), "cpu-openmmlab", "bevrepro env build --rebuild")
    assert "KeyError" not in str(error.value) and "bevrepro env build" in error.value.do


def test_an_mmcv_without_its_operators_is_named(place):
    next(place.site.glob("mmcv/_ext*")).unlink()
    assert place.named() == {"mmcv-no-ops": "mmcv-full 1.6.0 has no compiled operators (mmcv/_ext*.so)"}


def test_the_newer_mmdet3d_is_told_once_and_brings_nothing_else_up_to_it(place):
    place.install(mmdet3d="1.4.0")
    [found] = [each for each in stack.examine(place.python) if each.id not in PAPER]
    assert "mmdet3d==1.0.0rc6" in found.commands[0]


def test_the_same_is_seen_without_starting_the_interpreter(place):
    for path in place.site.glob("mmcv/_ext*"):
        path.unlink()
    found = stack.examine_files(place.site, "3.8.18", {**PINS, "mmcv": "1.7.2", "numpy": "1.24.4"}, PINS)
    assert {"mmcv-twice", "numba-numpy-1-24", "mmcv-no-ops"} <= {each.id for each in found}


def test_an_interpreter_that_does_not_answer_is_an_error_of_its_own(tmp_path):
    with pytest.raises(MachineError, match="no such|not found|does not exist|could not"):
        stack.examine(tmp_path / "bin/python")


def _said(built, **versions):
    packages = tuple(Package(name.replace("_", "-"), version, "/site") for name, version in versions.items())
    return {each.id for each in stack.judge(Python(packages=packages, built=built))}


@pytest.mark.parametrize(
    "built, expected",
    [
        (None, {"openmmlab-range", "devkit-numpy", "numpy-alias"}),
        (NEWER, set()),
        ({**NEWER, "numpy": "2.4.1"}, {"devkit-numpy", "numpy-alias"}),
    ],
)
def test_a_pair_that_a_target_patches_and_tests_is_well_until_somebody_changes_it(built, expected):
    versions = {name.replace("-", "_"): version for name, version in NEWER.items()}
    assert _said(built, **versions) == expected


@pytest.mark.parametrize("built", [None, {"mmcv-full": "1.7.2", "torch": "2.13.0+cpu"}])
def test_an_mmcv_that_stops_at_its_own_checkpoints_is_told_where_no_target_patched_it(built):
    python = Python(
        packages=(Package("mmcv-full", "1.7.2", "/site"),), torch=Torch("2.13.0+cpu"), built=built
    )
    assert [each.id for each in stack.judge(python)] == ([] if built else ["weights-only"])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"packages": 3}', '{"packages": {"numpy": "1.23.5"}}'])
def test_the_receipt_is_read_or_left_alone(place, text):
    from bevrepro.probe.python import probe_python

    (place.folder / "bevrepro-env.json").write_text(text)
    expected = json.loads(text)["packages"] if "numpy" in text else None
    assert probe_python(place.python).built == expected
