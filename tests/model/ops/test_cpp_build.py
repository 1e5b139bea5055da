"""Building and keeping the C++ operators, with shell scripts as compilers."""

import fcntl
import os
import re
import stat
import threading
import time

import pytest
import torch

from bevformer.errors import ConfigError
from bevformer.ops.cpp import build, library
from bevformer.ops.cpp.build import built


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("BEVREPRO_BUILDS", raising=False)
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ops"


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """compiler(script) is what CXX names; the script knows $out, and its calls are written down."""

    def make(script, version="pretend 1.0"):
        path = tmp_path / "pretend"
        path.write_text(
            '#!/bin/sh\n[ "$1" = --version ] && { echo "%s"; exit; }\n' % version
            + 'echo "$@" >> "%s.log"\n' % path
            + 'for each; do [ "$last" = -o ] && out=$each; last=$each; done\n'
            + script
        )
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))
        return path

    return make


def calls(path):
    log = path.with_name(path.name + ".log")
    return log.read_text().splitlines() if log.exists() else []


def test_what_was_built_is_not_built_again(compiler):
    path = compiler('printf library > "$out"')
    assert built() == built() == b"library"
    assert len(calls(path)) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda at: at.write_bytes(b""),
        lambda at: at.write_bytes(at.read_bytes()[:-1]),
        lambda at: at.write_bytes(b"L" + at.read_bytes()[1:]),
        lambda at: at.chmod(0o666),
        lambda at: (at.unlink(), at.symlink_to("/dev/zero")),
    ],
    ids=["empty", "cut", "changed", "writable by all", "a link"],
)
def test_a_damaged_or_foreign_build_is_made_again(compiler, cache, change):
    path = compiler('printf library > "$out"')
    built()
    (kept,) = cache.glob("*.so")
    change(kept)
    assert built() == b"library"
    assert len(calls(path)) == 2 and stat.S_ISREG(kept.lstat().st_mode)


def test_another_compiler_torch_or_processor_means_another_build(compiler, cache, monkeypatch):
    for change in (
        lambda: compiler('printf library > "$out"'),
        lambda: compiler('printf library > "$out"', version="pretend 2.0"),
        lambda: monkeypatch.setattr(torch, "__version__", "0.1"),
        lambda: monkeypatch.setattr(build, "_machine", lambda: ("another",)),
        lambda: monkeypatch.setattr(build, "_FLAGS", ["-O1"]),
    ):
        change()
        built()
    assert len(list(cache.glob("*.so"))) == 5


def test_two_processors_of_which_an_old_kernel_lists_the_same_features_are_told_apart(tmp_path):
    names = ("Intel(R) Xeon(R) Platinum 8380", "Intel(R) Xeon(R) Platinum 8480C")
    for number, name in enumerate(names):
        cpus = "processor\t: 0\nmodel name\t: %s\ncpu MHz\t: 2%d00\nflags\t: fpu avx512f\n\n" % (name, number)
        (tmp_path / name).write_text(cpus + cpus.replace("8", "9"))
    found = [build.cpu_of(str(tmp_path / name)) for name in names]
    assert found[0] == ("model name\t: " + names[0], "flags\t: fpu avx512f") and found[0] != found[1]
    assert build.cpu_of(str(tmp_path / "none")) == () and build.cpu_of("/proc/cpuinfo")


def test_a_compiler_that_does_not_know_this_processor_builds_for_any(compiler):
    path = compiler(
        'case "$*" in *native*) echo "error: bad value native" >&2; exit 1;; esac; printf x > "$out"'
    )
    assert built() == b"x"
    assert ["native" in call for call in calls(path)] == [True, False]


@pytest.mark.parametrize(
    "script, word",
    [
        ('echo "attention.cpp:1:2: error: no such type" >&2; exit 1', "no such type"),
        ("exit 3", "ended with 3"),
        ("kill -9 $$", "ended with -9"),
        ("exit 0", "attention.so"),
    ],
    ids=["complains", "says nothing", "is killed", "writes nothing"],
)
def test_a_compiler_that_fails_is_quoted(compiler, script, word):
    compiler(script)
    with pytest.raises(ConfigError, match=word) as caught:
        built()
    assert "grid_sample" in caught.value.why and "ops.attention=reference" in caught.value.do


def test_one_that_hangs_is_ended_with_its_children(compiler, tmp_path, monkeypatch):
    compiler('sleep 1000 & echo $! > "%s"; wait' % (tmp_path / "child"))
    monkeypatch.setattr(build, "COMPILE_LIMIT_S", 0.5)
    with pytest.raises(ConfigError, match="still at work"):
        built()
    child = int((tmp_path / "child").read_text())
    for _ in range(100):  # until init has seen it
        if not os.path.exists("/proc/%d" % child) or "Z" in open("/proc/%d/stat" % child).read():
            return
        time.sleep(0.1)
    pytest.fail("the compiler's child still runs")


@pytest.mark.parametrize("name", ["", "/nowhere/g++ -m64"])
def test_no_compiler_is_said_with_what_to_install(tmp_path, monkeypatch, name):
    monkeypatch.setenv("CXX", name)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=re.escape((name.split() or ["clang++"])[0])) as caught:
        built()
    assert "apt-get install" in caught.value.do


def test_without_CXX_the_first_that_works_is_taken(tmp_path, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "%s:/bin" % tmp_path)
    for name, script in (
        ("g++", "exit 1"),
        ("c++", 'case "$1" in -*n) echo v;; *) printf y > "$out";; esac'),
    ):
        lines = ["#!/bin/sh", 'for each; do [ "$last" = -o ] && out=$each; last=$each; done', script]
        (tmp_path / name).write_text("\n".join(lines))
        (tmp_path / name).chmod(0o755)
    assert built() == b"y"


def test_a_cache_that_cannot_be_written_is_warned_of(compiler, tmp_path, monkeypatch):
    path = compiler('printf library > "$out"')
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        with pytest.warns(UserWarning, match="BEVREPRO_CACHE"):
            assert built() == b"library"
    assert len(calls(path)) == 2


def test_a_full_cache_is_warned_of_and_leaves_nothing_behind(compiler, cache, monkeypatch):
    compiler('printf library > "$out"')

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build.os, "fsync", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert built() == b"library"
    assert [each.suffix for each in cache.iterdir()] == [".lock"]


def test_two_at_once_build_it_once(compiler):
    path = compiler('sleep 0.3; printf library > "$out"')
    results = []
    both = [threading.Thread(target=lambda: results.append(built())) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert results == [b"library"] * 2 and len(calls(path)) == 1


def test_a_builder_that_is_stuck_is_not_waited_for(compiler, cache, monkeypatch):
    compiler('printf library > "$out"')
    monkeypatch.setattr(build, "COMPILE_LIMIT_S", 0.3)
    monkeypatch.setattr(build, "_compiled", lambda *args: b"library")
    where = build.place(build._compiler((os.environ["CXX"],)), build._CPU_FLAGS[0])
    cache.mkdir(parents=True)
    with open(where + ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert built() == b"library"


@pytest.mark.parametrize("has_memfd", [True, False])
def test_what_is_no_library_is_refused(compiler, monkeypatch, has_memfd):
    compiler('printf "no library" > "$out"')
    if not has_memfd:
        monkeypatch.delattr(library.os, "memfd_create")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        library.library.__wrapped__()
