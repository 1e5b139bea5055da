"""An index that found no room: the disk is blamed, not the archive, and no half index stays."""

import types

import pytest

from bevrepro.core import proc
from bevrepro.core.errors import DataError, DiskError
from bevrepro.data import index
from bevrepro.data.archives import recognise


@pytest.mark.parametrize("free, error", [(0, DiskError), (1 << 30, DataError)])
def test_half_an_index_is_blamed_on_a_full_disk_only(tgz, system, monkeypatch, free, error):
    archive = recognise(tgz)

    def half(argv, **options):
        place = index.index_folder() / f"part-{index._digest(archive)}" / index.index_path(archive).name
        place.write_bytes(b"SQLite format 3\0" + bytes(4096))
        return proc.Done(0, "", "")

    monkeypatch.setattr(proc, "run", half)
    monkeypatch.setattr(index.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=free))
    with pytest.raises(error):
        index.ensure(archive)
    assert not index.index_path(archive).exists()
