"""Every defect does what its record says, and nothing else."""

import json
import tarfile
import zlib

import pytest

from bevformer.data.synth import archive
from bevformer.data.synth.defects import DEFECTS, IN_THE_SET, Damage
from bevformer.data.synth.sets import Options
from bevrepro.cli.data_synth import Defect, Kind, Pack, Weather

VERSION, SCENES = "v1.0-mini", ["scene-0061", "scene-0103"]


@pytest.fixture
def root(tmp_path):
    """A set of small files: two cameras, a lidar, two tables, CAN data of two scenes."""
    for channel in ("CAM_BACK", "CAM_FRONT", "LIDAR_TOP"):
        for number in range(4):
            path = tmp_path / "set/samples" / channel / ("%d.bin" % number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(range(256)) * (number + 3))
    for name in ("maps/m.png", "sweeps/s", *("can_bus/%s_pose.json" % scene for scene in SCENES)):
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / name).write_text("[1, 2]")
    for table in ("ego_pose", "sample_annotation"):
        (tmp_path / "set" / VERSION).mkdir(exist_ok=True)
        (tmp_path / "set" / VERSION / (table + ".json")).write_text(json.dumps(list(range(50))))
    return tmp_path / "set"


def contents(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def damaged(root, kind, options=None):
    """(what was before, records, the folder of the archives)"""
    before, damage = contents(root), Damage([kind], 3)
    damage.to_set(str(root), VERSION, SCENES)
    folder = root.parent / "archives"
    folder.mkdir()
    if options is not None:
        files = [["samples/CAM_BACK/%d.bin" % number] for number in range(2)]
        damage.write_archives(str(root), archive.parcels(str(root), options, files), str(folder))
    return before, damage.records, folder


@pytest.mark.parametrize("kind", [kind for kind in IN_THE_SET if kind != "no-can"])
def test_a_defect_of_the_set_hits_the_recorded_file_alone(root, kind):
    before, (record,), _ = damaged(root, kind)
    after, name = contents(root), record["file"]
    assert {key for key in before if before[key] != after.get(key)} == {name} and set(after) <= set(before)
    expected = {"missing-file": None, "missing-table": None, "empty-file": b""}
    kept = expected.get(kind, before[name][: record.get("kept", 0)])
    assert after.get(name) == kept and record["kind"] == kind
    assert record.get("size", len(before[name])) == len(before[name])


def test_a_scene_without_can_data_loses_its_files_only(root):
    before, (record,), _ = damaged(root, "no-can")
    assert record["scene"] in SCENES and record["files"] == ["can_bus/%s_pose.json" % record["scene"]]
    assert set(before) - set(contents(root)) == set(record["files"])


def whole_archives(root, folder):
    folder.mkdir()
    for parcel in archive.parcels(str(root), MINI, []):
        archive.write_parcel(str(root), parcel, str(folder))
    return folder


MINI = Options(0, 2, 2, 0.1)


@pytest.mark.parametrize("name", ["v1.0-mini.tar", "v1.0-mini.tgz"])
def test_flipped_bytes_are_64_at_the_recorded_offset(root, tmp_path, name):
    whole = (whole_archives(root, tmp_path / "whole") / name).read_bytes()
    _, records, folder = damaged(root, "flipped-bytes", MINI)
    record = next(record for record in records if record["archive"] == name)
    broken = (folder / name).read_bytes()
    changed = [at for at, (a, b) in enumerate(zip(whole, broken)) if a != b]
    assert changed == list(range(record["offset"], record["offset"] + 64)) and len(whole) == len(broken)
    if name.endswith("tar"):
        with tarfile.open(folder / name) as tar:
            member = tar.getmember(record["member"])
            assert (
                member.offset_data
                <= record["offset"]
                < record["offset"] + 64
                <= member.offset_data + member.size
            )


def test_a_truncated_archive_keeps_its_beginning(root, tmp_path):
    whole = whole_archives(root, tmp_path / "whole")
    _, records, folder = damaged(root, "truncated-archive", MINI)
    for record in records:
        before = (whole / record["archive"]).read_bytes()
        assert len(before) == record["size"]
        assert (folder / record["archive"]).read_bytes() == before[: record["kept"]]
    assert [record["archive"] for record in records] == ["v1.0-mini.tgz", "v1.0-mini.tar"]


def test_a_broken_header_is_one_byte_in_the_tar_and_the_gzip_around_it_is_sound(root, tmp_path):
    whole = (whole_archives(root, tmp_path / "whole") / "v1.0-mini.tar").read_bytes()
    _, records, folder = damaged(root, "broken-header", MINI)
    broken = (folder / "v1.0-mini.tar").read_bytes()
    (at,) = [at for at, (a, b) in enumerate(zip(whole, broken)) if a != b]
    assert {record["offset_in_tar"] for record in records} == {at - 148}
    assert zlib.decompress((folder / "v1.0-mini.tgz").read_bytes(), 31) == broken
    with tarfile.open(folder / "v1.0-mini.tgz") as tar:
        assert records[0]["member"] not in tar.getnames()


def test_a_missing_part_is_the_last_one_in_every_form(root):
    options = Options(0, 2, 2, 0.1, kind="trainval", parts=2, packs=("blobs", "keyframes"))
    (root / VERSION).rename(root / options.version)
    _, records, folder = damaged(root, "missing-part", options)
    missing = ["v1.0-trainval02_blobs.tgz", "v1.0-trainval02_keyframes.tgz"]
    assert [record["archive"] for record in records] == missing
    found = {path.name for path in folder.iterdir()}
    rest = {name.replace("02", "01") for name in missing}
    assert found == rest | {"v1.0-trainval_meta.tgz", "can_bus.zip"}


def test_no_defect_is_asked_for_and_none_is_made(root):
    before, records, folder = damaged(root, "none", MINI)
    assert records == [] and contents(root) == before and len(list(folder.iterdir())) == 3


def test_the_command_offers_what_the_model_plane_knows():
    from bevformer.data.synth import sets

    assert {one.value for one in Defect} == set(DEFECTS)
    assert [one.value for one in Kind] == list(sets.KINDS)
    assert [one.value for one in Pack] == list(sets.PACKS)
    assert [one.value for one in Weather] == list(sets.WEATHERS)
