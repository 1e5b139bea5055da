"""Which archive a file is taken for: by name, size and content together."""

import pytest

from bevrepro.data.catalogue import Entry, entries, gb, identify, kind_of
from bevrepro.probe.downloads import parse
from bevrepro.probe.inside import Inside, family

PART = Entry("v1.0-trainval03_keyframes.tgz", "keyframes", "any", "v1.0-trainval", 3, 5000, sure=False)
META = Entry("v1.0-trainval_meta.tgz", "meta", "current", "v1.0-trainval", None, 9000, md5="m1")
OLDER = Entry("v1.0-trainval_meta.tgz", "meta", "older", "v1.0-trainval", None, 8000, md5="m0")
MINI = Entry("v1.0-mini.tgz", "mini", "current", "v1.0-mini", None, 4000)
OLD_MINI = Entry("v1.0-mini.tgz", "mini", "older", "v1.0-mini")
CAN = Entry("can_bus.zip", "can_bus", "current", size=700)
RADAR = Entry("v1.0-trainval03_blobs_radar.tgz", "radar", "any", "v1.0-trainval", 3, sure=False)
KNOWN = (PART, META, OLDER, MINI, OLD_MINI, CAN, RADAR)
KEYFRAMES = ("samples/CAM_FRONT/a.jpg", "samples/LIDAR_TOP/b.pcd.bin")
TABLES = ("v1.0-trainval/scene.json", "maps/a.png")


def tgz(size, names=KEYFRAMES, **more):
    return Inside("tgz", size, size, names, **more)


@pytest.mark.parametrize(
    "name, inside, status, entry",
    [
        ("v1.0-trainval03_keyframes.tgz", tgz(5000), "one-source", PART),
        ("v1.0-trainval_meta.tgz", tgz(9000, TABLES), "published", META),
        ("v1.0-trainval_meta.tgz", tgz(8000, TABLES), "published", OLDER),
        ("download.tgz", tgz(9000, TABLES), "renamed", META),
        ("download.tgz", tgz(9000, KEYFRAMES), "contradicts", META),
        ("v1.0-trainval_meta.tgz", tgz(123, KEYFRAMES), "contradicts", META),
        ("v1.0-trainval_meta.tgz", tgz(9000, TABLES, tail="odd"), "broken", META),
        ("v1.0-trainval_meta.tgz", tgz(7000, TABLES), "other-size", META),
        ("v1.0-trainval_meta.tgz", tgz(9001, TABLES), "other-size", META),
        ("v1.0-trainval_meta.tgz", Inside("tgz", 9000, 500, TABLES), "unfinished", META),
        ("v1.0-trainval_meta.tar", Inside("tar", 20000, 20000, TABLES), "repacked", META),
        ("v1.0-trainval_meta.tar", Inside("tar", 20000, 20000, TABLES, tail="cut"), "broken", META),
        ("v1.0-trainval_meta (1).tgz", tgz(9000, TABLES), "published", META),
        ("v1.0-trainval_meta.tgz.1", tgz(9000, TABLES), "published", META),
        ("v1.0-trainval_meta.tgz?AWSAccessKeyId=x", tgz(9000, TABLES), "published", META),
        ("v1.0-trainval_meta.tgz.crdownload", tgz(900, TABLES), "unfinished", OLDER),
        ("v1.0-trainval_meta.tgz.aa", tgz(900, TABLES), "piece", OLDER),
        ("v1.0-mini.tgz", tgz(3900, ("samples/CAM_FRONT/a.jpg",)), "older-unknown", OLD_MINI),
        ("v1.0-mini.tgz", tgz(39, ("samples/CAM_FRONT/a.jpg",)), "other-size", MINI),
        ("v1.0-mini.tgz", Inside("html", 39), "broken", MINI),
        ("v1.0-mini.tgz", Inside("empty", 0), "broken", MINI),
        ("v1.0-mini.tgz", Inside(None, error="Permission denied"), "broken", MINI),
        ("can_bus.zip", Inside("zip", 650, 650, ("can_bus/scene-0001_pose.json",)), "by-content", CAN),
        ("can_bus.zip", Inside("zip", 650, 650, (), tail="its end is missing"), "cut", CAN),
        ("v1.0-trainval03_blobs_radar.tgz", tgz(77, ("sweeps/RADAR_FRONT/a.pcd",)), "by-name", RADAR),
        ("anything.tgz", tgz(77), "by-content", None),
        ("anything.tgz", tgz(77, ("cats/1.jpg",)), "foreign", None),
        ("notes.crdownload", tgz(77, ("cats/1.jpg",)), "foreign", None),
    ],
)
def test_what_a_file_is_taken_for(name, inside, status, entry):
    found = identify(parse(name), inside, KNOWN)
    assert (found.status, found.entry) == (status, entry)
    assert found.usable == (status in ("one-source", "published", "renamed", "repacked", "older-unknown",
                                       "by-content", "by-name"))  # fmt: skip


def test_a_synthetic_archive_has_no_published_size():
    found = identify(parse("v1.0-mini.tgz"), tgz(39, ("samples/CAM_FRONT/a.jpg",)), KNOWN, synthetic=True)
    assert found.status == "synthetic" and found.usable


def test_every_published_size_and_name_is_told_from_the_others():
    sizes = [each.size for each in entries() if each.size]
    assert len(sizes) == len(set(sizes)) and len(entries()) == 80
    assert len({(each.name, each.generation) for each in entries()}) == 80


@pytest.mark.parametrize(
    "names, kind",
    [
        (KEYFRAMES, "blobs"),
        (("data/nuscenes/samples/CAM_FRONT/a.jpg",), "blobs"),
        (("sweeps/LIDAR_TOP/a",), "sweeps"),
        (("samples/LIDAR_TOP/a", "sweeps/LIDAR_TOP/a"), "lidar"),
        (TABLES, "meta"),
        (("v1.0-mini/scene.json", "samples/CAM_FRONT/a.jpg"), "mini"),
        (("expansion/boston-seaport.json", "basemap/a.png"), "map"),
        (("lidarseg/v1.0-mini/a.bin",), "lidarseg"),
        (("somewhere/else.txt",), ""),
    ],
)
def test_the_first_names_say_the_kind(names, kind):
    assert kind_of(family(names)) == kind


def test_sizes_are_told_as_download_pages_tell_them():
    assert [gb(size) for size in (46145343499, 461678030, 12, 315 * 10**9)] == [
        "46.1 GB",
        "462 MB",
        "12 bytes",
        "315 GB",
    ]
