"""What uv's cache gave is compared with the wheels: an edit in there never becomes an environment."""

import zipfile

import pytest

from bevrepro.core.paths import envs_dir
from bevrepro.env import uv_cache
from bevrepro.env.lockfile import Pin
from bevrepro.facts import tomllib
from tests.env.build_world import make_sdist, make_wheel, make_world, receipt


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path / "w")


def test_a_file_that_one_of_its_packages_vouches_for_is_no_suspect():
    wanted = {"both.py": {"a": "1", "b": "2"}, "own.py": {"a": "3"}, "gone.py": {"b": "4"}}
    assert uv_cache.judge(wanted, {"both.py": "2", "own.py": "3", "gone.py": "4"}) == {}
    found = {"both.py": "9", "own.py": "3", "gone.py": None}
    assert uv_cache.judge(wanted, found) == {"a": {"both.py": "9"}, "b": {"both.py": "9", "gone.py": None}}


def rewrite(wheel, name, content):
    """The wheel with another file in it, and the RECORD that it had."""
    with zipfile.ZipFile(wheel) as archive:
        files = {each: archive.read(each) for each in archive.namelist()}
    assert name in files
    with zipfile.ZipFile(wheel, "w") as archive:
        for each, old in files.items():
            archive.writestr(each, content if each == name else old)


def test_a_known_slip_need_not_be_asked_for_again():
    name, version, file, sha256 = min(uv_cache.known_slips())
    pin = Pin(name, version, None, ())
    assert not uv_cache.unknown(pin, {f"site/{file}": sha256}, "site")
    assert uv_cache.unknown(pin, {f"site/{file}": "0" * 64}, "site") and uv_cache.unknown(pin, {}, "site")


def test_known_slips_are_of_locked_packages_and_say_where_they_are_from():
    rows = tomllib.loads((envs_dir() / "slips.toml").read_text())["slip"]
    locks = "".join(path.read_text() for path in (envs_dir() / "locks").glob("*.txt"))
    assert all(f"{row['package']}=={row['version']}" in locks for row in rows)
    assert all(row["source"] and row["checked"] for row in rows)


@pytest.mark.parametrize("damage", ["edit", "remove", "record", "line"])
def test_damage_in_uvs_cache_is_refused_and_cleaning_it_helps(world, tmp_path, damage):
    old, new = tmp_path / "old", tmp_path / "new"
    assert world.build(old)[0] == 0
    (kept,) = (world.root / "uv").glob("archive-v0/*/alpha/__init__.py")
    if damage == "edit":
        kept.write_text(kept.read_text().replace("one", "two"))
    elif damage == "remove":
        kept.unlink()
    else:
        (record,) = kept.parents[1].glob("*.dist-info/RECORD")
        line = next(each for each in record.read_text().splitlines() if "part1.py" in each)
        path, _, size = line.split(",")
        hashed = "sha256=" + "A" * 43 if damage == "record" else "none"
        record.write_text(record.read_text().replace(line, f"{path},{hashed},{size}"))
    code, _, err = world.build(new)
    assert code == 4 and "alpha 1.0" in err and "cache clean alpha" in err
    assert not new.exists() and world.answer(old) == "one"
    world.env["UV_CACHE_DIR"] = str(world.root / "clean")
    assert world.build(new)[0] == 0 and world.answer(new) == "one"


def test_an_environment_of_a_wheel_with_a_slip_is_built_and_names_it(world, tmp_path):
    gamma = make_wheel(world.wheels, "gamma", "1.0", {"gamma.py": "x = 1\n"})
    rewrite(gamma, "gamma.py", "x = 2\n")
    world.lock(*world.wheels.glob("*.whl"))
    assert world.build(tmp_path / "e")[0] == 0
    assert [path.rpartition("/")[2] for path in receipt(tmp_path / "e")["slips"]] == ["gamma.py"]


def test_a_compiled_wheel_that_was_changed_in_the_cache_is_compiled_again(world, tmp_path):
    delta = make_sdist(world.root / "wheels", "delta", "1.0")
    world.target(build='[build]\nsdists = ["delta"]\nrequires = []\n')
    world.lock(*world.wheels.glob("*.whl"), delta)
    assert world.build(tmp_path / "e")[0] == 0
    (kept,) = (world.root / "cache/built").glob("delta-*/*.whl")
    rewrite(kept, "delta.py", "value = 'from nobody'\n")
    assert world.build(tmp_path / "f")[0] == 0
    (module,) = (tmp_path / "f").glob("lib/python3*/site-packages/delta.py")
    assert "from source" in module.read_text()
