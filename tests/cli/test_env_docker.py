"""`bevrepro env docker` on the command line: text on stdout, folders left alone, plans that build nothing."""

import json

import pytest

from bevrepro.cli import main
from bevrepro.core import proc
from bevrepro.env import container_engine
from bevrepro.env.container_engine import Built, Engine


@pytest.fixture
def engine(monkeypatch, tmp_path):
    """An engine that builds nothing; what it was asked is kept."""
    asked = {}

    def run(plan, contents, work, on_line):
        asked.update(
            argv=plan.argv, contents=contents, context=sorted(p.name for p in (work / "context").iterdir())
        )
        return Built(plan.engine.name, plan.tag, "sha256:1", 2.0)

    monkeypatch.setattr(container_engine, "look", lambda name: Engine(name, tmp_path / name))
    monkeypatch.setattr(container_engine, "run", run)
    return asked


def test_the_dockerfile_goes_to_stdout_and_nothing_else_does(capsys):
    assert main(["env", "docker"]) == 0
    out, err = capsys.readouterr()
    assert (
        out.startswith("# Made by `bevrepro env docker --target cpu`.\n# How far") and "FROM ${BASE}" in out
    )
    assert err == ""


def test_json_says_where_the_base_is_from(capsys):
    assert main(["env", "docker", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (
        told["base_pinned"] and "repo-info" in told["base_source"] and "ARG TARGET=cpu" in told["dockerfile"]
    )


def test_a_base_without_a_digest_is_talked_about(capsys):
    assert main(["env", "docker", "--base", "debian:12"]) == 0
    assert "debian:12 has no digest" in capsys.readouterr().err


def test_a_folder_gets_all_that_a_build_needs(capsys, tmp_path):
    assert main(["env", "docker", "--out", str(tmp_path / "a b"), "--dry-run"]) == 0
    assert "Would write" in capsys.readouterr().out and not (tmp_path / "a b").exists()
    assert main(["env", "docker", "--out", str(tmp_path / "a b"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    there = {p.relative_to(tmp_path / "a b").as_posix() for p in (tmp_path / "a b").rglob("*") if p.is_file()}
    assert there - {".bevrepro-context.json"} == set(told["files"])


def test_wheels_that_no_lock_names_are_talked_about(capsys, tmp_path):
    (tmp_path / "six-1.0-py3-none-any.whl").write_bytes(b"x")
    words = ["--wheels", str(tmp_path), "--out", str(tmp_path / "out"), "--dry-run"]
    assert main(["env", "docker", *words]) == 0
    assert "none of the files of --wheels" in capsys.readouterr().err


def test_the_folder_one_is_in_is_not_exchanged(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["env", "docker", "--out", "."]) == 6
    assert "the folder that you are in" in capsys.readouterr().err


def test_a_folder_of_somebody_else_is_left_alone(capsys, tmp_path):
    (tmp_path / "mine").write_text("1")
    assert main(["env", "docker", "--out", str(tmp_path)]) == 6
    assert "did not write there: mine" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_dry_run_prints_the_engines_command(engine, capsys):
    assert main(["env", "docker", "--build", "--engine", "podman", "--tag", "x:1", "--dry-run"]) == 0
    assert "podman build --file" in capsys.readouterr().out and engine == {}


def test_a_build_hands_over_the_context_and_tells_the_image(engine, capsys, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:word@mirror.example/simple")
    assert main(["env", "docker", "--build", "--engine-option=--no-cache"]) == 0
    assert capsys.readouterr().out == "bevrepro:cpu sha256:1 (2 s, docker)\n"
    assert "--no-cache" in engine["argv"] and "word" not in " ".join(engine["argv"])
    assert b"me:word@mirror.example" in engine["contents"]["pip"] and "Dockerfile" in engine["context"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--target", "cpuu"], 6, "is 'cpu' meant?"),
        (["--base", "a b"], 6, "is no name of an image"),
        (["--engine", "lxc", "--build"], 2, "not 'lxc'"),
        (["--engine", "docker"], 2, "go with --build"),
        (["--build", "--apt-sources", "/none"], 6, "cannot be read"),
        (["--wheels", "/none"], 2, "goes with --out or --build"),
        (["--wheels", "/none", "--build"], 6, "/none is no folder"),
    ],
)
def test_bad_input_is_a_sentence(engine, capsys, words, code, told):
    assert main(["env", "docker", *words]) == code
    assert told in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_without_an_engine_everything_that_was_looked_for_is_listed(capsys, monkeypatch):
    monkeypatch.setattr(proc, "which", lambda name: None)
    assert main(["env", "docker", "--build"]) == 3
    assert "docker is not on PATH; podman is not on PATH; buildah is not on PATH" in capsys.readouterr().err
