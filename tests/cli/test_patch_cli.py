"""`bevrepro patch`: what it prints and its exit codes."""

import json

import pytest

from bevrepro.cli import main
from bevrepro.env import patchset
from tests.env.patch_sets import contents, make_set, make_tree


@pytest.fixture
def given(tmp_path, monkeypatch):
    """(the set's name, its tree, both as words)."""
    make_set(tmp_path / "sets")
    monkeypatch.setattr(patchset, "patches_dir", lambda: tmp_path / "sets")
    tree = make_tree(tmp_path / "tree")
    return tree, ["pkg-1.0", "--tree", str(tree)]


def test_apply_verify_revert(given, capsys):
    tree, words = given
    before = contents(tree)
    assert main(["patch", "verify", *words]) == 1
    assert "absent    0001-gate.patch" in capsys.readouterr().out
    assert main(["patch", "apply", *words, "--dry-run"]) == 0
    assert "3 would be applied; 2 files" in capsys.readouterr().out and contents(tree) == before
    assert main(["patch", "apply", *words]) == 0
    assert "3 applied; 2 files" in capsys.readouterr().out
    assert main(["patch", "verify", *words]) == 0
    assert main(["patch", "apply", *words]) == 0
    assert "is applied already: nothing to do" in capsys.readouterr().out
    assert main(["patch", "revert", *words]) == 0 and contents(tree) == before


def test_verify_names_the_file_that_is_odd(given, capsys):
    tree, words = given
    main(["patch", "apply", *words])
    place = tree / "pkg/gate.py"
    place.write_text(place.read_text() + "mine = 1\n")
    capsys.readouterr()
    assert main(["patch", "verify", *words, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False and "changes of its own" in found["files"]["pkg/gate.py"]
    assert main(["patch", "verify", *words, "--only", "3"]) == 0


def test_check_says_what_a_tree_is_and_what_comes_next(given, capsys):
    tree, words = given
    assert main(["patch", "check", str(tree)]) == 0
    out = capsys.readouterr().out
    assert "pkg-1.0 fits: 0 of 3 patches are applied" in out and "next: bevrepro patch apply pkg-1.0" in out
    main(["patch", "apply", *words])
    (tree / "pkg/names.py").write_text("mine = 1\n")
    capsys.readouterr()
    assert main(["patch", "check", str(tree)]) == 1
    out = capsys.readouterr().out
    assert "does not fit" in out and "pkg/names.py: hunk 1, line 1: 'mine = 1' stands where" in out
    assert main(["patch", "check", str(tree), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["sets"][0]
    assert not found["fits"] and [each["known"] for each in found["files"]] == [True, False]


def test_json_of_apply(given, capsys):
    tree, words = given
    assert main(["patch", "apply", *words, "--only", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["applied"], found["files"]) == (["0001-gate.patch"], ["pkg/gate.py"])


@pytest.mark.parametrize("verb", ["apply", "verify", "revert"])
def test_bad_input_is_a_sentence(given, tmp_path, capsys, verb):
    tree, words = given
    assert main(["patch", verb, "pkg-1.1", *words[1:]]) == 6
    assert "is 'pkg-1.0' meant?" in capsys.readouterr().err
    assert main(["patch", verb, "pkg-1.0", "--tree", str(tmp_path / "none")]) == 6
    assert "is no folder" in capsys.readouterr().err
    assert main(["patch", verb, *words, "--only", "x"]) == 6


def test_list_shows_every_set_and_its_reasons(capsys):
    assert main(["patch", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in patchset.names())
    assert main(["patch", "list", "bevformer-66b65f3"]) == 0
    out = capsys.readouterr().out
    assert "assert False" in out and "issues/92" in out and "file: tools/test.py" in out
    assert main(["patch", "list", "--json"]) == 0
    sets = json.loads(capsys.readouterr().out)["sets"]
    assert {one["class"] for each in sets for one in each["patches"]} <= set(patchset.CLASSES)
