"""`bevrepro env list`, `show` and `lock`: what is printed, what is written, and the exit code."""

import json
import shutil
from types import SimpleNamespace

import pytest

from bevrepro import cli
from bevrepro.core.paths import envs_dir
from bevrepro.env import locking, target
from tests.env.local_index import LocalIndex

TARGET = """\
name = "small"
title = "two packages"
stack = "torch2"
source = "a test"
checked = "2026-11-21"
[hardware]
kind = "cpu"
[python]
order = ["3.8"]
[platform]
verified = []
[disk]
needs_gib = 1
[requirements]
model = ["b"]
[selftest]
checks = []
[[gave_way]]
pin = "a==0.9"
instead = "any a"
why = "it was withdrawn"
"""


@pytest.fixture
def run(capsys):
    """(exit code, stdout, stderr) of a command."""

    def play(*words):
        code = cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return play


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one small target, and an index in a folder."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    envs = tmp_path / "checkout" / "envs"
    (envs / "locks").mkdir(parents=True)
    (envs / "targets").mkdir()
    (envs / "targets" / "small.toml").write_text(TARGET)
    (envs.parent / "pyproject.toml").write_text("")
    for module in (locking, target):
        monkeypatch.setattr(module, "envs_dir", lambda: envs)
    index = LocalIndex(tmp_path / "index")
    index.add("a", "1.0")
    index.add("b", "1.0", "a")
    lock, small = envs / "locks" / "small.txt", envs / "targets" / "small.toml"
    return SimpleNamespace(lock=lock, target=small, more=index, index=("--index-url", index.url))


def test_the_list_shows_every_target_with_its_evidence(run):
    code, out, _ = run("env", "list")
    lines = out.splitlines()
    assert code == 0 and len(lines) == len(target.names()) + 1 and lines[1].startswith("cpu ")
    assert all(any(level in line for level in (*target.LEVELS, "unverified")) for line in lines[1:])
    code, out, _ = run("env", "list", "--json")
    assert [row["name"] for row in json.loads(out)["targets"]] == list(target.names())


def test_one_target_is_shown_with_what_gave_way_and_what_nobody_has_shown(run):
    code, out, _ = run("env", "show", "ascend910b")
    words = " ".join(out.split())
    assert code == 0 and "What gave way" in words and "no row of the public matrix" in words
    assert "resolved 2026-11-21" in words and "not shown: ran-on-gpu" in words


@pytest.mark.parametrize("name", target.names())
def test_a_target_as_json_has_everything_but_a_path(run, name):
    code, out, _ = run("env", "show", name, "--json")
    shown = json.loads(out)
    assert code == 0 and {"requirements", "lock", "evidence", "gave_way", "missing"} <= set(shown)
    assert str(envs_dir()) not in out


def test_an_unknown_target_is_exit_code_6_with_the_nearest(run):
    code, _, err = run("env", "show", "rtx4O")
    assert code == 6 and "is 'rtx40' meant?" in err


def test_lock_then_check_is_clean_and_the_next_edit_is_a_finding(run, checkout):
    code, out, _ = run("env", "lock", *checkout.index)
    assert code == 0 and "wrote" in out and "b==1.0" in checkout.lock.read_text()
    assert run("env", "lock", "--check")[0] == 0
    checkout.lock.write_text(checkout.lock.read_text().replace("b==1.0", "b==1.1"))
    code, out, _ = run("env", "lock", "--check")
    assert code == 1 and out.startswith("edited: ") and "bevrepro env lock small" in out


def test_check_asks_nobody_and_names_what_the_target_now_wants(run, checkout, monkeypatch):
    run("env", "lock", *checkout.index)
    monkeypatch.setenv("PATH", "/nowhere")
    checkout.target.write_text(TARGET.replace('["b"]', '["b>=2", "c"]'))
    code, out, _ = run("env", "lock", "small", "--check", "--json")
    problems = json.loads(out)["problems"]
    assert code == 1 and [each["kind"] for each in problems] == ["unsatisfied", "unsatisfied"]
    assert "small.txt locks 1.0" in problems[0]["seen"] and "c, which small.txt does not lock" in out


def test_a_lock_without_a_target_is_found_when_all_are_checked(run, checkout):
    run("env", "lock", *checkout.index)
    shutil.copy(checkout.lock, checkout.lock.with_name("gone.txt"))
    assert run("env", "lock", "small", "--check")[0] == 0
    code, out, _ = run("env", "lock", "--check")
    assert code == 1 and "orphan: " in out and "gone.txt" in out


def test_a_dry_run_shows_the_changes_and_writes_nothing(run, checkout):
    run("env", "lock", *checkout.index)
    before = checkout.lock.read_bytes()
    checkout.more.add("a", "1.1")
    code, out, _ = run("env", "lock", "--upgrade", "--dry-run", *checkout.index)
    assert code == 0 and "would write" in out and "a 1.0 -> 1.1" in out
    assert checkout.lock.read_bytes() == before


def test_what_the_index_now_says_is_a_finding_where_it_is_asked(run, checkout):
    run("env", "lock", *checkout.index)
    page = checkout.more.folder / "simple" / "a" / "index.html"
    page.write_text(page.read_text().replace("<a ", '<a data-yanked="leaks" '))
    assert run("env", "lock", "--check")[0] == 0
    code, out, _ = run("env", "lock", "--check", "--resolve", *checkout.index)
    assert code == 1 and "a==1.0 was yanked: leaks" in out


def test_a_refused_lock_leaves_the_old_one(run, checkout):
    run("env", "lock", *checkout.index)
    before = checkout.lock.read_bytes()
    checkout.target.write_text(TARGET.replace('["b"]', '["b", "a>=2"]'))
    code, _, err = run("env", "lock", *checkout.index)
    assert code == 6 and "a>=2" in err and "small.toml" in err and checkout.lock.read_bytes() == before


def test_an_installed_bevrepro_writes_no_lock(run, checkout):
    (checkout.target.parents[2] / "pyproject.toml").unlink()
    code, _, err = run("env", "lock", *checkout.index)
    assert code == 6 and "Locks are made in a checkout" in err and not checkout.lock.exists()


@pytest.mark.parametrize("words", [("--resolve",), ("--check", "--upgrade"), ("--check", "--dry-run")])
def test_options_that_contradict_each_other_are_wrong_usage(run, words):
    assert run("env", "lock", "cpu", *words)[0] == 2
