"""Engines: which one works, the command line as data, and what a failed build tells."""

import json
import shutil
import stat
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from bevrepro.core import proc
from bevrepro.core.errors import ChildError, DiskError, MachineError
from bevrepro.env import container_engine as engines
from bevrepro.env.container import make_recipe
from bevrepro.env.container_engine import Engine, Plan
from bevrepro.env.target import load

INFO = {"host": {"OCIRuntime": ""}, "store": {"GraphRoot": "/var/lib/containers/storage"}}
PODMAN = {"host": {"ociRuntime": {"path": "/usr/bin/crun"}}, "store": {"graphRoot": "/home/me/containers"}}
USAGE = namedtuple("USAGE", "total used free")


@pytest.fixture
def machine(monkeypatch):
    """A machine with the named engines and what each answers."""

    def make(**answers):
        monkeypatch.setattr(proc, "which", lambda name: Path(f"/bin/{name}") if name in answers else None)
        monkeypatch.setattr(proc, "run", lambda argv, **more: answers[Path(argv[0]).name])

    return make


@pytest.fixture
def recipe():
    return make_recipe(load("cpu"), "debian:bookworm")


def planned(recipe, engine="docker", secrets=(), options=(), **more):
    made = Engine(engine, Path(f"/bin/{engine}"), **more)
    return engines.command(made, recipe, Path("/c"), Path("/w"), secrets, "t", options)


def test_a_docker_client_without_its_daemon_is_passed_over(machine):
    dead = proc.Done(1, "", "x\nCannot connect to the Docker daemon at unix:///run/docker.sock.\n")
    machine(docker=dead, buildah=proc.Done(0, json.dumps(INFO), ""))
    engine = engines.choose(None)
    assert (engine.name, engine.runtime, str(engine.storage)) == (
        "buildah",
        False,
        "/var/lib/containers/storage",
    )
    with pytest.raises(MachineError, match="docker.*does not answer: Cannot connect"):
        engines.choose("docker")


def test_podman_tells_of_its_runtime_and_storage(machine):
    machine(podman=proc.Done(0, json.dumps(PODMAN), ""))
    engine = engines.choose(None)
    assert engine.runtime and engine.storage == Path("/home/me/containers")


@pytest.mark.parametrize("said", ["", "[]", '{"host": 3}', "not json", '{"store": {}}'])
def test_an_engine_that_answers_oddly_still_builds(machine, said):
    machine(buildah=proc.Done(0, said, ""))
    assert engines.choose("buildah").storage is None


def test_without_an_engine_the_error_lists_what_was_looked_for(machine):
    machine()
    with pytest.raises(MachineError) as caught:
        engines.choose(None)
    assert all(f"{name} is not on PATH" in caught.value.seen for name in ("docker", "podman", "buildah"))
    assert "--out" in caught.value.do


def test_every_engine_gets_a_fixed_date_and_secrets_as_files(recipe):
    for name in engines.ENGINES:
        words = planned(recipe, name, ("pip",), ("--pull",)).argv
        assert words[:2] == (f"/bin/{name}", "build") and words[-2:] == ("--pull", "/c")
        assert "id=pip,src=/w/pip" in words and "315532800" in " ".join(words)
    assert "--isolation" not in planned(recipe, "buildah").argv
    assert "chroot" in planned(recipe, "buildah", runtime=False).argv


def test_a_disk_that_is_too_small_is_told_before_anything_starts(recipe, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: USAGE(9, 9, 2**30))
    with pytest.raises(DiskError, match=r"1.0 GiB are free.*cpu needs 5 GiB"):
        engines.refuse_full_disk(Engine("buildah", None, storage=tmp_path / "not/there"), recipe)
    engines.refuse_full_disk(Engine("docker", None), recipe)


SCRIPT = """#!/bin/sh
while [ $# -gt 1 ]; do [ "$1" = --iidfile ] && out=$2; [ "$1" = --secret ] && secret=${2#*src=}; shift; done
ls -l "$secret" | cut -c 1-10; cat "$secret"; echo >&2 talk; printf sha256:1 > "$out"; exit %d
"""


def fake(tmp_path, rc):
    path = tmp_path / "docker"
    path.write_text(SCRIPT % rc)
    path.chmod(0o755)
    return Engine("docker", path)


def test_secrets_are_private_files_that_are_gone_afterwards(recipe, tmp_path):
    heard, work = [], tmp_path / "work"
    work.mkdir()
    plan = engines.command(fake(tmp_path, 0), recipe, tmp_path, work, ("pip",), "t")
    built = engines.run(plan, {"pip": b"word\n"}, work, heard.append)
    assert sorted(heard) == ["-rw-------", "talk", "word"] and built.image == "sha256:1"
    assert [path.name for path in work.iterdir()] == ["image"]


def test_an_engine_that_fails_in_the_middle_shows_its_last_lines(recipe, tmp_path):
    plan = engines.command(fake(tmp_path, 7), recipe, tmp_path, tmp_path, ("pip",), "t")
    with pytest.raises(ChildError) as caught:
        engines.run(plan, {"pip": b"step 3 broke\n"}, tmp_path, lambda line: None)
    assert "exit code 7" in caught.value.seen and "| step 3 broke" in caught.value.seen
    assert not (tmp_path / "pip").exists()


@pytest.mark.parametrize(
    ("line", "kind", "told"),
    [
        ("write /x: no space left on device", DiskError, "full"),
        ("exec /bin/sh: exec format error", MachineError, "another processor"),
        ('exec: "/bin/sh": stat /bin/sh: no such file or directory', MachineError, "no shell"),
        ("Error: creating build container: initializing source docker://x: pinging", MachineError, "fetched"),
        ("ERROR: failed to solve: x: manifest unknown", MachineError, "fetched"),
        ("something else", ChildError, "last"),
        ("pip: connection refused", ChildError, "last"),
        ("#2 [internal] load metadata for docker.io/library/x", ChildError, "last"),
    ],
)
def test_a_known_failure_is_named(line, kind, told):
    error = engines.failure(Plan(Engine("podman", None), (), "t", "b"), 1, ("STEP 2", line))
    assert type(error) is kind and told in error.why and f"| {line}" in error.seen


@pytest.mark.parametrize("prefix", ["", "#9 1.234 "])
def test_a_sentence_of_our_own_steps_comes_first(prefix):
    lines = (f"{prefix}bevrepro: this base has no apt-get: name one", "subprocess exited with status 1")
    error = engines.failure(Plan(Engine("docker", None), (), "t", "b"), 1, lines)
    assert isinstance(error, MachineError) and error.seen.startswith("this base has no apt-get: name one\n| ")


def test_an_engine_that_was_killed_is_told_by_its_signal():
    error = engines.failure(Plan(Engine("docker", None), (), "t", "b"), -9, ())
    assert "SIGKILL" in error.seen


def test_the_private_folder_is_private():
    with engines.private_folder() as folder:
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
    assert not Path(folder).exists()


def test_a_recipe_names_its_image_after_the_target(recipe):
    assert recipe.tag == "bevrepro:cpu" and replace(recipe, target="a100").tag == "bevrepro:a100"
