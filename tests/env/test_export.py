"""Targets as a pylock.toml and as an environment.yml, read back by those who wrote the formats."""

import datetime
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.pylock import Pylock

from bevrepro.core.errors import ConfigError, DataError
from bevrepro.env import export, plan, target
from bevrepro.env.bundle import Manifest, Packed
from bevrepro.env.index import Index, configured, uv
from bevrepro.facts import tomllib

A, B, SOURCE, OTHER = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A target of two Pythons and three pins, and an index that has files of them."""
    (tmp_path / "locks").mkdir()
    lock = f"a==1.0 ; python_full_version < '3.13' \\\n    --hash=sha256:{A} \\\n    --hash=sha256:{B}\n"
    lock += f"m==2.0 \\\n    --hash=sha256:{SOURCE}\n"
    lock += f"p==1 ; platform_python_implementation == 'PyPy' \\\n    --hash=sha256:{OTHER}\n"
    (tmp_path / "locks/small.txt").write_text(lock)
    for module in (export, plan):
        monkeypatch.setattr(module, "envs_dir", lambda: tmp_path)
    cpu = target.load("cpu")
    build = replace(cpu.build, sdists=("m",))
    return replace(cpu, name="small", torch=None, python=("3.11", "3.12"), build=build)


def row(minor: str) -> list[dict]:
    """What uv says for one Python."""
    digest = A if minor == "3.11" else B
    wheels = [
        {"url": f"https://h/a-1.0-cp3{minor[2:]}-none-any.whl", "hashes": {"sha256": digest}, "size": 3,
         "upload-time": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)},
        {"url": "https://h/a-1.0-py3-none-any.whl", "hashes": {"sha256": OTHER}},
    ]  # fmt: skip
    sdist = {"url": "https://h/m-2.0.tar.gz", "hashes": {"sha256": SOURCE}}
    return [
        {"name": "a", "version": "1.0", "wheels": wheels},
        {"name": "m", "version": "2.0", "sdist": sdist},
    ]


def answer(monkeypatch, rows=row) -> list[list[str]]:
    asked = []

    def ask(lines, sdists, options, index, also):
        asked.append([*lines])
        return rows(options[-1])

    monkeypatch.setattr(export, "ask", ask)
    return asked


def test_a_pylock_has_the_files_of_the_lock_and_no_others(small, monkeypatch):
    asked = answer(monkeypatch)
    exported = export.pylock(small, Index())
    (text,) = exported.files.values()
    lock = Pylock.from_dict(tomllib.loads(text))
    lock.validate()
    assert asked == [["a==1.0", "m==2.0"]] * 2  # PyPy's is for nobody here
    a, m = lock.packages
    assert [wheel.hashes["sha256"] for wheel in a.wheels] == [A, B] and a.wheels[0].size == 3
    assert str(a.marker) == 'python_full_version < "3.13"' and m.sdist.hashes["sha256"] == SOURCE
    assert str(lock.requires_python) == "<3.13,>=3.11" and lock.tool["bevrepro"]["build"] == ["m"]
    assert "m" in exported.notes[0]


def test_an_index_with_other_files_is_refused(small, monkeypatch):
    def forged(minor):
        rows = row(minor)
        rows[0]["wheels"] = rows[0]["wheels"][1:]
        return rows

    answer(monkeypatch, forged)
    with pytest.raises(DataError, match="no file of it that was locked"):
        export.pylock(small, Index())
    answer(monkeypatch, lambda minor: row(minor)[:1])
    with pytest.raises(DataError, match="left out m 2.0"):
        export.pylock(small, Index())


@pytest.mark.parametrize("name", ["lock.toml", "pylock.a.b.toml", "pylock..toml", "pylock.json"])
def test_a_name_that_no_installer_reads_is_refused(small, monkeypatch, name):
    answer(monkeypatch)
    with pytest.raises(ConfigError, match="PEP 751"):
        export.pylock(small, Index(), name)


def test_a_pack_gives_paths_where_there_is_no_index(small):
    files = (
        Packed("locks/small.txt", 1, OTHER),
        Packed("packages/a-1.0-py3-none-any.whl", 3, A),
        Packed("packages/m-2.0.tar.gz", 9, SOURCE),
        Packed("packages/setuptools-1-py3-none-any.whl", 9, OTHER),
    )
    manifest = Manifest("small", "3.11.7", "linux-x86_64", None, "", "0", files)
    exported = export.pylock_of_pack(small, manifest)
    lock = Pylock.from_dict(tomllib.loads(exported.files["pylock.small.toml"]))
    assert [package.name for package in lock.packages] == ["a", "m"]
    assert lock.packages[0].wheels[0].path == "packages/a-1.0-py3-none-any.whl"
    assert "tar -xf" in exported.notes[0]


def test_conda_gets_an_unlocked_file_and_a_hashed_pip_part(small):
    exported = export.conda(small)
    text, packages = (
        exported.files["environment.small.yml"],
        exported.files["environment.small.requirements.txt"],
    )
    assert "UNLOCKED" in text and "Built from source" in text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == [
        "name: bevrepro-small", "channels:", "  - conda-forge", "  - nodefaults", "dependencies:",
        "  - python=3.11", "  - pip", "  - pip:", "      - -r environment.small.requirements.txt",
    ]  # fmt: skip
    assert packages.splitlines()[1:] == [f"a==1.0 --hash=sha256:{A} --hash=sha256:{B}"]  # m is built


def test_a_file_of_somebody_is_left_alone(small, tmp_path):
    exported = export.conda(small)
    export.write(exported, tmp_path)
    export.write(exported, tmp_path)
    (tmp_path / "environment.small.yml").write_text("name: mine\n")
    with pytest.raises(ConfigError, match="did not make it"):
        export.write(exported, tmp_path)
    assert (tmp_path / "environment.small.yml").read_text() == "name: mine\n"


@pytest.mark.parametrize("name", target.names())
def test_every_target_has_an_environment_for_conda(name):
    """Every line of the pip part is hashed: pip takes all or nothing."""
    wanted = target.load(name)
    exported = export.conda(wanted)
    packages = exported.files[f"environment.{name}.requirements.txt"].splitlines()[1:]
    assert packages and all(
        re.fullmatch(r"\S+==\S+( --hash=sha256:[0-9a-f]{64})+", line) for line in packages
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('a"b\\c\n', r'"a\"b\\c\u000a"'),
        ([1, "x"], '[1, "x"]'),
        ({"k": {"s": "é"}}, '{ k = { s = "é" } }'),
        (datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), "2026-01-02T00:00:00+00:00"),
    ],
)
def test_values_are_written_as_toml_reads_them(value, text):
    assert export._value(value) == text and tomllib.loads(f"x = {text}")["x"] == value


@pytest.mark.net
def test_uv_installs_from_the_real_thing(tmp_path):
    export.write(export.pylock(target.load("cpu"), configured()), tmp_path)
    Pylock.from_dict(tomllib.loads((tmp_path / "pylock.cpu.toml").read_text())).validate()
    argv = [uv(), "pip", "install", "--dry-run", "--no-config", "--target", tmp_path / "into"]
    done = subprocess.run([*argv, "--python", sys.executable, "-r", tmp_path / "pylock.cpu.toml"],
                          env=configured().environment(), capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0 and "torch==2.13.0+cpu" in done.stderr, done.stderr


@pytest.mark.net
def test_pip_takes_the_hashed_part_of_condas_file(tmp_path):
    export.write(export.conda(target.load("cpu")), tmp_path)
    requirements = Path(tmp_path / "environment.cpu.requirements.txt")
    argv = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--quiet"]
    done = subprocess.run(
        [*argv, "--target", tmp_path / "into", "-r", requirements], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
