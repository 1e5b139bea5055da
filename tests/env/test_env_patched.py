"""Builds with patches, and builds from a pack without any index."""

import json
import shutil
import sys

import pytest

from tests.env.build_world import make_sdist, make_wheel, make_world, receipt
from tests.env.patch_sets import BEFORE, make_set

FILES = {"pkg/__init__.py": "", **BEFORE}


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path / "w")


def patch_pkg(world, stage, build=""):
    made = make_set(world.root / "patches")
    series = made / "series.toml"
    series.write_text(series.read_text().replace('stage = "source"', f'stage = "{stage}"'))
    world.target(build=f'[patches]\nuse = ["pkg-1.0"]\n{build}')


def gate_of(prefix):
    (path,) = prefix.glob("lib/python3*/site-packages/pkg/gate.py")
    return path.read_text()


def test_installed_packages_are_patched_and_verify_as_such(world, tmp_path):
    make_wheel(world.wheels, "pkg", "1.0", FILES)
    world.lock(*sorted(world.wheels.glob("*.whl")))
    patch_pkg(world, "installed")
    code, _, err = world.build(tmp_path / "env")
    assert code == 0 and "3 patches of pkg-1.0" in err, err
    assert "1.7.2" in gate_of(tmp_path / "env") and "1.5.0" in gate_of(tmp_path / "env")
    told = receipt(tmp_path / "env")
    assert [each["set"] for each in told["patches"]] == ["pkg-1.0"] and told["slips"] == {}
    code, out, err = world.run("env", "verify", "--prefix", tmp_path / "env", "--json")
    assert code == 0 and "patched by pkg-1.0" in out, out + err


def test_sources_are_patched_before_they_are_built(world, tmp_path):
    sdist = make_sdist(world.wheels, "pkg", "1.0", FILES)
    world.lock(*sorted(world.wheels.glob("*.whl")), sdist)
    world.lock(world.wheels / "beta-2.0-py3-none-any.whl", name="tiny.build.txt")
    patch_pkg(world, "source", '[build]\nsdists = ["pkg"]\nrequires = ["beta"]')
    code, _, err = world.build(tmp_path / "env")
    assert code == 0 and "1.7.2" in gate_of(tmp_path / "env"), err


def test_a_patch_that_does_not_fit_stops_the_build(world, tmp_path):
    make_wheel(world.wheels, "pkg", "1.0", {**FILES, "pkg/gate.py": "MAXIMUM = '9'\n"})
    world.lock(*sorted(world.wheels.glob("*.whl")))
    patch_pkg(world, "installed")
    code, _, err = world.build(tmp_path / "env")
    assert code == 6 and "gate.py" in err and world.answer(tmp_path / "env") is None


def test_a_pack_builds_where_there_is_no_index(world, tmp_path):
    sdist = make_sdist(world.wheels, "gamma", "3.0")
    world.target(build='[build]\nsdists = ["gamma"]\nrequires = ["beta"]')
    world.lock(*sorted(world.wheels.glob("*.whl")), sdist)
    world.lock(world.wheels / "beta-2.0-py3-none-any.whl", name="tiny.build.txt")
    code, out, err = world.run(
        "env", "pack", tmp_path / "b.tar", "--target", "tiny", "--python", sys.executable
    )
    assert code == 0, err
    for folder in (world.wheels, world.root / "uv", world.root / "cache"):
        shutil.rmtree(folder, ignore_errors=True)
    code, out, err = world.build(tmp_path / "env", "--offline", tmp_path / "b.tar", "--json")
    assert code == 0 and world.answer(tmp_path / "env") == "one", err
    assert json.loads(out)["built"] == ["gamma"]
    content = bytearray((tmp_path / "b.tar").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "b.tar").write_bytes(content)
    code, _, err = world.build(tmp_path / "other", "--offline", tmp_path / "b.tar")
    assert code == 4 and world.answer(tmp_path / "other") is None
