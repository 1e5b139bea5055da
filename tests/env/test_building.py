"""Building wheels from sdists: how many at once, where precompiled headers pay, what a failure says."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bevrepro.core.errors import DataError, DiskError, MachineError
from bevrepro.env import _cxx_child, build_variables, building, sdists, selftest, steps, target
from bevrepro.env.index import Index
from bevrepro.env.lockfile import Pin
from bevrepro.env.tree import sha256_of
from tests.env.build_world import make_sdist

CHILD = Path(_cxx_child.__file__)
GIB = 2**30


@pytest.mark.parametrize(
    "free_gib, limit_gib, cores, jobs",
    [(16, None, 8, 8), (16, None, 2, 2), (5, None, 8, 2), (1, None, 8, 1), (64, 4, 8, 2), (None, None, 8, 1)],
)
def test_compilers_run_as_many_as_memory_and_cores_allow(monkeypatch, free_gib, limit_gib, cores, jobs):
    text = f"MemAvailable: {free_gib * GIB // 1024} kB\n" if free_gib else None
    monkeypatch.setattr(building, "read_text", lambda path: text)
    monkeypatch.setattr(building, "memory_limit_b", lambda: limit_gib * GIB if limit_gib else None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert building.limit_jobs(2.0) == jobs


def test_flags_of_one_file_are_told_from_those_of_all():
    words = "-MMD -MF a.o.d -O3 -Iinc -c -c /s/a.cpp -o a.o -DX=1".split()
    assert _cxx_child.flags_of(words) == (["/s/a.cpp"], ["-O3", "-Iinc", "-DX=1"])


def compile_with(folder, name, header, *flags):
    argv = [
        sys.executable,
        "-I",
        CHILD,
        folder,
        header,
        "c++",
        *flags,
        "-c",
        name,
        "-o",
        name.with_suffix(".o"),
    ]
    return subprocess.run([str(word) for word in argv], capture_output=True, text=True)


def test_the_header_is_compiled_once_for_all_files(tmp_path):
    headers = tmp_path / "headers"
    headers.mkdir()
    for name in ("a", "b"):
        path = tmp_path / f"{name}.cpp"
        path.write_text(f"#include <vector>\nint {name}() {{ return std::vector<int>(3).size(); }}\n")
        assert compile_with(headers, path, "vector").returncode == 0
        assert path.with_suffix(".o").exists()
    assert len(list(headers.glob("*.gch"))) == 1
    compile_with(headers, tmp_path / "a.cpp", "vector", "-O2")
    assert len(list(headers.glob("*.gch"))) == 2  # other flags need another


def test_headers_of_another_place_need_another_compiled_header(tmp_path, monkeypatch):
    path = tmp_path / "a.cpp"
    path.write_text("#include <vector>\nstd::vector<int> a;\n")
    for place in ("one", "two", "two"):
        monkeypatch.setenv("CPATH", str(tmp_path / place))
        assert compile_with(tmp_path, path, "vector").returncode == 0
    assert len(list(tmp_path.glob("*.gch"))) == 2


def test_the_compiler_says_that_it_takes_the_compiled_header(tmp_path):
    path = tmp_path / "a.cpp"
    path.write_text("#include <vector>\nstd::vector<int> a;\n")
    taken = [
        line for line in compile_with(tmp_path, path, "vector", "-H").stderr.splitlines() if line[:1] == "!"
    ]
    assert [line.endswith(".h.gch") for line in taken] == [True]  # gcc marks one that does not fit with x


def test_a_header_that_does_not_compile_changes_nothing(tmp_path):
    path = tmp_path / "a.cpp"
    path.write_text("int a;\n")
    for _ in range(2):
        assert compile_with(tmp_path, path, "no/such/header.h").returncode == 0
    assert len(list(tmp_path.glob("*.failed"))) == 1
    path.write_text("not C++\n")
    assert compile_with(tmp_path, path, "vector").returncode != 0


@pytest.fixture
def job(tmp_path, monkeypatch):
    """What flags and the wheel's key are made from; its compiler says what version.txt holds."""
    compiler = tmp_path / "c++"
    compiler.write_text(f"#!/bin/sh\ncat {tmp_path}/version.txt\n")
    compiler.chmod(0o755)
    (tmp_path / "version.txt").write_text("c++ 12.2.0\n")
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))
    plan = SimpleNamespace(
        target=target.load("cpu-openmmlab-torch2"),
        index=Index(no_index=True),
        build=tmp_path / "build",
        patches=(),
        interpreter=SimpleNamespace(version="3.11.7", platform="linux-x86_64", base="/usr"),
        locks=SimpleNamespace(build={}, pins={}),
        unhashed=(),
    )
    return SimpleNamespace(plan=plan, work=tmp_path / "work")


def test_what_is_compiled_is_optimised_whatever_setuptools_makes_of_the_flags(job, tmp_path, monkeypatch):
    monkeypatch.setenv("CFLAGS", "-O1")
    env = building.build_environment(job, tmp_path)
    assert (
        env["CXXFLAGS"].startswith("-O3 ") and env["CFLAGS"].split().index("-O1") > 0
    )  # the last one counts
    assert "-g0" in env["CFLAGS"] and building.build_environment(job, None)["CFLAGS"] == "-O1"


PIN = Pin("mmcv-full", "1.7.2", None, ("0" * 64,))


def another_compiler(job):
    (job.work.parent / "version.txt").write_text("c++ 13.1.0\n")


def another_torch(job):
    job.plan.unhashed = ("torch==2.14.0+cpu",)


def another_pin(job):
    job.plan.locks.pins["numpy"] = Pin("numpy", "2.4.1", None, ())


def another_build_requirement(job):
    job.plan.locks.build["ninja"] = Pin("ninja", "1.13", None, ())


def other_operators(job):
    job.plan.target = target.with_operators(job.plan.target, ["nms"])


def another_setting(job):
    environment = {**job.plan.target.build.environment, "MMCV_WITH_OPS": "0"}
    build = replace(job.plan.target.build, environment=environment)
    job.plan.target = replace(job.plan.target, build=build)


@pytest.mark.parametrize(
    "change",
    [
        another_compiler, another_torch, another_pin, another_build_requirement, other_operators,
        another_setting,
        *({name: "-DA=1"} for name in (*build_variables.FLAGS[2:], *build_variables.CALLS)),
    ],
    ids=lambda change: next(iter(change)) if isinstance(change, dict) else change.__name__,
)  # fmt: skip
def test_whatever_changes_what_is_compiled_makes_another_wheel(job, monkeypatch, change):
    first = building.kept_folder(job, PIN).name
    assert building.kept_folder(job, PIN).name == first
    if isinstance(change, dict):
        monkeypatch.setenv(*next(iter(change.items())))
    else:
        change(job)
    assert building.kept_folder(job, PIN).name != first


def test_nvccs_flags_count_where_nvcc_is_called(job, monkeypatch):
    cpu, gpu = job.plan.target, replace(job.plan.target, cuda=target.Cuda("13.0", "12.0"))
    monkeypatch.setattr(building, "_toolkit", lambda job: {})
    for wanted, count in ((cpu, 1), (gpu, 1 + len(build_variables.NVCC_CALLS))):
        job.plan.target = wanted
        names = {building.kept_folder(job, PIN).name}
        for name in build_variables.NVCC_CALLS:
            with monkeypatch.context() as patch:
                patch.setenv(name, "-lineinfo")
                names.add(building.kept_folder(job, PIN).name)
        assert len(names) == count
    assert (
        build_variables.in_key({"PATH": "/bin", "MAX_JOBS": "2"}, cuda=True) == {}
    )  # then the name is as ever


@pytest.mark.parametrize("name", [*build_variables.DECIDED, "MAX_JOBS", "LD_LIBRARY_PATH"])
def test_what_the_target_decides_reaches_no_build_and_so_makes_no_other_wheel(job, monkeypatch, name):
    first = building.kept_folder(job, PIN).name
    monkeypatch.setenv(name, "8.0")
    assert building.kept_folder(job, PIN).name == first
    reaches = building.build_environment(job, None).get(name) == "8.0"
    assert reaches == (name not in build_variables.DECIDED)
    assert (f"{name} (" in (build_variables.said(os.environ) or "")) == (name in build_variables.DECIDED)


def test_a_gpu_of_the_machine_does_not_decide_what_is_compiled(job, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert building.build_environment(job, None)["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize("name, seen", [("cpu-openmmlab", ""), ("a100", "0")])
def test_the_self_test_of_a_target_for_cpus_sees_no_gpu(job, monkeypatch, name, seen):
    told = {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(selftest, "run", lambda python, checks, env, on_line: told.update(env) or ())
    job.plan.target, job.said, job.log, job.write_log = target.load(name), {}, "log", print
    job.python = "python"
    steps.run_selftest(job)
    assert told["CUDA_VISIBLE_DEVICES"] == seen


def test_objects_of_a_build_that_was_cut_off_serve_the_same_wheel_only(job, tmp_path, monkeypatch):
    archive = make_sdist(tmp_path, "gamma", "3.0")
    pin, job.afresh = pin_of(archive), False
    left = building._source(job, pin, archive) / "a.o"
    left.touch()
    assert building._source(job, pin, archive) == left.parent and left.exists()
    monkeypatch.setenv("CPATH", "/opt/include")
    assert building._source(job, pin, archive) == left.parent and not left.exists()


def pin_of(path, *hashes):
    return Pin("gamma", "3.0", None, hashes or (sha256_of(path),))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["my cache", "it's", "a$b", "x;y", "ünï-1.0_+"])
def test_a_cache_whose_path_compilers_take_apart_is_named(job, tmp_path, monkeypatch, name):
    monkeypatch.setenv("CXX", "no-such-compiler")
    job.work = tmp_path / name
    said = "no C\\+\\+ compiler" if name.startswith("ü") else "stumble over the path of the cache"
    with pytest.raises(MachineError, match=said):
        building.check_compiler(job)


def test_a_wheel_that_is_not_alone_is_built_again_and_then_is(tmp_path):
    """Two of one name and version: uv could take the other, and the first by name would never be sound."""
    kept, wheel = tmp_path / "kept", tmp_path / "g-1.0-py3-none-any.whl"
    wheel.write_bytes(b"compiled")
    building._keep(wheel, kept)
    assert building._sound(kept).read_bytes() == b"compiled"
    (kept / "aaa-1.0-py3-none-any.whl").write_bytes(b"stranger")
    assert building._sound(kept) is None
    building._keep(wheel, kept)
    assert building._sound(kept).name == wheel.name


def test_a_place_in_the_cache_that_cannot_be_used_is_said(tmp_path):
    wheel, kept = tmp_path / "g-1.0-py3-none-any.whl", tmp_path / "kept"
    wheel.write_bytes(b"compiled")
    kept.write_text("a file")
    with pytest.raises(DiskError, match="could not keep g-1.0.*File exists"):
        building._keep(wheel, kept)


def test_an_sdist_is_found_in_a_folder_and_then_in_the_cache(tmp_path, cache):
    path = make_sdist(tmp_path / "links", "gamma", "3.0")
    pin = pin_of(path)
    kept = sdists.obtain(pin, Index(no_index=True, find_links=(str(tmp_path / "links"),)))
    path.unlink()
    assert sdists.obtain(pin, Index(no_index=True)) == kept and sha256_of(kept) in pin.hashes
    kept.write_bytes(b"another")
    with pytest.raises(MachineError, match="not to be had"):
        sdists.obtain(pin, Index(no_index=True))


def test_an_sdist_is_found_on_an_index_page(tmp_path, cache, mirror):
    path = make_sdist(tmp_path, "gamma", "3.0")
    mirror.add(
        "simple/gamma/",
        b'<a href="../../f/gamma-2.0.tar.gz">x</a><a href="/f/gamma-3.0.tar.gz#sha256=0">y</a>',
    )
    mirror.add("f/gamma-3.0.tar.gz", path.read_bytes())
    found = sdists.obtain(pin_of(path), Index(index_url=f"{mirror.url}/simple"))
    assert found.read_bytes() == path.read_bytes()


def test_a_private_index_sees_its_user_for_the_sdist_too(tmp_path, cache, mirror):
    path = make_sdist(tmp_path, "gamma", "3.0")
    mirror.add("simple/gamma/", b'<a href="/f/gamma-3.0.tar.gz">y</a>')
    mirror.add("f/gamma-3.0.tar.gz", path.read_bytes())
    private = mirror.url.replace("//", "//me:secret@")
    sdists.obtain(pin_of(path), Index(index_url=f"{private}/simple"))
    assert [authorization is not None for _, _, authorization in mirror.asked] == [True, True]


def test_an_sdist_comes_through_the_proxy_that_pip_is_told_of(tmp_path, cache, mirror):
    path = make_sdist(tmp_path, "gamma", "3.0")
    mirror.add("http://nowhere.invalid/simple/gamma/", b'<a href="/gamma-3.0.tar.gz">y</a>')
    mirror.add("http://nowhere.invalid/gamma-3.0.tar.gz", path.read_bytes())
    found = sdists.obtain(pin_of(path), Index(index_url="http://nowhere.invalid/simple", proxy=mirror.url))
    assert found.read_bytes() == path.read_bytes()


def test_an_sdist_of_another_hash_is_refused_and_not_kept(tmp_path, cache):
    make_sdist(tmp_path / "links", "gamma", "3.0")
    with pytest.raises(MachineError, match="not the file that was locked"):
        sdists.obtain(pin_of(None, "0" * 64), Index(no_index=True, find_links=(str(tmp_path / "links"),)))
    assert not list((tmp_path / "cache/sdists/gamma").iterdir())


@pytest.mark.parametrize("name", ["../evil.py", "/abs.py", "gamma-3.0/../../evil.py"])
def test_an_sdist_that_climbs_out_is_refused(tmp_path, name):
    import io
    import tarfile

    path = tmp_path / "gamma-3.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        archive.addfile(member, io.BytesIO(b""))
    with pytest.raises(DataError, match="outside"):
        sdists.unpack(path, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08"])
def test_a_damaged_sdist_is_said_to_be(tmp_path, content):
    path = tmp_path / "gamma-3.0.tar.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="gamma-3.0"):
        sdists.unpack(path, tmp_path / "out")
