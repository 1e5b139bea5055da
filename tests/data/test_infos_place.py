"""Where infos go when nobody says."""

import pytest

from bevrepro.data import remembered
from bevrepro.data.infos_place import default_out, overlays


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("BEVREPRO_STATE", str(tmp_path / "state"))


@pytest.mark.parametrize(
    "name, expected",
    (
        ("nuscenes", "nuscenes-infos"),
        ("v1.0-mini.tgz", "v1.0-mini-infos"),
        ("v1.0-trainval_meta.tar.gz", "v1.0-trainval_meta-infos"),
    ),
)
def test_they_go_beside_the_first_root(tmp_path, name, expected):
    assert default_out([tmp_path / name, tmp_path / "other"]) == tmp_path / expected


def test_they_go_into_the_overlay_of_a_mount(tmp_path):
    for name, overlay in (("a", tmp_path / "over"), ("b", None)):
        remembered.add(
            remembered.Remembered(
                str(tmp_path / name), (), remembered.IN_PROCESS, "now", overlay=overlay and str(overlay)
            )
        )
    roots = [tmp_path / "a", tmp_path / "b"]
    assert default_out(roots) == tmp_path / "over" and overlays(roots) == [tmp_path / "over"]
    assert default_out([tmp_path / "b"]) == tmp_path / "b-infos"
