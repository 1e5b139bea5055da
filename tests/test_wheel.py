"""What a wheel of this tree holds, and that it starts."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
# Where each folder of the checkout lies in the wheel.
PLACES = {
    "bevrepro": "bevrepro",
    "model/bevformer": "bevrepro/_model/bevformer",
    "envs": "bevrepro/_envs",
    "docker": "bevrepro/_docker",
    "patches": "bevrepro/_patches",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize("folder", PLACES)
def test_every_file_of_the_folder_is_in_the_wheel(wheel, folder):
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so nobody says which files belong to it")
    expected = {
        PLACES[folder] + name[len(folder) :] for name in listed.stdout.splitlines() if (ROOT / name).exists()
    }
    assert expected - names(wheel) == set()


@pytest.mark.parametrize(
    "landmark", ["_model/bevformer/__main__.py", "_envs/targets/cpu.toml", "_envs/locks/cpu.txt"]
)
def test_what_the_package_looks_for_beside_itself_is_there(wheel, landmark):
    assert "bevrepro/" + landmark in names(wheel)


def test_nothing_else_is_in_the_wheel(wheel):
    tops = {name.split("/")[0] for name in names(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"bevrepro"}
    assert [
        n for n in names(wheel) if "__pycache__" in n or n.endswith((".pyc", ".pth", ".pkl", ".jpg", ".bin"))
    ] == []
    assert wheel.stat().st_size < 3 * 2**20  # half of it hashes, 60 KB per lock


def test_metadata_names_the_licence_and_only_light_requirements(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("METADATA"))
        metadata = archive.read(name).decode()
    assert "License-Expression: Apache-2.0" in metadata
    lines = [line.partition(": ")[2] for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    required = {Requirement(line).name for line in lines}
    assert required == {"packaging", "psutil", "ratarmount", "rich", "tomli", "typer", "uv"}


def test_an_installed_wheel_starts_and_finds_its_parts(wheel, tmp_path):
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(tmp_path),
    ]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    environ = dict(os.environ, PYTHONPATH=str(tmp_path))
    run = {"cwd": tmp_path, "env": environ, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-m", "bevrepro", "--help"], **run)
    assert done.returncode == 0 and "doctor" in done.stdout, done.stderr
    code = "from bevrepro.core.paths import envs_dir, model_dir; print(model_dir(), envs_dir())"
    places = subprocess.run([sys.executable, "-c", code], **run).stdout.split()
    assert places == [f"{tmp_path}/bevrepro/_model", f"{tmp_path}/bevrepro/_envs"]
