"""Resolving with the real uv against an index in a folder: what comes out, every refusal as a sentence."""

from dataclasses import replace

import pytest

from bevrepro.core.errors import ConfigError, DiskError, MachineError
from bevrepro.env import index as index_module
from bevrepro.env import locking, resolver, target
from bevrepro.env.index import Index
from bevrepro.env.lockfile import read_lock
from bevrepro.env.locking import asked_of, examine
from bevrepro.env.relocking import problems, refuse_yanked, relock, write
from tests.env.local_index import LocalIndex

A100 = target.load("a100")
NO_CUTOFF = target.Lock(glibc="2.17")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("uv"))


@pytest.fixture
def packages(tmp_path, monkeypatch, cache):
    """An index with a 1.0 and 2.0, b 1.0 (needs a) and an sdist c 1.0; and a checkout without locks."""
    monkeypatch.setenv("UV_CACHE_DIR", cache)
    (tmp_path / "checkout" / "envs" / "locks").mkdir(parents=True)
    monkeypatch.setattr(locking, "envs_dir", lambda: tmp_path / "checkout" / "envs")
    made = LocalIndex(tmp_path / "index")
    made.digest = made.add("a", "1.0")
    made.add("a", "2.0")
    made.add("b", "1.0", "a>=1")
    made.add("c", "1.0", sdist=True)
    return made


def wants(*requirements, sdists=(), requires=(), **lock):
    build = target.Build(sdists=sdists, requires=requires)
    return replace(A100, requirements=requirements, lock=replace(NO_CUTOFF, **lock), build=build)


def locked(asked, packages, **options):
    made = relock(asked, Index(index_url=packages.url), **options)
    for each in made:
        write(each)
    return made


def versions(made):
    return {pin.name: pin.version for pin in read_lock(made.asked.path).pins}


def test_a_lock_holds_every_dependency_with_its_hash(packages):
    (made,) = locked(wants("b", "a==1.0"), packages)
    assert versions(made) == {"a": "1.0", "b": "1.0"} and packages.digest in made.text
    assert examine(made.asked) == [] and packages.url not in made.text


def test_locking_again_gives_the_same_text(packages):
    (first,) = locked(wants("b"), packages)
    (second,) = locked(wants("b"), packages)
    assert first.text == second.text and not second.changed and problems(second) == []


def test_pins_are_kept_until_an_upgrade_is_asked_for(packages):
    locked(wants("b", "a==1.0"), packages)
    (kept,) = locked(wants("b"), packages)
    assert versions(kept) == {"a": "1.0", "b": "1.0"}
    (newer,) = locked(wants("b"), packages, upgrade=True)
    assert newer.changes() == ["a 1.0 -> 2.0"]


def test_several_pythons_get_one_lock_without_later_ones(packages):
    (made,) = locked(replace(wants("b"), python=("3.11", "3.12", "3.10")), packages)
    assert {pin.marker for pin in read_lock(made.asked.path).pins} == {'python_full_version < "3.13"'}


def test_an_sdist_is_locked_from_what_the_target_says_of_it(packages):
    told = (target.Metadata("c", "1.0", ("a<2",)),)
    index, build = locked(wants("c", sdists=("c",), requires=("a",), metadata=told), packages)
    assert versions(index) == {"a": "1.0", "c": "1.0"}
    assert versions(build) == {"a": "1.0"}  # not 2.0: both locks are for one environment


def test_an_override_takes_a_package_out(packages):
    (made,) = locked(wants("b", overrides=("a ; sys_platform == 'never'",)), packages)
    assert versions(made) == {"b": "1.0"}


def test_what_torchs_own_index_has_is_left_out_of_the_other_lock(packages):
    wheel = target.Wheel("3.8", "linux-x86_64", "0" * 64, "x", "2026-11-21")
    torch = target.Torch("a==1.0+cu111", "https://x", (), (wheel,), "x", "2026-11-21")
    index, lock = locked(replace(wants("b"), torch=torch), packages)
    assert versions(index) == {"b": "1.0"} and versions(lock) == {"a": "1.0+cu111"}


@pytest.mark.parametrize(
    "asked, named",
    [
        (wants("a==1.0", "b", "a>=2"), ["a==1.0", "a>=2"]),
        (wants("a==3.0"), ["a==3.0"]),
        (wants("nonesuch"), ["nonesuch"]),
        (wants("c"), ["c", "no usable wheels"]),
    ],
)
def test_what_cannot_be_met_names_the_packages(packages, asked, named):
    with pytest.raises(ConfigError, match="target a100 cannot all be met") as caught:
        relock(asked, Index(index_url=packages.url))
    assert all(each in caught.value.why for each in named) and "envs/targets/a100.toml" in caught.value.do


def test_an_index_without_upload_days_is_told_apart_from_a_conflict(packages):
    with pytest.raises(ConfigError, match="does not say when packages were uploaded"):
        relock(wants("b", cutoff="2026-01-01"), Index(index_url=packages.url))


def test_an_index_that_does_not_answer_is_named_with_the_mirror_option(packages, monkeypatch):
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    nobody = Index(index_url="http://user:secret@127.0.0.1:9/simple", timeout_s=2)
    with pytest.raises(MachineError, match="did not answer while asking for b") as caught:
        relock(wants("b"), nobody)
    whole = f"{caught.value.seen} {caught.value.why} {caught.value.do}"
    assert "--index-url URL" in caught.value.do and "127.0.0.1:9" in whole and "secret" not in whole


def test_a_yanked_version_is_refused_unless_the_target_means_it(packages):
    packages.add("d", "1.0", yanked="broken on Mondays")
    (made,) = relock(wants("d==1.0"), Index(index_url=packages.url))
    with pytest.raises(ConfigError, match="d==1.0.*was yanked: broken on Mondays") as caught:
        refuse_yanked(made)
    assert 'yanked = ["d==1.0"]' in caught.value.do
    (meant,) = relock(wants("d==1.0", yanked=("d==1.0",)), Index(index_url=packages.url))
    refuse_yanked(meant)
    assert [each.kind for each in problems(made)][0] == "yanked"


def test_without_uv_the_sentence_says_how_to_get_it(packages, monkeypatch):
    monkeypatch.setattr(index_module.sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MachineError, match="uv was not found") as caught:
        relock(wants("b"), Index(index_url=packages.url))
    assert "pip install uv" in caught.value.do


@pytest.mark.parametrize(
    "said, kind, seen",
    [
        ("error: No space left on device (os error 28)", DiskError, "disk became full while locking a100"),
        ("error: something unheard of", ConfigError, "uv could not resolve target a100"),
        (
            "error: Failed to fetch: `https://x/simple/numpy/`\n  Caused by: dns error",
            MachineError,
            "for numpy",
        ),
    ],
)
def test_other_failures_of_uv_are_sentences_too(said, kind, seen):
    failure = resolver.explain(asked_of(A100)[0], said, Index())
    assert type(failure) is kind and seen in failure.seen and failure.why


@pytest.mark.parametrize(
    "requirement, expected",
    [("a>=1", "a>=1; M"), ("b; python_version < '3.11'", "b; (python_version < '3.11') and M")],
)
def test_own_markers_are_kept(requirement, expected):
    assert resolver.with_marker(requirement, "M") == expected


def test_the_command_says_what_the_lock_is_for():
    (asked, build) = asked_of(A100)
    words = " ".join(resolver.command(asked, Index(), upgrade=False, constraint=False))
    assert "--python-version 3.8 --python-platform x86_64-manylinux_2_17" in words
    assert "--exclude-newer 2023-05-01" in words and "--only-binary :all:" in words
    assert "--no-binary mmcv-full --no-binary mmdet3d" in words and "--override overrides.in" in words
    assert "--no-binary" not in resolver.command(build, Index(), upgrade=False, constraint=True)


@pytest.mark.net
@pytest.mark.slow
@pytest.mark.parametrize("name", target.names())
def test_resolving_from_nothing_gives_the_lock_that_is_there(name):
    whole = replace(index_module.configured(), extra=(), find_links=())
    found = target.load(name)
    changed = [made.changes() for made in relock(found, whole, upgrade=True) if made.changed]
    assert changed == []
