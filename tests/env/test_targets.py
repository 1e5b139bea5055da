"""The target files: complete, of the format, and what a slip of the pen in one is told as."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from bevrepro.core.errors import ConfigError
from bevrepro.core.paths import envs_dir, patches_dir
from bevrepro.env import evidence, patchset, selftest, target
from bevrepro.env.lockfile import read_lock

NAMED_IN_ISSUE_5 = {
    "cpu", "cpu-openmmlab", "a100", "a100-torch2", "h800", "h800-torch2", "rtx30", "rtx40", "rtx50-torch2",
    "wsl2", "bevformer-2022", "ascend910b",
}  # fmt: skip
ALL = target.names()
CPU = (envs_dir() / "targets" / "cpu.toml").read_text()


def test_every_target_is_there_and_the_default_comes_first():
    assert set(ALL) >= NAMED_IN_ISSUE_5 and ALL[0] == "cpu"


@pytest.mark.parametrize("name", ALL)
def test_a_target_reads_and_says_what_was_done_with_it(name):
    found = target.load(name)
    assert found.evidence and found.level in target.LEVELS
    assert all(each.command and each.on for each in found.evidence)
    assert all(each.pin and each.instead and each.why for each in found.gave_way)


@pytest.mark.parametrize("name", ALL)
def test_one_package_owns_cv2_and_torch_is_pinned(name):
    found = target.load(name)
    names = [Requirement(each).name for each in found.requirements]
    assert [each for each in names if each.startswith("opencv")] == ["opencv-python-headless"]
    assert "==" in found.torch_requirement


@pytest.mark.parametrize("name", ALL)
def test_what_a_target_names_is_there(name):
    found = target.load(name)
    assert found.selftest and set(found.selftest) <= set(selftest.NAMES)
    assert all((patches_dir() / each / "series.toml").is_file() for each in found.patches)
    # A patch set of another version would be refused at the end of an hour's compiling.
    pinned = {f"{each.name}-{next(iter(each.specifier)).version}" for each in pins(found)}
    assert set(found.patches) <= pinned


def pins(found):
    wanted = [Requirement(each) for each in found.requirements]
    return [each for each in wanted if str(each.specifier).startswith("==")]


@pytest.mark.parametrize("name", [each for each in ALL if target.load(each).stack == "openmmlab1"])
def test_where_torch_stops_at_mmcvs_own_checkpoints_mmcv_is_patched(name):
    """The doctor is quiet about `weights-only` in what was built of a target, for this reason."""
    found = target.load(name)
    torch = Version(next(iter(Requirement(found.torch_requirement).specifier)).version)
    patches = {patch.file for each in found.patches for patch in patchset.load(each).patches}
    assert torch < Version("2.6") or "0010-let-numbers-into-checkpoints.patch" in patches


@pytest.mark.parametrize("name", [each for each in ALL if target.load(each).cuda])
def test_the_compiler_can_be_had_and_is_of_torchs_major_version(name):
    found = target.load(name)
    assert (envs_dir() / "cuda" / f"{found.cuda.version}.toml").is_file()
    lock = (envs_dir() / "locks" / f"{name}.txt").read_text()
    torchs = re.search(r"^nvidia-cuda-runtime(?:-cu\d+)?==(\d+)", lock, re.MULTILINE)
    theirs = torchs.group(1) if torchs else re.search(r"\+cu(\d\d)", found.torch.requirement).group(1)
    assert found.cuda.version.split(".")[0] == theirs
    assert "sm_" + found.cuda.arch_list.split(";")[-1].replace(".", "") == found.hardware.architectures[-1]


@pytest.mark.parametrize("name", [each for each in ALL if target.load(each).stack == "openmmlab1"])
def test_sdists_that_import_torch_are_built_last_and_told_about(name):
    found = target.load(name)
    assert found.build.sdists[-2:] == ("mmcv-full", "mmdet3d")
    assert {row.name for row in found.lock.metadata} == {"mmcv-full", "mmdet3d"}
    assert found.build.environment["FORCE_CUDA"] == ("0" if found.hardware.kind == "cpu" else "1")


def test_rtx50_has_the_pins_that_were_built_and_run_on_a_cpu():
    locks = envs_dir() / "locks"
    gpu, cpu = (read_lock(locks / f"{name}.txt").pins for name in ("rtx50", "cpu-openmmlab-torch2"))
    theirs = {pin.name: pin.version for pin in gpu}
    assert {pin.name: theirs.get(pin.name) for pin in cpu} == {pin.name: pin.version for pin in cpu}
    assert target.load("rtx50").patches == target.load("cpu-openmmlab-torch2").patches


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(ConfigError, match="is 'a100' meant") as caught:
        target.load("a10O")
    assert "h800" in caught.value.why and caught.value.do == "bevrepro env list"


@pytest.mark.parametrize(
    "old, new, said",
    [
        ('stack = "torch2"', 'stack = "torch3"', "stack is 'torch3'"),
        ('stack = "torch2"', 'stak = "torch2"', "is 'stack' meant"),
        ('name = "cpu"', 'name = "gpu"', "its name is 'gpu'"),
        ('kind = "cpu"', 'kind = "tpu"', "hardware.kind is 'tpu'"),
        ('level = "ran-on-cpu"', 'level = "works"', "evidence.level is 'works'"),
        ('cutoff = "2026-11-20"', 'cutoff = "soon"', "not a day"),
        ('cutoff = "2026-11-20"', "cutoff = 2026-11-20", "not a text in quotes"),
        ('order = ["3.11", "3.12", "3.10"]', 'order = "3.11"', "not a list"),
        ('order = ["3.11", "3.12", "3.10"]', "order = [3.11]", "an entry of python.order"),
        ("needs_gib = 2.5", 'needs_gib = "much"', "disk.needs_gib is 'much'"),
        ("[selftest]", "[selftests]", "is 'selftest' meant"),
        ("[disk]", "[desk]", "unknown key 'desk'"),
        ('sha256 = "6746', 'sha256 = "', "not 64 hexadecimal digits"),
        ('on = "uv', 'where = "uv', "unknown key 'where'"),
        ("[hardware]", "[hardware", "cannot be read"),
    ],
)
def test_a_slip_of_the_pen_is_named(tmp_path, old, new, said):
    path = tmp_path / "cpu.toml"
    assert old in CPU
    path.write_text(CPU.replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        target.read(path)
    assert str(path) in caught.value.seen


def test_a_key_that_is_missing_is_named(tmp_path):
    path = tmp_path / "cpu.toml"
    path.write_text(re.sub(r'\[\[torch.wheel\]\]\npython = "3.11"', "[[torch.wheel]]", CPU))
    with pytest.raises(ConfigError, match="torch.wheel lacks python"):
        target.read(path)


def test_a_part_of_the_operators_is_another_environment_and_needs_mmcv():
    reduced = target.with_operators(target.load("a100"), ["nms", "focal_loss", "nms"])
    assert reduced.build.operators == ("focal_loss", "nms") and reduced.name == "a100"
    with pytest.raises(ConfigError, match="cpu compiles no operators"):
        target.with_operators(target.load("cpu"), ["nms"])


def made(*levels, kind="nvidia"):
    found = target.load("a100" if kind == "nvidia" else "cpu")
    rows = [target.Evidence(level, f"2026-0{day}-01", "x", "y") for day, level in enumerate(levels, 1)]
    return target.Target(**{**vars(found), "evidence": tuple(rows)})


def test_evidence_is_ordered_by_what_it_shows_and_the_gaps_are_named():
    found = made("compiled", "resolved")
    assert [each.level for each in evidence.in_order(found)] == ["resolved", "compiled"]
    assert evidence.badge(found) == "compiled 2026-01-01"
    assert evidence.missing(found) == ("ran-on-cpu", "ran-on-gpu")


def test_without_evidence_a_target_is_unverified_and_a_cpu_needs_no_gpu():
    assert evidence.badge(made()) == "unverified" and "ran-on-gpu" in evidence.missing(made())
    assert evidence.missing(made("installed", kind="cpu")) == ("ran-on-cpu",)


def test_the_page_explains_every_key():
    page = (Path(__file__).parents[2] / "docs" / "environments.md").read_text()
    tables, keys = set(), set()
    for path in (envs_dir() / "targets").glob("*.toml"):
        parts = re.split(r"^(\[+[\w.]+\]+).*\n", path.read_text(), flags=re.MULTILINE)
        tables |= set(parts[1::2])
        named_by_package = ("[lock.cutoff_of]", "[build.environment]", "[environment]")
        bodies = [body for head, body in zip(["", *parts[1::2]], parts[::2]) if head not in named_by_package]
        keys |= {key for body in bodies for key in re.findall(r"^(\w+) = ", body, re.MULTILINE)}
    assert {each for each in tables | keys if f"`{each}`" not in page} == set()
