"""A folder of downloads as people have them."""

import io
import json
import os
import tarfile
import zipfile

import pytest
from typer.testing import CliRunner

from bevrepro.cli import app
from bevrepro.core.errors import DataError
from bevrepro.data import catalogue, remembered
from bevrepro.data.catalogue import Entry
from bevrepro.data.scan import scan
from bevrepro.probe.nuscenes import TABLES

SENSORS = ("samples/CAM_FRONT/a.jpg", "samples/LIDAR_TOP/b.pcd.bin")


def pack(path, names, seed=0):
    """A .tgz or .tar whose size depends on the seed."""
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 3000 + seed
            tar.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    return path


@pytest.fixture
def downloads(tmp_path):
    """Ten parts, tables and CAN data; the catalogue is made of their sizes."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    known = []
    for part in range(1, 11):
        path = pack(folder / f"v1.0-trainval{part:02}_keyframes.tgz", SENSORS, 100 * part)
        known.append(
            Entry(path.name, "keyframes", "any", "v1.0-trainval", part, path.stat().st_size, sure=False)
        )
    path = pack(folder / "v1.0-trainval_meta.tgz", ["v1.0-trainval/scene.json", "maps/a.png"])
    known.append(Entry(path.name, "meta", "current", "v1.0-trainval", None, path.stat().st_size))
    with zipfile.ZipFile(folder / "can_bus.zip", "w") as archive:
        archive.writestr("can_bus/scene-0001_pose.json", "[]")
    known.append(Entry("can_bus.zip", "can_bus", "current", size=(folder / "can_bus.zip").stat().st_size))
    return folder, tuple(known)


def uses(found):
    return {item.path.name: item.use for item in found.items}


def test_a_whole_folder_is_complete_for_cameras_and_for_nothing_else(downloads):
    folder, known = downloads
    found = scan([folder], known)
    assert [state.task.id for state in found.states if state.complete] == ["camera"]
    assert set(uses(found).values()) == {"used"} and not found.bad


@pytest.mark.parametrize(
    "ruin",
    [
        lambda path: path.rename(path.with_name(path.name + ".crdownload")),
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("<html>Request has expired"),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        lambda path: path.with_name(path.name + ".aria2").write_bytes(b"x"),
        lambda path: pack(path, ["v1.0-trainval/scene.json"]),
    ],
    ids=["partial", "cut", "empty", "web page", "zeros", "aria2", "other content"],
)
def test_one_bad_file_is_named_and_its_part_is_to_be_fetched(downloads, ruin):
    folder, known = downloads
    ruin(folder / "v1.0-trainval04_keyframes.tgz")
    found = scan([folder], known)
    assert len(found.bad) == 1 and "v1.0-trainval04_keyframes.tgz" in found.bad[0].path.name
    assert [each.name for each in found.state("camera").fetch] == ["v1.0-trainval04_keyframes.tgz"]


def test_a_renamed_archive_counts(downloads):
    folder, known = downloads
    (folder / "v1.0-trainval04_keyframes.tgz").rename(folder / "four.tgz")
    found = scan([folder], known)
    assert found.state("camera").complete
    assert (
        "v1.0-trainval04_keyframes.tgz"
        in [i for i in found.items if i.path.name == "four.tgz"][0].identity.said
    )


def test_a_second_copy_is_spare_and_the_first_is_kept(downloads):
    folder, known = downloads
    content = (folder / "can_bus.zip").read_bytes()
    (folder / "can_bus (1).zip").write_bytes(content)
    assert {uses(scan([folder], known))[name] for name in ("can_bus.zip", "can_bus (1).zip")} == {
        "used",
        "spare",
    }
    assert uses(scan([folder], known))["can_bus.zip"] == "used"


def test_pieces_of_a_split_archive_are_one_and_say_how_to_join(downloads):
    folder, known = downloads
    path = folder / "v1.0-trainval04_keyframes.tgz"
    content = path.read_bytes()
    path.unlink()
    for number, at in enumerate(range(0, len(content), 2000)):
        (folder / f"{path.name}.part{number:02}").write_bytes(content[at : at + 2000])
    found = scan([folder], known)
    (joined,) = found.bad
    assert joined.use == "join" and f"cat {path.name}.part* > {path.name}" in joined.identity.said
    (folder / f"{path.name}.part02").unlink()
    assert "are missing" in scan([folder], known).bad[0].identity.said


def test_both_generations_side_by_side_are_noted(downloads):
    folder, known = downloads
    older = Entry("v1.0-trainval_meta.tgz", "meta", "older", "v1.0-trainval", None, known[10].size)
    blobs = Entry(known[0].name, "blobs", "current", "v1.0-trainval", 1, known[0].size)
    found = scan([folder], (blobs, *known[1:10], older, known[11]))
    assert any("both generations" in note for note in found.notes)


def extracted(folder, samples=3, version="v1.0-mini"):
    for channel in ("FRONT", "FRONT_LEFT", "FRONT_RIGHT", "BACK", "BACK_LEFT", "BACK_RIGHT"):
        (folder / "samples" / f"CAM_{channel}").mkdir(parents=True)
        for number in range(samples):
            (folder / "samples" / f"CAM_{channel}" / f"{number}.jpg").write_bytes(b"x")
    (folder / version).mkdir()
    for name in TABLES:
        rows = [{"token": str(number), "scene_token": "s"} for number in range(samples)]
        (folder / version / f"{name}.json").write_text(json.dumps(rows))
    (folder / "can_bus").mkdir()
    (folder / "can_bus/scene-0061_pose.json").write_text("[]")


def test_an_extracted_set_is_judged_by_its_own_tables(tmp_path):
    extracted(tmp_path / "nuscenes")
    assert scan([tmp_path]).state("mini").complete
    (tmp_path / "nuscenes/samples/CAM_BACK/1.jpg").unlink()
    assert [piece.what for piece in scan([tmp_path]).state("mini").missing] == ["cameras"]


def test_a_folder_and_an_archive_together(tmp_path):
    extracted(tmp_path / "nuscenes")
    (tmp_path / "nuscenes/can_bus/scene-0061_pose.json").unlink()
    assert not scan([tmp_path]).state("mini").complete
    with zipfile.ZipFile(tmp_path / "can_bus.zip", "w") as archive:
        archive.writestr("can_bus/scene-0061_pose.json", "[]")
    assert scan([tmp_path / "nuscenes", tmp_path / "can_bus.zip"]).state("mini").complete


def test_links_in_a_circle_and_folders_nobody_may_read_do_not_stop_it(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "nowhere.tgz").symlink_to(tmp_path / "gone")
    found = scan([tmp_path])
    assert [item.path.name for item in found.items] == ["nowhere.tgz"]
    assert not any(state.complete for state in found.states)


def test_a_remembered_mount_point_stands_for_its_archives(downloads, tmp_path):
    folder, known = downloads
    archives = tuple(str(path) for path in sorted(folder.iterdir()))
    place = tmp_path / "nuscenes"
    remembered.add(remembered.Remembered(str(place), archives, remembered.IN_PROCESS, "now"))
    assert scan([place], known).state("camera").complete


def test_a_dead_mount_is_told_as_one(tmp_path, monkeypatch):
    """stat gives errno 107, and Path.is_dir raises it."""
    real = os.stat

    def dead(path, *more, **options):
        if str(path) == str(tmp_path / "mount"):
            raise OSError(107, "Transport endpoint is not connected")
        return real(path, *more, **options)

    monkeypatch.setattr(os, "stat", dead)
    with pytest.raises(DataError, match="a mount whose program has died"):
        scan([tmp_path / "mount"])


def test_names_that_no_terminal_likes_are_shown_harmlessly(tmp_path):
    for name in (b"v1.0-mini\xff.tgz", b"v1.0-mini\x1b[31m (1).tgz", b"can_bus\n.zip"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"\x1f\x8b\x08" + bytes(600))
    (tmp_path / "loop.tgz").symlink_to("loop.tgz")
    for command in ("scan", "verify"):
        done = CliRunner().invoke(app, ["data", command, str(tmp_path)])
        assert "\x1b" not in done.output and not isinstance(done.exception, RuntimeError | UnicodeError)


def test_a_place_that_is_not_there_is_an_error_in_words(tmp_path):
    with pytest.raises(DataError, match="cannot look at"):
        scan([tmp_path / "nothing"])


def test_the_command_tells_reports_and_exits(downloads, monkeypatch):
    folder, known = downloads
    monkeypatch.setattr(catalogue, "entries", lambda: known)
    done = CliRunner().invoke(app, ["data", "scan", str(folder), "--json"])
    told = json.loads(done.output)
    assert done.exit_code == 0 and told["tasks"][0]["complete"] and len(told["archives"]) == 12
    (folder / "can_bus.zip").unlink()
    done = CliRunner().invoke(app, ["data", "scan", str(folder), "--task", "camera"])
    assert done.exit_code == 1 and "can_bus.zip" in done.output and "nuscenes.org" in done.output
    assert CliRunner().invoke(app, ["data", "scan", str(folder)]).exit_code == 0
    assert CliRunner().invoke(app, ["data", "scan", str(folder), "--task", "cats"]).exit_code == 2
