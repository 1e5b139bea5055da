"""Container files: arguments filled in, bases named with their source, the same text every time."""

import re
from dataclasses import replace

import pytest

from bevrepro.core.errors import ConfigError
from bevrepro.core.paths import docker_dir
from bevrepro.env import container
from bevrepro.env.evidence import badge, missing
from bevrepro.env.target import Evidence, load, names

FILES = sorted(path.name for path in docker_dir().glob("Dockerfile.*"))
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def recipe(name="cpu", base=None):
    return container.make_recipe(load(name), base)


def locked():
    return [name for name in names() if (load(name).path.parent.parent / f"locks/{name}.txt").exists()]


def argument(text, name):
    return re.search(rf"^ARG {name}=(.*)$", text, re.MULTILINE)[1]


def test_there_is_one_file_for_each_family():
    assert FILES == ["Dockerfile.cpu", "Dockerfile.cuda", "Dockerfile.openmmlab1"]
    assert {base.file for base in container.bases()} == set(FILES)


@pytest.mark.parametrize("name", locked())
def test_every_locked_target_renders_the_same_text_twice(name):
    text = container.render(recipe(name))
    assert text == container.render(recipe(name))
    assert argument(text, "TARGET") == name
    assert argument(text, "LOCK_SHA256") == container.lock_digest(container.locks_of(load(name)))


@pytest.mark.parametrize("file", FILES)
def test_a_file_built_by_hand_starts_from_the_base_that_is_looked_up(file):
    text = (docker_dir() / file).read_text()
    assert argument(text, "BASE") in {base.reference for base in container.bases() if base.file == file}


@pytest.mark.parametrize("base", container.bases(), ids=lambda base: base.id)
def test_a_base_says_where_its_digest_is_from_or_that_it_has_none(base):
    assert base.checked and (DIGEST.fullmatch(base.digest) if base.digest else "no digest" in base.source)


def test_a_base_without_a_digest_is_told_as_such():
    assert recipe("cpu").pinned and not recipe("cpu", "debian:bookworm").pinned


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cpu", "Dockerfile.cpu"),
        ("h800-torch2", "Dockerfile.cuda"),
        ("a100", "Dockerfile.openmmlab1"),
        ("cpu-openmmlab", "Dockerfile.openmmlab1"),
        ("ascend910b", "Dockerfile.cpu"),
    ],
)
def test_a_target_gets_the_file_of_its_kind(name, file):
    assert container.base_of(load(name)).file == file


def test_another_processor_is_asked_of_the_base():
    assert dict(recipe("ascend910b").arguments)["ARCHITECTURE"] == "arm64"


@pytest.mark.parametrize(
    "base", ["", "a b", "debian;rm -rf /", "x\nRUN evil", "debian@sha256:12", "-v", "$HOME"]
)
def test_what_is_no_name_of_an_image_is_refused(base):
    with pytest.raises(ConfigError, match="no name of an image"):
        recipe("cpu", base)


def test_a_title_cannot_add_an_instruction():
    odd = replace(load("cpu"), title='a "b" $C \\ d\nRUN evil')
    line = argument(container.render(container.make_recipe(odd)), "TITLE")
    assert line == r'"bevrepro, target cpu: a \"b\" \$C \\ d RUN evil"'


@pytest.mark.parametrize("name", locked())
def test_the_text_says_how_far_the_target_was_taken(name):
    text, target = container.render(recipe(name)), load(name)
    for each in target.evidence:
        assert f"#   {each.level} {each.date}: {each.command} (" in text
    assert (", ".join(missing(target)) or "\n# ") in text
    assert badge(target) in argument(text, "EVIDENCE")


def test_evidence_cannot_add_an_instruction():
    odd = replace(load("cpu"), evidence=(Evidence("resolved", "2026-11-21", "x\nRUN evil", "y\r\nFROM z"),))
    text = container.render(container.make_recipe(odd))
    assert "#   resolved 2026-11-21: x RUN evil (y FROM z)\n" in text and "\nRUN evil" not in text


@pytest.mark.parametrize("file", sorted(docker_dir().glob("*.sh")), ids=lambda path: path.name)
def test_bevrepros_own_python_is_the_distributions(file):
    """A base for OpenMMLab 1.x has a Python 3.8 of its own first on PATH."""
    assert not re.search(r"(?<!/usr/bin/)\bpython3(?= -)", file.read_text())


def test_a_target_without_a_lock_has_no_image():
    with pytest.raises(ConfigError, match="has no lock"):
        container.make_recipe(replace(load("cpu"), name="none"))


@pytest.mark.parametrize("file", FILES)
def test_an_image_ends_as_a_user_who_ran_the_self_test(file):
    text = (docker_dir() / file).read_text()
    assert text.index("USER ${USER_ID}") < text.index("selftest.py")
    assert text.rindex("RUN ") < text.index("LABEL ")
    assert not re.search(r"^USER (root|0)", text, re.MULTILINE)


@pytest.mark.parametrize("word", ["/dev/fuse", "--shm-size", "SYS_ADMIN", "apparmor:unconfined"])
@pytest.mark.parametrize("file", FILES)
def test_a_file_says_how_to_run_its_image(file, word):
    assert word in (docker_dir() / file).read_text()


@pytest.mark.parametrize("file", FILES[1:])
def test_an_image_for_gpus_asks_for_them(file):
    text = (docker_dir() / file).read_text()
    assert "--gpus all" in text and "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in text
