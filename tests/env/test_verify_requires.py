"""What packages ask of each other, and which of it a target's overrides declare."""

import pytest
from packaging.requirements import Requirement

from bevrepro.core.finding import Severity
from bevrepro.env.verify_packages import Dist
from bevrepro.env.verify_requires import Unmet, judge_requires, requires_of, unmet

MARKERS = {"python_version": "3.11", "sys_platform": "linux"}
HERE = (Dist("numba", "0.68.1", "", True), Dist("numpy", "2.4.6", "", True))


def test_only_the_head_of_the_metadata_counts():
    text = "Name: a\nRequires-Dist: numpy\nRequires-Dist: b>1 ; extra == 'x'\n\nRequires-Dist: prose\n"
    assert requires_of(text) == ("numpy", "b>1 ; extra == 'x'")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("numpy>=1.20", []),
        ("NumPy<2", ["mmdet3d asks for NumPy<2 (2.4.6)"]),
        ("numba==0.53.0 ; python_version < '3.9'", []),
        ("open3d ; extra == 'all'", []),
        ("open3d", ["mmdet3d asks for open3d (not installed)"]),
        ("no requirement at all", []),
    ],
)
def test_a_requirement_holds_or_is_told(line, told):
    assert [str(each) for each in unmet(HERE, {"mmdet3d": (line,)}, MARKERS)] == told


@pytest.mark.parametrize(
    ("override", "wanted", "found", "kind"),
    [
        ("numba>=0.62", "numba==0.53.0", "0.68.1", "verify-override"),
        ("numba>=0.70", "numba==0.53.0", "0.68.1", "verify-requires"),
        ("numba>=0.62", "numba==0.53.0", None, "verify-requires"),
        ("opencv-python ; sys_platform == 'never'", "opencv_python", None, "verify-override"),
        ("networkx>=2.5", "numba==0.53.0", "0.68.1", "verify-requires"),
    ],
)
def test_only_what_an_override_declares_is_a_note(override, wanted, found, kind):
    (finding,) = judge_requires([Unmet("mmdet3d", Requirement(wanted), found)], [override], "t")
    assert finding.id == kind
    assert (finding.severity is Severity.INFO) == (kind == "verify-override")
