"""Patch sets: the shipped ones, and what is refused."""

import ast
import re
from pathlib import Path

import pytest

from bevrepro.core.errors import ConfigError
from bevrepro.env import patchset
from bevrepro.env.patching import patched_files
from tests.env.patch_sets import STEPS, make_set, sha256

SHIPPED = patchset.names()
NEEDED = {
    "bevformer-66b65f3", "mmcv-full-1.6.0", "mmcv-full-1.7.2", "mmdet-2.28.2", "mmdet3d-0.17.1",
    "mmdet3d-1.0.0rc6", "torch-1.10.0",
}  # fmt: skip


def test_the_needed_sets_are_there():
    assert set(SHIPPED) >= NEEDED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_set_is_whole_and_says_why(name):
    found = patchset.load(name)
    for patch in found.patches:
        assert (
            patch.reason.endswith(".")
            and patch.links
            and all(link.startswith("https://") for link in patch.links)
        )
        assert re.fullmatch(r"\d{4}-[a-z0-9_.+-]+\.patch", patch.file)
    assert re.search(r"sha256 [0-9a-f]{64}|\bat [0-9a-f]{7}\b|\.whl", found.origin)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_patch_carries_little_of_upstream(name):
    for patch in patchset.load(name).patches:
        kept = [line for diff in patch.diffs for hunk in diff.hunks for line in hunk.old if line in hunk.new]
        hunks = sum(len(diff.hunks) for diff in patch.diffs)
        assert len(kept) <= 3 * hunks, f"{patch.file}: more than a line of context on either side"


@pytest.mark.parametrize("name", SHIPPED)
def test_what_a_shipped_patch_adds_is_no_longer_old(name):
    """No new text of ours holds what the set exists to remove."""
    for patch in patchset.load(name).patches:
        for diff in patch.diffs:
            added = b"".join(line for hunk in diff.hunks for line in hunk.new if line not in hunk.old)
            assert not re.search(
                rb"np\.(int|float|bool|object|long|in1d)\b|pkg_resources|find_loader\(", added
            )


@pytest.mark.parametrize("name", SHIPPED)
def test_added_python_is_python(name):
    for patch in patchset.load(name).patches:
        for diff in patch.diffs:
            for hunk in diff.hunks:
                only = [line.decode() for line in hunk.new if line not in hunk.old]
                if diff.path.endswith(".py") and all(line.startswith(("import ", "from ")) for line in only):
                    ast.parse("".join(only))


def test_the_readme_of_patches_names_every_key():
    text = (Path(patchset.patches_dir()) / "README.md").read_text()
    series = next(Path(patchset.patches_dir()).glob("*/series.toml")).read_text()
    assert set(re.findall(r"^(\w+) =", series, re.MULTILINE)) <= set(re.findall(r"`(\w+)`", text))


def test_an_unknown_set_names_the_nearest():
    with pytest.raises(ConfigError) as error:
        patchset.load("mmcv-full-1.7.1")
    assert "mmcv-full-1.7.2" in error.value.seen and "mmdet-2.28.2" in error.value.why


@pytest.mark.parametrize("file", ["0001-gate.patch", "0002-names.patch", "0003-end.patch"])
def test_any_byte_of_a_patch_that_changes_is_seen(tmp_path, file):
    place = make_set(tmp_path) / file
    whole = place.read_bytes()
    for at in range(len(whole)):
        place.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ConfigError, match="sha256 differs"):
            patchset.read(place.parent)
    for other in (b"", whole[:-1], whole + b"\n", whole.replace(b"\n", b"\r\n")):
        place.write_bytes(other)
        with pytest.raises(ConfigError):
            patchset.read(place.parent)


def test_any_byte_of_the_series_changes_the_digest_or_is_refused(tmp_path):
    place = make_set(tmp_path) / "series.toml"
    whole, digest = place.read_bytes(), patchset.digest(patchset.read(place.parent))
    for at in range(len(whole)):
        place.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            assert patchset.digest(patchset.read(place.parent)) != digest
        except ConfigError:
            continue


@pytest.mark.parametrize(
    "old, new, said",
    [
        ('stage = "source"', 'stage = "somewhere"', "stage"),
        ('class = "portability"', 'class = "other"', "class"),
        ("links = []", "", "'links' is missing"),
        ("links = []", "links = []\nlink = 1", "'link' is unknown"),
        ('reason = "it breaks"', 'reason = " "', "reason is empty"),
        ('version = "1.0"', 'version = "2.0"', "pkg 2.0"),
        ('path = "pkg/gate.py"', 'path = "pkg/other.py"', "does not change the files"),
        ('file = "0001-gate.patch"', 'file = "../0001-gate.patch"', "no name of a patch"),
        ('file = "0001-gate.patch"', 'file = "0003-end.patch"', "sha256"),
        ('package = "pkg"', "package = 3", "package"),
        ("[[patch.change]]", "[[patch.changes]]", "change"),
    ],
)
def test_a_slip_in_the_series_is_named(tmp_path, old, new, said):
    place = make_set(tmp_path) / "series.toml"
    place.write_text(place.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=said):
        patchset.read(place.parent)


def test_a_patch_that_is_not_listed_is_refused(tmp_path):
    folder = make_set(tmp_path)
    (folder / "0004-mine.patch").write_text("")
    with pytest.raises(ConfigError, match="0004-mine.patch"):
        patchset.read(folder)


def test_a_patch_that_leaves_the_tree_is_refused_though_its_hash_is_right(tmp_path):
    folder = make_set(tmp_path)
    place, series = folder / "0003-end.patch", folder / "series.toml"
    text = place.read_text()
    evil = text.replace("pkg/names.py", "../pkg/names.py")
    place.write_text(evil)
    series.write_text(series.read_text().replace(sha256(text), sha256(evil)))
    with pytest.raises(ConfigError, match="leaves the tree"):
        patchset.read(folder)


def test_patches_of_one_file_have_to_follow_each_other(tmp_path):
    series = make_set(tmp_path) / "series.toml"
    gate = sha256("import os\n\nMAXIMUM = '1.7.2'\nMINIMUM = '1.5.2'\n")
    series.write_text(series.read_text().replace(f'before = "{gate}"', f'before = "{"0" * 64}"'))
    with pytest.raises(ConfigError, match="does not start from"):
        patchset.read(series.parent)


def test_a_missing_patch_and_a_missing_series_are_sentences(tmp_path):
    folder = make_set(tmp_path)
    (folder / "0002-names.patch").unlink()
    with pytest.raises(ConfigError, match="0002-names.patch"):
        patchset.read(folder)
    with pytest.raises(ConfigError, match="cannot be read"):
        patchset.read(tmp_path / "nothing")


def test_a_hash_tells_which_patches_a_file_has(tmp_path):
    found = patchset.read(make_set(tmp_path))
    after_all = patched_files(found)["pkg/gate.py"]
    assert found.applied_to("pkg/gate.py", after_all) == ("0001-gate.patch", "0002-names.patch")
    assert found.applied_to("pkg/gate.py", found.patches[0].changes[0].after) == ("0001-gate.patch",)
    assert found.applied_to("pkg/gate.py", "0" * 64) == found.applied_to("other", after_all) == ()


def test_the_order_of_patches_is_part_of_the_digest(tmp_path):
    one = patchset.read(make_set(tmp_path / "a"))
    other = patchset.read(make_set(tmp_path / "b", (STEPS[0], STEPS[1])))
    assert patchset.digest(one) != patchset.digest(other)
    assert patchset.digest(one) == patchset.digest(patchset.read(make_set(tmp_path / "c")))
