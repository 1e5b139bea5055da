"""The builder on a target that takes a second: what stands afterwards, and what does after every accident."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from tests.env.build_world import make_sdist, make_wheel, make_world, newer_alpha, receipt

SLOW = pytest.mark.slow


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path / "w")


@pytest.fixture
def prefix(tmp_path):
    return tmp_path / "env"


def test_an_environment_is_built_tested_and_shown_by_a_link(world, prefix):
    code, out, err = world.build(prefix, "--json")
    told = json.loads(out)
    assert code == 0 and world.answer(prefix) == "one"
    assert prefix.is_symlink() and prefix.resolve().name == told["inputs_digest"][:16]
    assert told["packages"] == {"alpha": "1.0", "beta": "2.0"}
    assert [row["name"] for row in told["selftest"]] == ["torch", "devkit"]
    assert "packages, each checked against its hash" in err
    assert subprocess.run([prefix / "bin/beta"], capture_output=True, text=True).stdout == "beta\n"


def test_built_again_at_the_same_prefix_or_another_it_is_bit_identical(world, prefix, tmp_path):
    digests = []
    for place, words in (
        (prefix, ()),
        (prefix, ("--rebuild",)),
        (tmp_path / "x", ()),
    ):
        assert world.build(place, *words)[0] == 0
        digests.append(receipt(place)["digest"])
    assert len(set(digests)) == 1 and world.answer(prefix) == "one"
    assert len(list(tmp_path.glob("env.builds/[0-9a-f]*"))) == 2  # in use, and the one before


def test_what_is_there_is_not_built_again(world, prefix):
    world.build(prefix)
    before = (prefix / "bevrepro-env.json").stat().st_mtime_ns
    code, out, _ = world.build(prefix)
    assert code == 0 and "is there already" in out
    assert (prefix / "bevrepro-env.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "name",
    [
        "mit Leerzeichen 环境-ü",
        *(pytest.param(each, marks=SLOW) for each in ("a'b\"c", "-dash", "x=1;y", "%s$HOME")),
    ],
)
def test_prefixes_with_odd_names_work(world, tmp_path, name):
    folder = tmp_path / name / "env of mine"
    code, _, err = world.run(
        "env", "build", "--target", "tiny", f"--prefix={folder}", "--python", sys.executable
    )
    assert code == 0, err
    assert world.answer(folder) == "one"
    assert subprocess.run([folder / "bin/beta"], capture_output=True, text=True).stdout == "beta\n"
    assert world.run("env", "digest", f"--prefix={folder}")[0] == 0


def test_a_dry_run_writes_nothing(world, prefix, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = world.build(prefix, "--dry-run", "--json")
    assert code == 0 and [step["name"] for step in json.loads(out)["steps"]] == ["venv", "wheels", "selftest"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("make", ["folder", "file", "foreign link", "dead link"])
def test_what_is_not_ours_at_the_prefix_is_never_replaced(world, prefix, tmp_path, make):
    if make == "folder":
        prefix.mkdir()
        (prefix / "thesis.tex").write_text("mine")
    elif make == "file":
        prefix.write_text("mine")
    else:
        prefix.symlink_to(tmp_path if make == "foreign link" else tmp_path / "gone")
    before = os.lstat(prefix)
    code, _, err = world.build(prefix)
    assert code == 6 and "left alone" in err
    assert os.lstat(prefix).st_ino == before.st_ino and not prefix.with_name("env.builds").exists()


def lock_text(world, text):
    (world.root / "envs/locks/tiny.txt").write_text(text)


BROKEN = {
    "hash": (lambda w: None, 3, ["alpha==1.1", "sha256", "--index-url"]),
    "absent": (lambda w: next(w.wheels.glob("alpha-1.1*")).unlink(), 3, ["alpha==1.1", "--find-links"]),
    "edited": (lambda w: lock_text(w, "alpha==1.1\n"), 6, ["line 1", "env lock"]),
    "no-lock": (lambda w: (w.root / "envs/locks/tiny.txt").unlink(), 6, ["env lock"]),
}


@pytest.mark.parametrize(
    "break_it, code, words",
    [pytest.param(*row, id=name, marks=[SLOW] * (name != "hash")) for name, row in BROKEN.items()],
)
def test_a_broken_build_says_why_and_leaves_the_old_environment(world, prefix, break_it, code, words):
    assert world.build(prefix)[0] == 0
    newer_alpha(world)
    before = prefix.readlink()
    break_it(world)
    # The hash that was locked is that of the file before this.
    if "sha256" in words:
        make_wheel(world.wheels, "alpha", "1.1", {"alpha/__init__.py": "answer = 'stranger'\n"})
    got, _, err = world.build(prefix)
    assert got == code and all(word in err for word in words), err
    assert prefix.readlink() == before and world.answer(prefix) == "one"


@pytest.mark.parametrize(
    "broken, words",
    [pytest.param({"FAKE_FAILS": "1"}, "alpha two", marks=SLOW), ({"FAKE_DIES": "4"}, "SIGILL")],
)
def test_an_environment_that_fails_its_test_is_not_put_into_use(world, prefix, broken, words):
    world.build(prefix)
    newer_alpha(world)
    code, _, err = world.build(prefix, **broken)
    assert code == 9 and words in err and world.answer(prefix) == "one"
    code, _, err = world.build(prefix)  # only the test is done again
    assert code == 0 and "done before" in err and world.answer(prefix) == "two"


def test_an_unreachable_index_names_the_package_and_the_mirror_option(world, prefix):
    env = {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "UV_HTTP_RETRIES": "0"}
    code, _, err = world.build(prefix, "--index-url", "http://127.0.0.1:9/simple", **env)
    assert code == 3 and "cannot be reached" in err and "--index-url" in err
    assert "(alpha)" in err or "(beta)" in err


@SLOW
def test_a_mirror_given_by_hand_stands_in_for_pips_own(world, prefix, tmp_path):
    moved = tmp_path / "a mirror"
    shutil.move(world.wheels, moved)
    assert world.build(prefix)[0] == 3
    assert world.build(prefix, "--find-links", moved)[0] == 0 and world.answer(prefix) == "one"


def test_another_build_of_a_pinned_release_in_a_folder_of_wheels_is_not_taken_for_it(world, prefix):
    make_wheel(world.wheels, "alpha", "1.0+cpu", {"alpha/__init__.py": "answer = 'another'\n"})
    code, _, err = world.build(prefix)
    assert code == 0 and world.answer(prefix) == "one", err


def test_the_second_builder_names_the_first_or_waits(world, prefix):
    prefix.with_name("env.builds").mkdir()
    with open(prefix.with_name("env.builds") / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(json.dumps({"pid": 4711, "host": "there", "since": time.time()}))
        lock.flush()
        code, _, err = world.build(prefix)
        assert code == 3 and "4711 on there" in err and "--wait" in err
        waiting = world.start("env", "build", "--target", "tiny", "--prefix", prefix, "--wait",
                              "--python", sys.executable)  # fmt: skip
        assert any("Waiting for process 4711" in line for line in waiting.stderr)
        assert waiting.poll() is None
    waiting.communicate(timeout=60)
    assert waiting.returncode == 0 and world.answer(prefix) == "one"


@SLOW
def test_two_at_once_end_with_one_environment(world, prefix):
    words = ("env", "build", "--target", "tiny", "--prefix", prefix, "--python", sys.executable, "--wait")
    both = [world.start(*words) for _ in range(2)]
    outs = [each.communicate(timeout=60)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0] and world.answer(prefix) == "one"
    assert sum("is there already" in out for out in outs) == 1


def test_a_new_lock_makes_a_new_environment_beside_the_old(world, prefix):
    world.build(prefix)
    old = prefix.resolve()
    newer_alpha(world)
    assert world.build(prefix)[0] == 0
    assert world.answer(prefix) == "two" and world.answer(old) == "one"
    code, out, _ = world.run("env", "remove", "--prefix", prefix, "--prune")
    assert code == 0 and str(old) in out and not old.exists() and world.answer(prefix) == "two"


def test_removing_takes_what_is_ours_and_leaves_the_rest(world, prefix):
    world.build(prefix)
    builds = prefix.with_name("env.builds")
    (builds / "notes.txt").write_text("mine")
    code, out, err = world.run("env", "remove", "--prefix", prefix, "--dry-run")
    assert code == 0 and world.answer(prefix) == "one"
    code, out, err = world.run("env", "remove", "--prefix", prefix)
    assert code == 0 and "notes.txt" in err and not os.path.lexists(prefix)
    assert sorted(path.name for path in builds.iterdir()) == [".lock", "notes.txt"]
    assert world.run("env", "remove", "--prefix", prefix)[0] == 6


def test_a_program_runs_inside_with_the_targets_variables(world, prefix):
    world.build(prefix)
    code = "import os, sys, alpha; print(os.environ['TINY'], os.environ['BEVREPRO_ENV']); sys.exit(7)"
    got, out, _ = world.run("env", "run", "--prefix", prefix, "--", "python", "-c", code)
    assert got == 7 and out == "is set tiny\n"
    got, _, err = world.run("env", "run", "--prefix", prefix, "--", "pip", "install", "alpha")
    assert got == 6 and "no pip" in err


def test_the_digest_tells_an_edit(world, prefix):
    world.build(prefix)
    assert world.run("env", "digest", "--prefix", prefix)[0] == 0
    (prefix / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages/beta.py").write_text(
        "x = 1\n"
    )
    code, out, err = world.run("env", "digest", "--prefix", prefix)
    assert code == 1 and receipt(prefix)["digest"] in err


def add_sdist(world, **files):
    sdist = make_sdist(world.wheels, "gamma", "3.0", files)
    world.target(build='[build]\nsdists = ["gamma"]\nrequires = ["beta"]')
    world.lock(*sorted(world.wheels.glob("*.whl")), sdist)
    world.lock(world.wheels / "beta-2.0-py3-none-any.whl", name="tiny.build.txt")


def test_an_sdist_is_built_without_isolation_and_only_once(world, prefix, tmp_path):
    add_sdist(world)
    code, _, err = world.build(prefix, "--json", MAX_JOBS="3")
    assert code == 0, err
    assert receipt(prefix)["built"] == ["gamma"]
    code = "import gamma; print(gamma.value, gamma.built_with)"
    assert world.run("env", "run", "--prefix", prefix, "--", "python", "-c", code)[1] == "from source 3\n"
    # The wheel is kept: where building fails now, nothing is built.
    assert world.build(tmp_path / "other", BACKEND_FAILS="1", MAX_JOBS="3")[0] == 0
    code, _, err = world.build(tmp_path / "other", "--rebuild", BACKEND_FAILS="1")
    assert code == 9 and "nothing.h" in err and "bevrepro-env.log" in err
    assert world.answer(tmp_path / "other") == "one"


@SLOW
def test_a_cache_that_cannot_be_used_is_said_and_another_goes_on(world, prefix, tmp_path):
    add_sdist(world)
    (tmp_path / "taken").write_text("a file")
    code, _, err = world.build(prefix, BEVREPRO_CACHE=str(tmp_path / "taken"))
    assert code == 8 and "taken/work" in err and "Not a directory" in err and "BEVREPRO_CACHE" in err
    code, _, err = world.build(prefix)
    assert code == 0 and "done before" in err, err


@SLOW
def test_without_a_compiler_the_sentence_says_what_to_install(world, prefix, tmp_path):
    add_sdist(world, **{"tool.cpp": "int main() {}\n"})
    code, _, err = world.build(prefix, CXX="no-such-compiler")
    assert code == 3 and "no C++ compiler" in err and "apt-get install g++" in err


@SLOW
def test_an_sdist_of_another_content_is_refused(world, prefix):
    add_sdist(world)
    make_sdist(world.wheels, "gamma", "3.0", {"gamma.py": "value = 'stranger'\n"})
    code, _, err = world.build(prefix)
    assert code == 3 and "gamma==3.0" in err and "not the file that was locked" in err
