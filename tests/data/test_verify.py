"""What `data verify` finds, and what it cannot: every kind of damage, on archives, folders and both."""

import json
import os
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from bevformer.data import verify_main
from bevrepro.data import hashing, index, report, verify
from bevrepro.data.verify import Wish

from . import published

TRIES = (6, pytest.param(300, marks=pytest.mark.slow))  # random places of damage per kind of archive


class Talk:
    """Takes the result; the rest is talk."""

    def progress(self, *said):
        pass

    def note(self, text):
        pass

    def result(self, **fields):
        self.said = json.loads(json.dumps(fields))


def inside(request):
    """The model plane's verb in this process."""
    talk = Talk()
    assert verify_main.main([str(request)], talk) == 0
    return talk.said


def verified(*places, known=(), full=True, **wishes):
    planned = verify.plan(Wish(tuple(places), full, **wishes), known)
    hashed = verify.hash_archives(planned, known, lambda event: None)
    return report.judge(*verify.look_inside(hashed, inside, known))


def ids(found, *severities):
    return {each.id for each in found.findings if not severities or each.severity.value in severities}


def problems(found):
    """A set of kilobytes never has the published counts."""
    return ids(found, "fail", "warn") - {"table-counts"}


@pytest.fixture
def folder(tmp_path):
    return published.archives(tmp_path / "downloads")


@pytest.fixture
def known(folder):
    return published.catalogue(folder)


@pytest.mark.parametrize("full", [True, False])
def test_whole_archives_are_whole(folder, known, full):
    found = verified(folder, known=known, full=full)
    assert not problems(found) and not found.failed
    table = found.tables["v1.0-mini"]
    assert (table["scenes"], table["rows"]["sample"], table["promised"], table["missing"]) == (2, 6, 36, 0)


def test_a_whole_archive_without_a_published_md5_is_read_through(folder):
    known = published.catalogue(folder, md5=False)
    found = verified(folder, known=known)
    assert not problems(found)
    rows = found.to_json()["archives"]
    assert all(row["read_through"] and row["md5"] and row["md5_official"] is None for row in rows)


def truncated(data, rng):
    return data[: rng.randrange(1, len(data))]


def flipped(data, rng):
    """One bit, anywhere but in the ten bytes of a gzip header that nothing checks."""
    at = rng.randrange(10, len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def scrambled(data, rng):
    at = rng.randrange(10, len(data) - 64)
    return data[:at] + rng.randbytes(64) + data[at + 64 :]


@pytest.mark.parametrize("ruin", [truncated, flipped, scrambled])
@pytest.mark.parametrize("tries", TRIES)
@pytest.mark.parametrize("md5", [True, False], ids=["published md5", "no md5"])
def test_full_sees_damage_anywhere_in_a_tgz(folder, ruin, md5, tries):
    known, path = published.catalogue(folder, md5), folder / "v1.0-mini.tgz"
    data, rng = path.read_bytes(), random.Random(7)
    for number in range(tries):
        path.write_bytes(ruin(data, rng))
        assert verified(folder, known=known).failed, f"try {number} was not seen"


@pytest.mark.parametrize("tries", TRIES)
@pytest.mark.parametrize("ruin", [truncated, scrambled])
def test_full_sees_damage_in_a_zip(folder, ruin, tries):
    known, path = published.catalogue(folder), folder / "can_bus.zip"
    data, rng = path.read_bytes(), random.Random(8)
    for number in range(tries):
        path.write_bytes(ruin(data, rng))
        assert verified(folder, known=known).failed, f"try {number} was not seen"


@pytest.mark.parametrize("tries", TRIES)
def test_fast_sees_every_truncation_by_its_size(folder, known, tries):
    path, rng = folder / "v1.0-mini.tgz", random.Random(9)
    data = path.read_bytes()
    for number in range(tries):
        path.write_bytes(truncated(data, rng))
        assert problems(verified(folder, known=known, full=False)), f"try {number} was not seen"


def test_fast_says_that_it_does_not_see_flipped_bytes(folder, known):
    assert any(
        "--full reads every byte" in words
        for words in verified(folder, known=known, full=False).to_json()["unseen"]
    )


@pytest.mark.parametrize("full", [True, False])
def test_a_header_broken_in_the_middle_of_a_tar_is_seen(tmp_path, full):
    """ratarmount lists such a tar up to there and exits with 0."""
    path = published.archives(tmp_path / "repacked", "tar") / "v1.0-mini.tar"
    with tarfile.open(path) as tar:
        offsets = [entry.offset for entry in tar][1:]
    data = path.read_bytes()
    for offset in random.Random(3).sample(offsets, 4):
        for content in (b"\xff" * 512, bytes(512), bytes(1024)):
            path.write_bytes(data[:offset] + content + data[offset + len(content) :])
            assert "archive-damaged" in ids(verified(path, full=full), "fail")


@pytest.mark.parametrize("full", [True, False])
def test_a_cut_tar_is_seen(tmp_path, full):
    path = published.archives(tmp_path / "repacked", "tar") / "v1.0-mini.tar"
    data, rng = path.read_bytes(), random.Random(4)
    for kept in (
        512,
        1024,
        len(data) - 10240,
        len(data) // 1024 * 512,
        *(rng.randrange(len(data)) for _ in range(4)),
    ):
        path.write_bytes(data[:kept])
        assert verified(path, full=full).failed


def test_the_published_size_with_another_md5_is_damage(folder, known):
    path = folder / "v1.0-mini.tgz"
    data = bytearray(path.read_bytes())
    data[5] ^= 1  # the date in the gzip header: no checksum of its own covers it
    path.write_bytes(data)
    assert ids(verified(folder, known=known), "fail") == {"archive-md5"}


def test_an_unknown_generation_that_is_whole_is_no_failure(folder, known):
    content = published.files()
    content["maps/map.png"] = b"another map"
    published.pack(folder / "v1.0-mini.tgz", content, [name for name in content if "can_bus" not in name])
    found = verified(folder, known=known)
    assert not found.failed and {"archive-md5"} <= ids(found, "warn")


def test_an_archive_exchanged_under_the_same_size_and_time_is_noticed(folder, known):
    path = folder / "v1.0-mini.tgz"
    verified(folder, known=known)
    data, times = bytearray(path.read_bytes()), path.stat().st_mtime_ns
    data[-8] ^= 1  # what any change of the content does to the trailer's checksum
    path.write_bytes(data)
    os.utime(path, ns=(times, times))
    assert "archive-exchanged" in ids(verified(folder, known=known, full=False))
    assert verified(folder, known=known).failed


def test_an_index_of_an_archive_that_changed_is_stale(folder, known, system):
    from bevrepro.data.archives import recognise

    path = folder / "v1.0-mini.tgz"
    index.ensure(recognise(path))
    assert "index-stale" not in ids(verified(folder, known=known, full=False))
    os.utime(path, ns=(1, 1))
    assert "index-stale" in ids(verified(folder, known=known, full=False), "warn")


def test_an_index_that_ends_too_early_is_seen(folder, known, system):
    import sqlite3

    from bevrepro.data.archives import recognise

    archive = recognise(folder / "v1.0-mini.tgz")
    index.ensure(archive)
    with sqlite3.connect(index.index_path(archive)) as database:
        database.execute('DELETE FROM files WHERE "offset" > 30000')
    assert "index-differs" in ids(verified(folder, known=known, full=False), "fail")


@pytest.mark.parametrize(
    "content, seen",
    [
        (b"", "empty"),
        (b"<html>expired", "web page"),
        (bytes(30000), "zeros"),
        (b"\x1f\x8b" + b"\xff" * 5000, ""),
    ],
)
def test_what_is_no_archive_is_named(folder, known, content, seen):
    (folder / "v1.0-mini.tgz").write_bytes(content)
    found = verified(folder, known=known)
    assert found.failed and any(seen in each.seen for each in found.findings if "mini.tgz" in each.seen)


@pytest.mark.parametrize("name", ["../outside.jpg", "/etc/passwd", "samples/../../x", "a\\b"])
@pytest.mark.parametrize("form", ["tgz", "tar", "zip"])
def test_names_that_point_outside_are_refused(tmp_path, name, form):
    content = {**published.files(), name: b"x"}
    path = published.pack(tmp_path / f"v1.0-mini.{form}", content, list(content))
    found = verified(path)
    assert "archive-damaged" in ids(found, "fail") and not (tmp_path.parent / "outside.jpg").exists()


def test_links_and_devices_are_told_and_not_followed(tmp_path):
    path = tmp_path / "v1.0-mini.tar"
    published.pack(path, published.files(), list(published.files()))
    with tarfile.open(path, "a") as tar:
        for kind, name in ((tarfile.SYMTYPE, "samples/l"), (tarfile.CHRTYPE, "samples/d")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            tar.addfile(entry)
    found = verified(path)
    assert "archive-links" in ids(found, "warn") and "2 links" in str(found.findings)


def test_a_bomb_is_not_unpacked_to_its_end(tmp_path, monkeypatch):
    from bevformer.data import archive_pass

    monkeypatch.setattr(archive_pass, "BOMB_BYTES", 1 << 22)
    with tarfile.open(tmp_path / "samples.tgz", "w:gz") as tar:
        entry = tarfile.TarInfo("samples/CAM_FRONT/a.jpg")
        entry.size = 1 << 25
        tar.addfile(entry, open("/dev/zero", "rb"))
    found = verified(tmp_path / "samples.tgz")
    assert any("300 times" in each.seen for each in found.findings)


def test_every_missing_file_is_counted_by_channel(tmp_path):
    root = published.extract(tmp_path / "nuscenes")
    for name in ("CAM_BACK/0", "CAM_BACK/1", "CAM_FRONT/2"):
        (root / f"samples/{name}.jpg").unlink()
    (told,) = [each for each in verified(root).findings if each.id == "files-missing"]
    assert "3 of 36 files" in told.seen and "2 in samples/CAM_BACK" in told.seen


def test_sweeps_count_only_when_they_are_asked_for(tmp_path):
    root = published.extract(tmp_path / "nuscenes")
    (root / "sweeps/CAM_FRONT/1.jpg").unlink()
    assert not problems(verified(root))
    assert "files-missing" in problems(verified(root, sweeps=True))


@pytest.mark.parametrize(
    "name, content, id",
    [
        ("samples/CAM_BACK/0.jpg", b"", "files-empty"),
        ("samples/CAM_BACK/0.jpg", published.picture(1)[:900], "files-wrong"),
        ("samples/CAM_BACK/0.jpg", b"<html>", "files-wrong"),
        ("v1.0-mini/sample_data.json", b'[{"token": "a", "file', "tables-broken"),
        ("v1.0-mini/scene.json", b"{}", "tables-broken"),
        ("v1.0-mini/ego_pose.json", b'[{"token": 1}, {"tok', "tables-broken"),
        ("v1.0-mini/log.json", b"\xff\xfe[]", "tables-broken"),
        ("can_bus/scene-0103_pose.json", b"[]", "can-missing"),
        (
            "v1.0-mini/sample_data.json",
            b'[{"token": "a", "filename": "samples/CAM_FRONT/../../../x", "is_key_frame": true},'
            b' {"token": "b", "filename": "samples/CAM_FRONT/..", "is_key_frame": true}]',
            "tables-unsafe",
        ),
    ],
)
def test_damage_in_an_extracted_set_is_named(tmp_path, name, content, id):
    root = published.extract(tmp_path / "nuscenes")
    (root / name).write_bytes(content)
    assert id in problems(verified(root))


@pytest.mark.parametrize("table", ["sample_data", "ego_pose", "visibility"])
def test_a_table_that_is_not_there_is_named(tmp_path, table):
    root = published.extract(tmp_path / "nuscenes")
    (root / f"v1.0-mini/{table}.json").unlink()
    (told,) = [each for each in verified(root, full=False).findings if each.id == "tables-lacking"]
    assert f"{table}.json" in told.seen


def test_a_folder_and_an_archive_make_one_set(tmp_path, folder):
    root = published.extract(tmp_path / "nuscenes")
    for path in (root / "can_bus").iterdir():
        path.unlink()
    assert "can-missing" in problems(verified(root))
    assert not problems(verified(root, folder / "can_bus.zip"))


def test_tables_in_one_archive_and_pictures_in_another_which_is_then_missing(tmp_path):
    content = published.files()
    tables = [name for name in content if name.startswith(("v1.0", "maps"))]
    pictures = [name for name in content if name.startswith("samples")]
    meta = published.pack(tmp_path / "tables.tgz", content, tables)
    blobs = [published.pack(tmp_path / f"part{n}.tgz", content, pictures[n::2]) for n in range(2)]
    assert not {"files-missing"} & problems(verified(meta, *blobs))
    assert "files-missing" in problems(verified(meta, blobs[0]))


def test_an_archive_without_a_list_of_files_leaves_files_open_and_not_missing(tmp_path):
    content = published.files()
    meta = published.pack(
        tmp_path / "tables.tgz", content, [n for n in content if n.startswith(("v1.0", "maps"))]
    )
    blobs = published.pack(
        tmp_path / "v1.0-trainval01_blobs.tgz", content, [n for n in content if n.startswith("s")]
    )
    known = (
        published.Entry(
            blobs.name, "blobs", "current", "v1.0-trainval", 1, blobs.stat().st_size, md5="0" * 32
        ),
    )
    found = verified(meta, blobs, known=known, full=False)
    assert "files-unlisted" in ids(found, "info") and "files-missing" not in ids(found)
    assert "archives-missing" in ids(found, "warn")


def test_what_was_read_is_not_read_again(folder, known, monkeypatch):
    verified(folder, known=known)
    assert verify.plan(Wish((folder,)), known).hash_b == 0
    again = verified(folder, known=known)
    assert not problems(again) and all(row["resumed"] for row in again.to_json()["archives"])
    os.utime(folder / "can_bus.zip")
    assert verify.plan(Wish((folder,)), known).hash_b == (folder / "can_bus.zip").stat().st_size


def test_bytes_that_rotted_under_the_same_date_are_seen_when_all_is_read_again(folder, known):
    path = folder / "can_bus.zip"
    verified(folder, known=known)
    data, times = bytearray(path.read_bytes()), path.stat().st_mtime_ns
    data[len(data) // 2] ^= 1  # neither end changes
    path.write_bytes(data)
    os.utime(path, ns=(times, times))
    assert not verified(folder, known=known).failed
    assert verified(folder, known=known, again=True).failed


def test_an_archive_without_a_published_md5_is_not_read_again_either(folder, monkeypatch):
    known = published.catalogue(folder, md5=False)
    content = published.files()
    pictures = [name for name in content if name.startswith("samples")]
    blobs = published.pack(folder / "v1.0-trainval01_blobs_radar.tgz", content, pictures)
    verified(blobs, known=known)
    planned = verify.plan(Wish((blobs,)), known)
    hashed = verify.hash_archives(planned, known, lambda event: None)
    assert not any(each.read or each.to_hash for each in hashed.archives)
    assert verified(blobs, known=known).to_json()["archives"][0]["resumed"]


def test_an_interrupted_run_goes_on_with_the_archives_that_were_not_finished(tmp_path):
    stamps = []
    for number in range(4):
        path = tmp_path / f"{number}.tgz"
        path.write_bytes(bytes([number]) * 100_000)
        stamps.append(hashing.stamp(path))
    ended = []

    def stop_in_the_third(event):
        if event["text"] == "2.tgz":
            raise KeyboardInterrupt
        ended.append(event["text"])

    with pytest.raises(KeyboardInterrupt):
        hashing.md5_all(stamps, 1, stop_in_the_third)
    assert [hashing.recall(each, "md5.json")[0] is not None for each in stamps] == [True, True, False, False]


def test_a_half_written_memory_is_not_believed(folder, known):
    verified(folder, known=known)
    one = hashing.stamp(folder / "can_bus.zip")
    for content in ("", "{", "[]", '{"md5": "0"}'):
        Path(f"{one.stem()}.md5.json").write_text(content)
        assert hashing.recall(one, "md5.json")[0] is None


def test_a_file_that_grows_while_it_is_read_is_not_believed(tmp_path):
    path = tmp_path / "a.tgz"
    path.write_bytes(bytes(100))
    before = hashing.stamp(path)
    path.write_bytes(bytes(200))
    assert "changed" in str(hashing.md5_all([before], 1, lambda event: None)[str(path)])


def test_nothing_is_written_into_the_data(folder, known):
    def state():
        return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*"))

    before = state()
    verified(folder, known=known)
    verified(folder, known=known, full=False)
    assert state() == before


def test_the_report_says_what_was_looked_at(folder, known):
    told = json.loads(json.dumps(verified(folder, known=known).to_json()))
    assert set(told) == {
        "format", "made_by", "mode", "roots", "archives", "not_needed", "folders", "tables", "tasks",
        "findings", "unseen", "verdict",
    }  # fmt: skip
    mini = next(row for row in told["archives"] if row["kind"] == "mini")
    assert mini["md5_official"] is True and mini["generation"] == "current" and mini["files"] == 56
    assert told["verdict"] == "whole" and told["tasks"][1]["complete"]


def test_the_readers_own_index_lists_the_files_as_well(tmp_path):
    pytest.importorskip("rapidgzip", reason="the in-process reader of .tgz needs rapidgzip")
    from bevformer.data import gzip_tar

    content = published.files()
    pictures = [name for name in content if name.startswith("samples")]
    root = published.extract(tmp_path / "nuscenes")
    for name in pictures:
        (root / name).unlink()
    blobs = published.pack(tmp_path / "v1.0-trainval01_blobs.tgz", content, pictures)
    known = (
        published.Entry(
            blobs.name, "blobs", "current", "v1.0-trainval", 1, blobs.stat().st_size, md5="0" * 32
        ),
    )
    assert "files-unlisted" in ids(verified(root, blobs, known=known, full=False))
    gzip_tar.index(str(blobs))
    found = verified(root, blobs, known=known, full=False)
    assert not problems(found) and found.to_json()["archives"][0]["names_from"] == "reader"


@pytest.mark.parametrize("name", ["v1.0-mini.tgz", "can_bus.zip", "v1.0-mini.tar", "anything.tgz"])
def test_a_terabyte_of_nothing_is_told_at_once(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        file.truncate(1 << 40)
    assert verified(tmp_path / name).failed


def test_a_tar_that_promises_more_than_it_has_is_cut(tmp_path):
    path = published.archives(tmp_path / "repacked", "tar") / "v1.0-mini.tar"
    header = bytearray(path.read_bytes()[:512])
    header[124:136] = b"77777777777\0"
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 256)
    path.write_bytes(bytes(header) + path.read_bytes()[512:])
    assert "archive-damaged" in ids(verified(path, full=False), "fail")


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '[{"a": ' * 5000, '[{"token": "' + "x" * 200_000 + '"}]', "[1, 2]", "[null]", "\ufeff[]"],
)
def test_tables_that_are_no_tables_do_not_stop_it(tmp_path, text):
    root = published.extract(tmp_path / "nuscenes")
    for name in ("sample_data", "scene", "visibility"):
        (root / f"v1.0-mini/{name}.json").write_text(text)
    assert "v1.0-mini" in verified(root).tables


def test_a_zip_inside_out_is_no_reason_to_stop(tmp_path):
    """A directory that lists a member which is not where it says."""
    path = tmp_path / "can_bus.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("can_bus/scene-0001_pose.json", "[]")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"PK\x03\x04", b"PK\x03\x05", 1).replace(b"PK\x03\x05", b"PK\x03\x04xx", 1))
    assert verified(path).failed
