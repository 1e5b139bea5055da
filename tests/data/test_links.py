"""Links that lead out of an archive keep it from being mounted."""

import os
import stat
import tarfile
import zipfile

import pytest

from bevrepro.core.errors import DataError
from bevrepro.data import index, links
from bevrepro.data.archives import recognise

from .conftest import write_tar


@pytest.mark.parametrize(
    "name, target, out",
    [
        ("samples/a", "b", False),
        ("samples/a", "../maps/b", False),
        ("/samples/a", "..", False),
        ("samples/a", "../..", True),
        ("a", "..", True),
        ("samples/a", "x/../../../b", True),
        ("samples/a", "/etc", True),
        ("..a", "..b", False),
    ],
)
def test_a_link_leads_out_when_it_points_above_the_top(name, target, out):
    assert links.leads_out(name, target) == out


def with_link(path, target):
    write_tar(path)
    entry = tarfile.TarInfo("samples/link")
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    with tarfile.open(path, "a") as tar:
        tar.addfile(entry)
    return recognise(path)


def test_a_tar_with_a_link_out_is_refused_and_one_within_is_not(tmp_path, system):
    for target in ("CAM_FRONT/00.jpg", "../../outside"):
        archive = with_link(tmp_path / f"{len(target)}.tar", target)
        index.ensure(archive)
        if ".." in target:
            with pytest.raises(DataError, match="a link out of itself: '/samples/link' -> '../../outside'"):
                links.check(archive)
        else:
            links.check(archive)


def test_a_zip_with_a_link_out_is_refused(tmp_path):
    info = zipfile.ZipInfo("can_bus/link")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("can_bus/whole.json", "[]")
        packed.writestr(info, os.path.join(os.sep, "etc"))
    with pytest.raises(DataError, match="a link out of itself"):
        links.check(recognise(tmp_path / "a.zip"))


def test_an_archive_of_files_passes(tar, system):
    index.ensure(recognise(tar))
    links.check(recognise(tar))
