"""`data index`: what is left to do, one archive after another, whatever becomes of one."""

import tarfile

import pytest

from bevrepro.core.errors import DataError, DiskError, MachineError
from bevrepro.core.machine import Host, Machine
from bevrepro.data import fuse, index
from bevrepro.drive import indexing


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """Two .tgz and a .zip's neighbour; what is indexed for whom is kept in sets."""
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/notes.txt").write_text("x")
    for name in ("a.tgz", "b.tgz"):
        with tarfile.open(tmp_path / "data" / name, "w:gz") as tar:
            tar.add(tmp_path / "data/notes.txt", "samples/1.jpg")
    return tmp_path / "data"


@pytest.fixture
def made(monkeypatch):
    """(use, name) of every pass that would have run."""
    done = []

    def run_model(verb, argv, on_event=None):
        paths = [path for path in argv if path != "--check"]
        if "--check" in argv:
            return {"archives": [{"path": str(p), "was_done": ("reader", p.name) in done} for p in paths]}
        done.append(("reader", paths[0].name))
        return {}

    monkeypatch.setattr(indexing, "run_model", run_model)
    monkeypatch.setattr(fuse, "missing", lambda: ())
    monkeypatch.setattr(index, "is_fresh", lambda archive: ("mount", archive.path.name) in done)
    monkeypatch.setattr(index, "ensure", lambda archive, on_wait: done.append(("mount", archive.path.name)))
    return done


def test_every_archive_of_a_folder_is_ready_for_both_uses_before_the_next(archives, made):
    outcomes = indexing.carry_out(indexing.plan([archives]), lambda event: None)
    assert made == [("reader", "a.tgz"), ("mount", "a.tgz"), ("reader", "b.tgz"), ("mount", "b.tgz")]
    assert {one.state for one in outcomes} == {"indexed"}


def test_a_second_run_does_what_the_first_left(archives, made):
    made += [("reader", "a.tgz"), ("mount", "a.tgz"), ("reader", "b.tgz")]
    planned = indexing.plan([archives])
    assert [(one.use, one.archive.path.name) for one in planned.tasks] == [("mount", "b.tgz")]
    indexing.carry_out(planned, lambda event: None)
    assert indexing.plan([archives]).tasks == ()


def test_planning_writes_nothing(archives, made, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    indexing.plan([archives])
    assert sorted(tmp_path.rglob("*")) == before and made == []


def test_without_fuse_only_the_reader_is_served_and_it_is_said(archives, made, monkeypatch):
    monkeypatch.setattr(fuse, "missing", lambda: ("there is no /dev/fuse",))
    planned = indexing.plan([archives])
    assert {one.use for one in planned.tasks} == {"reader"} and "there is no /dev/fuse" in planned.notes[0]


@pytest.mark.parametrize("error, stops", [(DataError("cut"), False), (DiskError("full"), True)])
def test_a_broken_archive_does_not_stop_the_others_a_full_disk_does(
    archives, made, monkeypatch, error, stops
):
    def ensure(archive, on_wait):
        raise error

    monkeypatch.setattr(index, "ensure", ensure)
    planned = indexing.plan([archives])
    if stops:
        with pytest.raises(DiskError):
            indexing.carry_out(planned, lambda event: None)
        return
    states = [one.state for one in indexing.carry_out(planned, lambda event: None)]
    assert states == ["indexed", "failed"] * 2


def test_too_little_memory_refuses_before_anything_starts(archives, made):
    planned = indexing.plan([archives], machine=Machine(host=Host(memory_available_b=1 << 20)))
    with pytest.raises(MachineError, match="memory"):
        indexing.carry_out(planned, lambda event: None)
    assert made == []


def test_progress_ends_at_the_whole_archive(archives, made):
    events = []
    indexing.carry_out(indexing.plan([archives / "a.tgz"], ("reader",)), events.append)
    assert [event["done"] for event in events] == [0, 1] and events[-1]["total"] == 1


def test_a_folder_without_archives_is_said(tmp_path, made):
    with pytest.raises(DataError, match="no archive in"):
        indexing.plan([tmp_path])
