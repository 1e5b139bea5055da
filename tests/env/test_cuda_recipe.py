"""The recipes that are shipped, and what a broken one says."""

import re

import pytest
from packaging.version import Version as V

from bevrepro.core.errors import ConfigError
from bevrepro.env import cuda_recipe
from bevrepro.facts import table

VERSIONS = cuda_recipe.versions()


def test_the_known_toolkits():
    assert VERSIONS == ("11.8", "12.4", "13.0")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_part_has_a_sha256_a_size_and_a_place(version):
    recipe = cuda_recipe.load(version)
    parts = [part for source in recipe.sources for part in source.parts]
    parts += cuda_recipe.load_compiler(recipe.compiler).parts
    for part in parts:
        assert re.fullmatch("[0-9a-f]{64}", part.sha256) and part.size > 0 and part.take, part.file
        assert part.version.split(":")[-1] in part.file and not part.path.startswith("/")
        assert part.members_sha256 is None or part.kind == "wheel"
    assert recipe.source and recipe.checked == "2026-11-21"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_newest_gcc_is_the_one_of_the_facts(version):
    rows = [row for row in table("gcc") if V(row["first"]) <= V(version) <= V(row["last"])]
    recipe = cuda_recipe.load(version)
    assert [row["max_gcc"] for row in rows] == [recipe.newest_gcc]
    assert cuda_recipe.load_compiler(recipe.compiler).major <= recipe.newest_gcc


@pytest.mark.parametrize("version", VERSIONS)
def test_places_are_below_the_toolkit(version):
    recipe = cuda_recipe.load(version)
    places = [place for source in recipe.sources for part in source.parts for _, place in part.take]
    places += [place for place, _ in recipe.links]
    assert {place.split("/")[0] for place in places} <= {"bin", "include", "lib64", "lib", "nvvm"}


@pytest.mark.parametrize(
    "version, said", [("11.9", "is 11.8 meant"), ("10", "11.8, 12.4, 13.0"), ("..", "11.8")]
)
def test_an_unknown_version_lists_the_known(version, said):
    with pytest.raises(ConfigError) as caught:
        cuda_recipe.load(version)
    assert said in caught.value.seen + caught.value.why


def test_an_architecture_of_other_years_is_named():
    cuda_recipe.check_arch("13.0", "sm_120")
    with pytest.raises(ConfigError, match="does not compile for 'sm_120'"):
        cuda_recipe.check_arch("11.8", "sm_120")


def test_the_digest_changes_with_every_hash(tmp_path, monkeypatch):
    before = {version: cuda_recipe.recipe_digest(version) for version in VERSIONS}
    assert len(set(before.values())) == len(VERSIONS)
    text = (cuda_recipe.envs_dir() / "cuda" / "nvcc.profile").read_text()
    monkeypatch.setattr(cuda_recipe, "profile", lambda: text + "# changed\n")
    assert all(cuda_recipe.recipe_digest(version) != before[version] for version in VERSIONS)


@pytest.mark.parametrize("text", ["", "version = 1", "not toml", 'sources = ["deb"]\n[deb]\nwheels = ["x"]'])
def test_a_broken_recipe_is_named(tmp_path, text):
    path = tmp_path / "1.0.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="1.0.toml"):
        cuda_recipe.read(path)
