"""A toolkit assembled from small packages on a mirror on localhost, and every way in which that can fail."""

import errno
import json
import os
from pathlib import Path

import pytest

from bevrepro.core.errors import ConfigError, DataError, DiskError, MachineError
from bevrepro.env import cuda_recipe, debs, host_compiler, nvcc_check, obtain, toolkit, toolkit_tree, unpack
from bevrepro.env.index_wheels import Indexes
from bevrepro.env.toolkit import Sources, make_toolkit, plan, read_toolkit

NVCC = b"""#!/bin/sh
[ "$1" = --version ] && echo "release 11.8, V11.8.89" && exit 0
while [ "$1" != -o ]; do shift; done
printf '\\177ELF' > "$2"
"""
TREE = {
    "bin/nvcc": NVCC, "bin/cudafe++": b"1", "bin/fatbinary": b"2", "bin/ptxas": b"3", "nvvm/bin/cicc": b"4",
    "nvvm/libdevice/libdevice.10.bc": b"BC", "include/cuda_runtime.h": b"", "include/crt/host_config.h": b"",
}  # fmt: skip
HEADERS = {"nvidia/cublas/include/cublas_v2.h": b"int cublas;", "nvidia/cublas/lib/libcublas.so": b"\x7fELF"}
GXX = b"#!/bin/sh\necho '#define __GNUC__ 11'\n"
FIXED = (Path("/usr/bin/gcc-11"), Path("/usr/bin/g++-11"), 11)


def toml_row(kind, row):
    lines = [f"[[{kind}]]", *(f"{key} = {json.dumps(value)}" for key, value in row.items())]
    return "\n".join(lines) + "\n"


class Shop:
    """The mirror with packages, the recipe 1.0 that names them, and where toolkits go."""

    def __init__(self, mirror, pack, folder):
        self.mirror, self.pack, self.folder = mirror, pack, folder
        self.indexes = Indexes((f"{mirror.url}/simple",))
        self.rows = {}
        self.fill()

    def fill(self):
        top = "cuda_nvcc-linux-x86_64-1.0-archive"
        self.put("redist.archive", "cuda_nvcc", f"cuda_nvcc/linux-x86_64/{top}.tar.xz",
                 self.pack.tar({f"{top}/{name}": content for name, content in TREE.items()}),
                 [["bin", "bin"], ["nvvm", "nvvm"], ["include", "include"]])  # fmt: skip
        self.put("deb.package", "toolkit", "pool/toolkit_1.0.deb",
                 self.pack.deb({f"./usr/{name}": content for name, content in TREE.items()}),
                 [[f"usr/{name}", name] for name in ("bin", "nvvm", "include")])  # fmt: skip
        wheel = self.put("wheel", "cublas", "cublas-1.0-py3-none-any.whl", self.pack.wheel(HEADERS),
                         [["nvidia/cublas/include", "include"], ["nvidia/cublas/lib", "lib64"]])  # fmt: skip
        page = f'<a href="../../{wheel["path"]}#sha256={wheel["sha256"]}">x</a>'
        self.mirror.add("simple/cublas/", page.encode())
        self.put("gcc.package", "gcc", "pool/gcc_11.deb", self.pack.deb({"./usr/bin/t-g++-11": GXX}),
                 [["usr/bin", "usr/bin"]])  # fmt: skip
        self.say_manifest()

    def put(self, kind, name, path, content, take):
        row = {"name": name, "version": "1.0", **self.mirror.add(path, content), "take": take}
        self.rows[kind] = row
        return row

    def say_manifest(self, **changed):
        row = self.rows["redist.archive"]
        entry = {"relative_path": row["path"], "sha256": row["sha256"], **changed}
        manifest = {"cuda_nvcc": {"linux-x86_64": entry}}
        self.mirror.add("redistrib_1.0.json", json.dumps(manifest).encode())

    def write(self):
        (self.folder / "cuda/compilers").mkdir(parents=True, exist_ok=True)
        (self.folder / "cuda/nvcc.profile").write_text("TOP = $(_HERE_)/..\n")
        head = """version = "1.0"\nnvcc = "11.8.89"\ntitle = "x"\nplatform = "linux-x86_64"\nsource = "x"
checked = "x"\nsources = ["redist", "deb"]\n[host]\nnewest_gcc = 11\ncompiler = "gcc"
[architectures]\nlist = ["sm_80"]\n[links]\n"lib64/libcublas.so.1" = "libcublas.so"\n"lib" = "lib64"\n"""
        redist = (
            f'[redist]\nurl = "{self.mirror.url}"\nmanifest = "redistrib_1.0.json"\nwheels = ["cublas"]\n'
        )
        rows = [toml_row(kind, row) for kind, row in self.rows.items() if kind != "gcc.package"]
        text = head + redist + '[deb]\nwheels = ["cublas"]\n' + "".join(rows)
        (self.folder / "cuda/1.0.toml").write_text(text)
        compiler = 'name = "gcc"\nmajor = 11\ntriplet = "t"\nglibc = "2.34"\nsource = "x"\nchecked = "x"\n'
        compiler += toml_row("package", self.rows["gcc.package"])
        (self.folder / "cuda/compilers/gcc.toml").write_text(compiler)

    def make(self, into, **sources):
        self.write()
        mirrors = {"deb_mirror": self.mirror.url, "indexes": self.indexes}
        self.notes = []
        return make_toolkit("1.0", into, Sources(**{**mirrors, **sources}), self.notes.append)

    def said(self):
        return "\n".join(event["text"] for event in self.notes if event["event"] == "note")


@pytest.fixture
def shop(mirror, pack, tmp_path, monkeypatch):
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cuda_recipe, "envs_dir", lambda: tmp_path / "envs")
    monkeypatch.setattr(debs, "HELPER", tmp_path / "none")
    monkeypatch.setattr(toolkit.platform, "machine", lambda: "x86_64")
    pair = host_compiler.HostCompiler(*FIXED)
    monkeypatch.setattr(host_compiler, "found", lambda newest: (pair, "it is gcc 11"))
    return Shop(mirror, pack, tmp_path / "envs")


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.mark.parametrize("kind", ["redist", "deb"])
def test_each_source_gives_a_toolkit_that_compiles_and_links(shop, tmp_path, kind):
    made = shop.make(tmp_path / "a prefix é" / "cuda", kinds=(kind,))
    assert made.source == kind and made.home == tmp_path / "a prefix é" / "cuda"
    assert (made.home / "lib").readlink() == Path("lib64")
    assert (made.home / "lib/libcublas.so.1").read_bytes() == b"\x7fELF"
    assert (made.home / "host/bin/g++").readlink() == Path("/usr/bin/g++-11")
    assert nvcc_check.check(made.home, "sm_80").nvcc == "11.8.89"
    assert leftovers(tmp_path / "cache/cuda/files") == [] and leftovers(made.home.parent) == ["cuda"]


def test_both_sources_of_the_same_files_give_the_same_digest_anywhere(shop, tmp_path):
    one, two = shop.make(tmp_path / "1", kinds=("redist",)), shop.make(tmp_path / "2", kinds=("deb",))
    assert one.digest == two.digest and read_toolkit(tmp_path / "2").digest == two.digest


def test_a_second_time_nothing_is_asked(shop, tmp_path):
    first = shop.make(tmp_path / "cuda")
    asked = len(shop.mirror.asked)
    assert shop.make(tmp_path / "cuda").digest == first.digest
    assert shop.make(tmp_path / "other").digest == first.digest and len(shop.mirror.asked) == asked


def test_removing_the_cache_does_no_harm(shop, tmp_path):
    made = shop.make(tmp_path / "cuda")
    toolkit_tree.shutil.rmtree(tmp_path / "cache")
    assert toolkit_tree.is_whole(made.home)


@pytest.mark.parametrize("name", ["bin/ptxas", "lib64/libcublas.so"])
def test_an_edit_is_noticed_and_made_good(shop, tmp_path, name):
    made = shop.make(tmp_path / "cuda")
    (made.home / name).write_bytes(b"edited")  # the cache's own file as well: a hard link
    again = shop.make(tmp_path / "cuda")
    assert again.digest == made.digest and (made.home / name).read_bytes() != b"edited"


def test_half_a_toolkit_is_completed(shop, tmp_path):
    made = shop.make(tmp_path / "cuda")
    (made.home / "nvvm/bin/cicc").unlink()
    (made.home / "host/bin/g++").unlink()
    again = shop.make(tmp_path / "cuda")
    assert (again.home / "nvvm/bin/cicc").exists() and again.host_compiler is not None


def test_the_next_source_is_taken_where_one_is_not_reached(shop, tmp_path):
    made = shop.make(tmp_path / "cuda", mirror="http://127.0.0.1:9")
    assert made.source == "deb"


def test_a_source_whose_mirror_is_named_comes_first_and_a_mirror_may_be_a_folder(shop, tmp_path):
    assert shop.make(tmp_path / "1").source == "deb"  # its mirror was named, that of redist was not
    row, manifest = shop.rows["redist.archive"], "redistrib_1.0.json"
    for path in (row["path"], manifest):
        (tmp_path / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / path).write_bytes(shop.mirror.files[path])
    mirror = str(tmp_path / "copy")
    made = shop.make(tmp_path / "2", mirror=mirror, deb_mirror=None, kinds=("redist",))
    assert made.source == "redist"


def test_where_no_source_is_reached_each_is_named_with_its_reason(shop, tmp_path):
    with pytest.raises(MachineError) as caught:
        shop.make(tmp_path / "cuda", mirror="http://127.0.0.1:9", deb_mirror=f"{shop.mirror.url}/none")
    assert "- redist: http://127.0.0.1:9/redistrib_1.0.json: Connection refused" in caught.value.why
    assert "toolkit_1.0.deb: HTTP 404" in caught.value.why and "--deb-mirror" in caught.value.do
    assert not (tmp_path / "cuda").exists()


@pytest.mark.parametrize("kind", ["redist.archive", "deb.package", "wheel"])
def test_any_changed_byte_of_a_package_is_refused(shop, tmp_path, kind):
    path = shop.rows[kind]["path"]
    whole = shop.mirror.files[path]
    shop.mirror.files[path] = whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]
    source = "redist" if kind == "redist.archive" else "deb"
    with pytest.raises(DataError, match="could not be had") as caught:
        shop.make(tmp_path / "cuda", kinds=(source,))
    assert "not the file that was measured" in caught.value.why and not (tmp_path / "cuda").exists()
    shop.mirror.files[path] = whole
    assert shop.make(tmp_path / "cuda", kinds=(source,)).source == source


@pytest.mark.parametrize("changed", [{"sha256": "0" * 64}, {"relative_path": "x.tar.xz"}])
def test_a_manifest_that_says_otherwise_is_refused(shop, tmp_path, changed):
    shop.say_manifest(**changed)
    with pytest.raises(DataError) as caught:
        shop.make(tmp_path / "cuda", kinds=("redist",))
    assert "not the one that was measured" in caught.value.why


@pytest.mark.parametrize("text", [b"<html>", b"{}", b"[]", b'{"cuda_nvcc": 1}'])
def test_what_is_no_manifest_is_refused(shop, tmp_path, text):
    shop.mirror.add("redistrib_1.0.json", text)
    with pytest.raises(DataError):
        shop.make(tmp_path / "cuda", kinds=("redist",))


def test_a_package_that_climbs_out_is_refused_even_with_the_right_hash(shop, tmp_path):
    content = shop.pack.deb({"./usr/bin/../../../evil": b"x"})
    shop.put("deb.package", "toolkit", "pool/toolkit_1.0.deb", content, [["usr/bin", "bin"]])
    with pytest.raises(DataError, match="outside the folder"):
        shop.make(tmp_path / "cuda", kinds=("deb",))
    assert leftovers(tmp_path / "cache/cuda/trees") == []


STAGES = [
    (obtain, "fetch"),
    (toolkit_tree, "take"),
    (toolkit_tree, "tree_digest"),
    (os, "rename"),
    (os, "link"),
]


@pytest.mark.parametrize("module, name", STAGES, ids=[name for _, name in STAGES])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_stop_at_any_stage_leaves_nothing_half_made_and_a_rerun_finishes(
    shop, tmp_path, monkeypatch, module, name, error
):
    def stop(*words, **more):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(module, name, stop)
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else DiskError):
            shop.make(tmp_path / "cuda", kinds=("redist",))
    assert not (tmp_path / "cuda").exists() and not list(tmp_path.glob(".cuda*"))
    assert not list((tmp_path / "cache/cuda/trees").glob(".new-*"))
    assert shop.make(tmp_path / "cuda", kinds=("redist",)).source == "redist"


def test_what_a_killed_command_left_is_swept(shop, tmp_path):
    left = [tmp_path / "cache/cuda/trees/.new-abc", tmp_path / ".cuda.new-abc", tmp_path / ".cuda.old-1"]
    for folder in left:
        (folder / "tree/bin").mkdir(parents=True)
    shop.make(tmp_path / "cuda")
    assert not any(folder.exists() for folder in left)


def test_a_full_disk_is_said_before_the_download(shop, tmp_path, monkeypatch):
    usage = toolkit_tree.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(toolkit_tree.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskError, match="MiB are needed"):
        shop.make(tmp_path / "cuda")


def test_a_cache_that_cannot_be_written_is_named(shop, tmp_path, monkeypatch):
    monkeypatch.setenv("BEVREPRO_CACHE", "/dev/null/cache")
    with pytest.raises(DiskError, match="/dev/null/cache/cuda cannot be written") as caught:
        shop.make(tmp_path / "cuda")
    assert "BEVREPRO_CACHE" in caught.value.do


def test_on_another_disk_the_files_are_copied(shop, tmp_path, monkeypatch):
    def refuse(*words):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    made = shop.make(tmp_path / "cuda")
    assert toolkit_tree.is_whole(made.home) and (made.home / "bin/nvcc").stat().st_nlink == 1


@pytest.mark.parametrize("there", ["file", "folder", "link", "other version"])
def test_what_is_somebody_elses_is_left_alone(shop, tmp_path, there):
    into = tmp_path / "cuda"
    if there == "file":
        into.write_text("mine")
    elif there == "link":
        (tmp_path / "theirs").mkdir()
        into.symlink_to(tmp_path / "theirs")
    else:
        into.mkdir()
        receipt = {"version": "0.9", "digest": "", "source": "", "recipe": ""}
        (into / ("mine" if there == "folder" else toolkit_tree.RECEIPT)).write_text(json.dumps(receipt))
    before = leftovers(into) if into.is_dir() else into.read_text()
    with pytest.raises(ConfigError):
        shop.make(into)
    assert before == (leftovers(into) if into.is_dir() else into.read_text())


def test_an_empty_folder_is_taken(shop, tmp_path):
    (tmp_path / "cuda").mkdir()
    assert shop.make(tmp_path / "cuda").home == tmp_path / "cuda"


def test_a_compiler_is_fetched_where_the_machine_has_none(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(host_compiler, "found", lambda newest: (None, "g++ is gcc 14"))
    made = shop.make(tmp_path / "cuda")
    assert "g++ is gcc 14" in shop.said()
    assert "t-g++-11" in (made.home / "host/bin/g++").read_text() and (made.home / "host/usr/bin").is_dir()
    assert made.environment["CXX"] == str(made.home / "host/bin/g++")
    asked = len(shop.mirror.asked)
    assert shop.make(tmp_path / "other").host_compiler and len(shop.mirror.asked) == asked


def test_a_fetched_compiler_that_does_not_run_here_is_not_used(shop, tmp_path, monkeypatch):
    content = shop.pack.deb({"./usr/bin/t-g++-11": b"#!/bin/sh\nexit 127\n"})
    shop.put("gcc.package", "gcc", "pool/gcc_11.deb", content, [["usr/bin", "usr/bin"]])
    monkeypatch.setattr(host_compiler, "found", lambda newest: (None, "none"))
    assert shop.make(tmp_path / "cuda").host_compiler is None
    assert "does not run here: it needs glibc 2.34 or newer" in shop.said()


def test_a_compiler_that_cannot_be_had_is_said_and_looked_for_again(shop, tmp_path, monkeypatch):
    content = shop.mirror.files.pop("pool/gcc_11.deb")
    monkeypatch.setattr(host_compiler, "found", lambda newest: (None, "none"))
    assert shop.make(tmp_path / "cuda").host_compiler is None
    assert "without one nothing compiles" in shop.said() and "HTTP 404" in shop.said()
    shop.mirror.files["pool/gcc_11.deb"] = content
    assert shop.make(tmp_path / "cuda").host_compiler is not None


def test_offline_it_comes_from_a_folder_of_packed_files_or_from_a_toolkit(shop, tmp_path, monkeypatch):
    packed = tmp_path / "packed"
    packed.mkdir()
    for kind in ("deb.package", "wheel"):
        path = shop.rows[kind]["path"]
        (packed / path.rsplit("/", 1)[-1]).write_bytes(shop.mirror.files[path])
    with pytest.raises(MachineError, match="could not be had"):
        shop.make(tmp_path / "1", offline=True)
    made = shop.make(tmp_path / "1", offline=True, folders=(packed,))
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "empty"))
    again = shop.make(tmp_path / "2", offline=True, folders=(made.home,))
    assert again.digest == made.digest and shop.mirror.asked == []


def test_another_machine_is_told_what_the_recipe_is_for(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(toolkit.platform, "machine", lambda: "aarch64")
    with pytest.raises(MachineError, match="this is linux-aarch64"):
        shop.make(tmp_path / "cuda")


def test_an_unknown_source_lists_the_recipes_own(shop, tmp_path):
    with pytest.raises(ConfigError, match="cannot be made from 'wheels'"):
        shop.make(tmp_path / "cuda", kinds=("wheels",))


def test_a_plan_asks_nobody_and_writes_nothing(shop, tmp_path):
    shop.write()
    planned = plan("1.0", tmp_path / "cuda", Sources())
    assert [source["kind"] for source in planned["sources"]] == ["redist", "deb"]
    assert planned["host_compiler"] == "/usr/bin/g++-11" and not planned["there"]
    assert shop.mirror.asked == [] and not (tmp_path / "cache").exists()


def test_only_headers_of_a_large_wheel_are_fetched_and_kept(shop, tmp_path, monkeypatch):
    rows = [["nvidia/cublas/include", "include"]]
    shop.rows["wheel"] |= {"take": rows}
    part = cuda_recipe.Part(
        "wheel", "cublas", "1.0", "x", "0" * 64, 1, (("nvidia/cublas/include", "include"),)
    )
    with unpack.zipfile.ZipFile(unpack.io.BytesIO(shop.mirror.files[shop.rows["wheel"]["path"]])) as archive:
        shop.rows["wheel"]["members_sha256"] = unpack.members_digest(unpack.members(part, archive))
    made = shop.make(tmp_path / "cuda", kinds=("deb",))
    assert (made.home / "include/cublas_v2.h").read_bytes() == b"int cublas;"
    assert all(ask[1] for ask in shop.mirror.asked if ask[0].endswith(".whl"))
