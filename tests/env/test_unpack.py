"""Members of packages: what is taken, and what is refused."""

import io
import stat
import tarfile
import zipfile

import pytest

from bevrepro.core import proc
from bevrepro.core.errors import DataError, MachineError
from bevrepro.env import unpack
from bevrepro.env.cuda_recipe import Part
from bevrepro.env.unpack import members, members_digest, take

GOOD = {"./usr/bin/nvcc": b"#!nvcc", "./usr/include/cuda.h": b"int x;", "./usr/share/doc/x": b"text"}
TAKE = (("usr/bin/nvcc", "bin/nvcc"), ("usr/include", "include"))


@pytest.fixture
def taken(tmp_path):
    def call(content, kind="deb", wanted=TAKE, home="home"):
        file = tmp_path / "package"
        file.write_bytes(content)
        (tmp_path / home).mkdir(exist_ok=True)
        (tmp_path / "scratch").mkdir(exist_ok=True)
        part = Part(kind, "p", "1", "pool/package", "0" * 64, len(content), wanted)
        take(part, file, tmp_path / home, tmp_path / "scratch")
        return tmp_path / home

    return call


def listed(home):
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("mode", ["w:xz", "w:gz", "w:"])
def test_a_deb_is_read_without_dpkg(taken, pack, mode):
    home = taken(pack.deb(GOOD, mode))
    assert listed(home) == ["bin/nvcc", "include/cuda.h"]
    assert (home / "bin/nvcc").stat().st_mode & 0o777 == 0o755
    assert (home / "include/cuda.h").read_bytes() == b"int x;"


def test_an_archive_of_nvidia_loses_the_folder_on_top_and_keeps_links(taken, pack):
    link = {"type": tarfile.SYMTYPE, "linkname": "libcudart.so.11.0"}
    top = "cuda_cudart-linux-x86_64-11.8.89-archive"
    content = pack.tar({f"{top}/lib/libcudart.so.11.0": b"\x7fELF", f"{top}/lib/libcudart.so": link})
    home = taken(content, "archive", (("lib", "lib64"), ("bin", "bin")))
    assert listed(home) == ["lib64/libcudart.so", "lib64/libcudart.so.11.0"]
    assert (home / "lib64/libcudart.so").read_bytes() == b"\x7fELF"


def test_a_wheel_is_taken_without_packages_markers(taken, pack):
    content = pack.wheel({"n/include/__init__.py": b"", "n/include/a.h": b"1", "n/bin/ptxas": b"2"})
    home = taken(content, "wheel", (("n/include", "include"), ("n/bin", "bin")))
    assert listed(home) == ["bin/ptxas", "include/a.h"]
    assert (home / "bin/ptxas").stat().st_mode & 0o111


def link_to(target, kind=tarfile.SYMTYPE):
    return {"type": kind, "linkname": target}


HOSTILE = {
    "climbs": {"./usr/include/../../../../x": b""},
    "absolute": {"/usr/include/x": b""},
    "climbs where nothing is taken": {**GOOD, "./other/../../x": b""},
    "backslashes": {"./usr/include/..\\x": b""},
    "link out": {"./usr/include/x": link_to("../../x")},
    "absolute link": {"./usr/include/x": link_to("/etc/passwd")},
    "through a link": {"./usr/include/d": link_to("."), "./usr/include/d/e": b""},
    "hard link": {**GOOD, "./usr/include/x": link_to("./usr/bin/nvcc", tarfile.LNKTYPE)},
    "device": {"./usr/include/x": {"type": tarfile.CHRTYPE}},
    "twice, differently": {"./usr/bin/nvcc": b"1", "usr/bin/nvcc": b"2"},
}


@pytest.mark.parametrize("members_", HOSTILE.values(), ids=HOSTILE)
def test_what_would_lie_elsewhere_is_refused(taken, pack, members_, tmp_path):
    with pytest.raises(DataError):
        taken(pack.deb(members_))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["n/include/../../../x", "/n/include/x"])
def test_a_wheel_that_climbs_is_refused(taken, pack, name):
    with pytest.raises(DataError, match="outside the folder"):
        taken(pack.wheel({name: b"1"}), "wheel", (("n/include", "include"),))


def test_a_link_in_a_wheel_stays_inside(taken, pack):
    link = {"mode": stat.S_IFLNK | 0o777, "content": "../../x"}
    with pytest.raises(DataError, match="points out of the tree"):
        taken(pack.wheel({"n/include/a": link}), "wheel", (("n/include", "include"),))


def test_two_packages_must_agree_on_a_file(taken, pack):
    taken(pack.deb(GOOD))
    taken(pack.deb(GOOD))
    with pytest.raises(DataError, match="is there already, with another content"):
        taken(pack.deb({**GOOD, "./usr/bin/nvcc": b"other"}))


@pytest.mark.parametrize("cut", [4, 100, 200, 350, -30])
def test_a_truncated_deb_is_damaged(taken, pack, cut):
    with pytest.raises(DataError):
        taken(pack.deb(GOOD)[:cut])


@pytest.mark.parametrize("content", [b"", b"PK", b"\x00" * 300])
@pytest.mark.parametrize("kind", ["deb", "archive", "wheel"])
def test_garbage_is_damaged(taken, kind, content):
    with pytest.raises(DataError):
        taken(content, kind)


def test_a_member_that_the_recipe_names_has_to_be_there(taken, pack):
    with pytest.raises(DataError, match="holds no usr/bin/nvcc"):
        taken(pack.deb({"./usr/include/cuda.h": b""}))


def test_a_way_of_packing_that_is_not_known_is_named(taken, pack):
    content = pack.deb(GOOD).replace(b"data.tar.xz ", b"data.tar.zst")
    with pytest.raises(DataError, match="compressed with zst"):
        taken(content)


def test_a_python_without_lzma_unpacks_by_the_program_xz(taken, pack, monkeypatch):
    monkeypatch.setattr(unpack, "HAS_LZMA", False)
    if proc.which("xz") is None:
        pytest.skip("there is no xz on PATH")
    assert listed(taken(pack.deb(GOOD))) == ["bin/nvcc", "include/cuda.h"]


def test_no_xz_at_all_is_said_with_the_package_to_install(taken, pack, monkeypatch):
    monkeypatch.setattr(unpack, "HAS_LZMA", False)
    monkeypatch.setattr(proc, "which", lambda name: None)
    with pytest.raises(MachineError, match="can unpack .xz"):
        taken(pack.deb(GOOD))


def test_the_digest_of_members_is_of_places_and_content_alone(pack):
    part = Part("wheel", "p", "1", "p.whl", "0" * 64, 1, (("n", "include"),))

    def digest(files):
        with zipfile.ZipFile(io.BytesIO(pack.wheel(files))) as archive:
            return members_digest(members(part, archive))

    first = digest({"n/a.h": b"1", "n/b.h": b"2", "big/x.so": b"3"})
    assert first == digest({"n/b.h": b"2", "n/a.h": b"1"})
    assert first != digest({"n/b.h": b"1", "n/a.h": b"2"})
