"""What a tree is: the set for it, other commits that are known, lines that differ."""

import shutil
import subprocess

import pytest

from bevrepro.core import proc
from bevrepro.core.errors import ConfigError
from bevrepro.core.proc import Done
from bevrepro.env import patch_check, patching, patchset
from tests.env.patch_sets import BEFORE, make_set, make_tree, sha256

COMMIT = "0123abc"
OLDER = BEFORE["pkg/gate.py"].replace("1.7.0", "1.4.0")
KNOWN = f'\n[[known]]\ncommit = "fedcba9 (2020)"\npath = "pkg/gate.py"\nsha256 = "{sha256(OLDER)}"\n'


@pytest.fixture
def given(tmp_path, monkeypatch):
    """A set for a commit, one for a release of the same package, and a tree of that commit."""
    monkeypatch.setattr(patchset, "patches_dir", lambda: tmp_path / "sets")
    for version in (COMMIT, "1.0"):
        series = make_set(tmp_path / "sets", name=f"pkg-{version}") / "series.toml"
        series.write_text(series.read_text().replace('"1.0"', f'"{version}"') + KNOWN)
    other = tmp_path / "sets/pkg-1.0/series.toml"
    other.write_text(other.read_text().replace(sha256(BEFORE["pkg/names.py"]), "0" * 64))
    monkeypatch.setattr(proc, "which", lambda program: None)
    return make_tree(tmp_path / "tree")


def test_the_set_that_knows_most_files_is_taken(given):
    found = patch_check.check(given)
    assert [each.set for each in found.checks] == [f"pkg-{COMMIT}"] and found.commit is None
    assert found.checks[0].fits and found.checks[0].applied == ()
    assert {each.said for each in found.checks[0].files} == {f"as in {COMMIT}"}
    patching.apply(patchset.load(f"pkg-{COMMIT}"), given)
    again = patch_check.check(given).checks[0]
    assert again.fits and len(again.applied) == again.patches == 3
    assert again.files[0].said == "with 0001, 0002"


def test_another_commit_is_named_and_refused(given):
    (given / "pkg/gate.py").write_text(OLDER)
    (given / "pkg/names.py").write_text("mine = 1\n")
    said = [each.said for each in patch_check.check(given).checks[0].files]
    assert said[0] == f"pkg/gate.py is the one of fedcba9 (2020), not of {COMMIT}"
    assert said[1].startswith("pkg/names.py, hunk 1, line 1: 'mine = 1' stands where")
    with pytest.raises(ConfigError) as error:
        patching.apply(patchset.load(f"pkg-{COMMIT}"), given, edited=True)
    assert all(each in error.value.seen for each in said)
    assert f"git worktree add ../pkg-{COMMIT} {COMMIT}" in error.value.do
    assert (given / "pkg/gate.py").read_text() == OLDER


def test_one_strange_file_leaves_the_others_to_be_patched(given):
    (given / "pkg/names.py").write_text("mine = 1\n")
    found = patchset.load(f"pkg-{COMMIT}")
    with pytest.raises(ConfigError) as error:
        patching.apply(found, given)
    assert error.value.do.endswith("or apply what fits: --only 0001")
    assert patching.apply(found, given, ("0001",)).files == ("pkg/gate.py",)


def test_git_says_which_lines_differ(given, monkeypatch):
    place = given / "pkg/names.py"
    place.write_text("# one\n# two\n" + place.read_text() + "last = 1\n")
    diff = "@@ -0,0 +1,2 @@\n+# one\n+# two\n@@ -3,0 +6 @@\n+last = 1\n"
    said = {"rev-parse": f"{COMMIT}\n", "diff": diff}
    monkeypatch.setattr(proc, "which", lambda program: given / program)

    def git(argv, timeout_s):
        assert argv[1:3] == ["-c", "core.fsmonitor=false"], "a checkout's own program would be started"
        return Done(0, said[argv[5]], "")

    monkeypatch.setattr(proc, "run", git)
    found = patch_check.check(given)
    assert found.commit == COMMIT and not found.checks[0].fits
    assert found.checks[0].files[1].said == f"lines 1-2, 6 differ from {COMMIT}"


def test_a_git_that_refuses_is_as_none(given, monkeypatch):
    (given / "pkg/names.py").write_text("mine = 1\n")
    monkeypatch.setattr(proc, "which", lambda program: given / program)
    monkeypatch.setattr(proc, "run", lambda argv, timeout_s: Done(128, "", "dubious ownership"))
    found = patch_check.check(given)
    assert found.commit is None and "hunk 1, line 1" in found.checks[0].files[1].said


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_a_real_checkout(given, monkeypatch, tmp_path):
    monkeypatch.undo()
    words = ["git", "-C", str(given), "-c", "user.name=a", "-c", "user.email=a@b"]
    for more in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*words, *more], check=True)
    head = patch_check._commit(given)
    (given / "pkg/names.py").write_text("# mine\n" + BEFORE["pkg/names.py"])
    assert patch_check._lines(given, head[:9], "pkg/names.py") == "line 1"
    assert patch_check._lines(given, "0" * 9, "pkg/names.py") is None


def test_a_tree_that_no_set_is_for_is_a_sentence(given, tmp_path):
    with pytest.raises(ConfigError, match="holds no file that a patch set is for"):
        patch_check.check(tmp_path)
    with pytest.raises(ConfigError, match="is no folder"):
        patch_check.check(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('path = "pkg/gate.py"\nsha256', 'path = "pkg/none.py"\nsha256', "knows pkg/none.py"),
        (sha256(OLDER), sha256(BEFORE["pkg/gate.py"]), "one sha256"),
        (sha256(OLDER), "12", "known: sha256 is no sha256"),
        ('commit = "fedcba9 (2020)"\n', "", "'commit' is missing"),
    ],
)
def test_a_slip_in_what_is_known_is_named(given, tmp_path, old, new, said):
    series = tmp_path / f"sets/pkg-{COMMIT}/series.toml"
    head, mark, known = series.read_text().partition("[[known]]")
    series.write_text(head + mark + known.replace(old, new))
    with pytest.raises(ConfigError, match=said):
        patchset.load(f"pkg-{COMMIT}")
