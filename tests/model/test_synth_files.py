"""What the synth command writes, refuses and leaves behind."""

import errno
import hashlib
import shutil
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import pytest

from bevformer.data.synth import main as synth_main
from bevformer.errors import ConfigError, DataError, DiskError, UserError

SMALL = ["--scenes", "2", "--samples", "2", "--scale", "0.05"]


def digests(folder):
    folder = Path(folder)
    return {
        str(p.relative_to(folder)): hashlib.md5(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small set and what the command said."""
    from bevformer.talk import Talk

    class Heard(Talk):
        said: dict = {}

        def progress(self, task, done, total, text=""):
            self.said["progress"] = (task, done, total)

        def result(self, **fields):
            self.said.update(fields)

    out, talk = tmp_path_factory.mktemp("made") / "set", Heard(False)
    assert synth_main.main([str(out), *SMALL], talk) == 0
    return types.SimpleNamespace(out=out, said=talk.said)


@pytest.fixture
def copy(made, tmp_path):
    return Path(shutil.copytree(made.out, tmp_path / "set"))


def test_it_says_what_it_made(made):
    assert made.said["progress"] == ("synth", 4, 4)
    assert (made.said["frames"], made.said["seed"]) == (4, 0)
    assert all(Path(path).is_file() for path in made.said["archives"])
    assert sorted(p.name for p in made.out.iterdir()) == ["archives", "nuscenes", "synth.json"]
    assert list(made.out.parent.iterdir()) == [made.out]


def test_the_same_seed_gives_the_same_bytes(made, heard, tmp_path):
    synth_main.main([str(tmp_path / "again"), *SMALL], heard)
    assert digests(tmp_path / "again") == digests(made.out)


def test_another_seed_gives_another_set(made, heard, tmp_path):
    synth_main.main([str(tmp_path / "other"), *SMALL, "--seed", "1"], heard)
    mine, other = digests(made.out), digests(tmp_path / "other")
    kept = {name for name in mine if other.get(name) == mine[name]}
    assert not {name for name in kept if name.startswith(("archives", "nuscenes/samples", "nuscenes/maps"))}
    assert {Path(name).stem for name in kept} <= {"visibility"}


@pytest.mark.parametrize("name", ["v1.0-mini.tgz", "v1.0-mini.tar"])
def test_the_tarballs_hold_the_set_without_the_can_bus(made, name, tmp_path):
    with tarfile.open(made.out / "archives" / name) as tar:
        tops = {member.split("/")[0] for member in tar.getnames()}
        assert tops == {"maps", "samples", "sweeps", "v1.0-mini"}
        assert tar.getnames() == sorted(tar.getnames())
        tar.extractall(tmp_path)
    expected = {k: v for k, v in digests(made.out / "nuscenes").items() if not k.startswith("can_bus/")}
    assert digests(tmp_path) == expected and (tmp_path / "sweeps").is_dir()


def test_the_zip_holds_the_can_bus(made, tmp_path):
    with zipfile.ZipFile(made.out / "archives" / "can_bus.zip") as packed:
        assert packed.testzip() is None
        packed.extractall(tmp_path)
    assert digests(tmp_path / "can_bus") == digests(made.out / "nuscenes" / "can_bus")


def test_a_set_is_replaced_only_when_asked(copy, heard):
    before = digests(copy)
    with pytest.raises(DataError, match="already holds"):
        synth_main.main([str(copy), *SMALL], heard)
    assert digests(copy) == before
    synth_main.main([str(copy), *SMALL, "--seed", "1", "--force"], heard)
    assert digests(copy) != before
    assert [p.name for p in copy.parent.iterdir()] == ["set"]


@pytest.mark.parametrize("foreign", ["notes.txt", "work_dirs"])
def test_what_it_did_not_make_is_never_removed(copy, heard, foreign):
    (copy / foreign).mkdir()
    with pytest.raises(DataError, match="was not made by this command") as error:
        synth_main.main([str(copy), *SMALL, "--force"], heard)
    assert foreign in str(error.value) and (copy / foreign).is_dir()


def test_a_folder_of_someone_else_is_refused_even_with_force(tmp_path, heard):
    (tmp_path / "nuscenes").mkdir()
    with pytest.raises(DataError, match="not empty"):
        synth_main.main([str(tmp_path), *SMALL, "--force"], heard)


def test_a_file_in_the_way_is_refused(tmp_path, heard):
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match="not a folder"):
        synth_main.main([str(tmp_path / "out"), *SMALL, "--force"], heard)


@pytest.mark.parametrize("trouble", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_interruption_leaves_the_old_set_or_nothing(copy, heard, monkeypatch, trouble):
    def fail(root, *args):
        (Path(root) / "samples" / "half.jpg").write_bytes(b"half")
        raise trouble

    before = digests(copy)
    monkeypatch.setattr(synth_main, "_record", fail)
    for target, options in ((copy, ["--force"]), (copy.parent / "new", [])):
        with pytest.raises(type(trouble)):
            synth_main.main([str(target), *SMALL, *options], heard)
    assert digests(copy) == before
    assert [p.name for p in copy.parent.iterdir()] == ["set"]


def test_a_full_disk_is_noticed_before_the_work(tmp_path, heard, monkeypatch):
    monkeypatch.setattr(synth_main.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1e6))
    with pytest.raises(DiskError, match="MB free"):
        synth_main.main([str(tmp_path / "out"), *SMALL], heard)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--scenes=11", "--scenes=1", "--samples=1", "--scale=nan", "--seed=-1"])
def test_options_out_of_range_are_refused(tmp_path, heard, option):
    with pytest.raises(ConfigError, match=option.split("=")[0]):
        synth_main.main([str(tmp_path / "out"), option], heard)


def test_a_missing_cv2_is_said_before_anything_is_written(tmp_path, heard, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match="cv2"):
        synth_main.main([str(tmp_path / "out"), *SMALL], heard)
    assert not list(tmp_path.iterdir())
