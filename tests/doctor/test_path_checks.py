"""Checks of paths: each fires on one record and is quiet on another."""

import os

import pytest

from bevrepro.doctor import ckpt, config, data, env, metrics
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.registry import PATH_CHECKS
from bevrepro.probe.ckpt import Checkpoint
from bevrepro.probe.config import Config
from bevrepro.probe.environment import Environment
from bevrepro.probe.infos import Infos
from bevrepro.probe.metrics import Metrics
from bevrepro.probe.mounts import MountSeen
from bevrepro.probe.nuscenes import Archive, DataSet, TableFolder
from bevrepro.probe.paths import Place
from bevrepro.probe.tree import Tree

FOLDER, FILE, ABSENT = (
    Place("/data", "folder"),
    Place("/x", "file"),
    Place("/x", "absent", said="no such file"),
)
TINY = ckpt.preset_shapes()["bevformer_tiny"]
HEAD = "pts_bbox_head."
BLOCK = {"layer1.0.conv1.weight": (64, 64, 1, 1), "conv1.weight": (64, 3, 7, 7)}
GOOD_INFOS = Infos(
    "/i.pkl", layout="infos", version="v1.0-trainval", frames=28130, scenes=700, lacking=(), prefix="",
    car_third=1.95, car_fourth=4.62, zero_can_scenes=15,
)  # fmt: skip
MINI = TableFolder("v1.0-mini", scenes=10, samples=404, files_looked_for=60, files_missing=0, can_missing=())
ERRORS = {"mATE": 0.90, "mASE": 0.29, "mAOE": 0.65, "mAVE": 0.66, "mAAE": 0.2}


def root(**parts) -> DataSet:
    return DataSet(
        FOLDER, "ext4", **{"tables": (MINI,), "can_bus": True, "maps": True, "entries": 5, **parts}
    )


def infos(**parts) -> DataSet:
    return DataSet(FILE, infos=(Infos(**{**vars(GOOD_INFOS), **parts}),))


def archive(*parts, **more) -> DataSet:
    return DataSet(FILE, archives=(Archive(*parts, **more),))


def weights(shapes, **parts) -> Checkpoint:
    return Checkpoint(FILE, "zip", shapes=shapes, short=(), **parts)


def without(name: str) -> dict:
    return {key: shape for key, shape in TINY.items() if not key.startswith(name)}


def results(map=0.252, nds=0.354, classes=None, **errors) -> Metrics:
    return Metrics(
        FILE, None, map, nds, {**ERRORS, **errors}, classes or {"car": 0.4, "bus": 0.3, "truck": 0.3}
    )


def recipe(**parts) -> Config:
    known = dict(model="BEVFormer", lr=2e-4, samples_per_gpu=1, queue_length=3, bev_h=50, video=True)
    return Config(FILE, **{**known, **parts})


def made(**parts) -> Environment:
    locked = {"torch": "2.13.0", "scipy": "1.17"}
    known = dict(target="cpu", noted=True, installed=dict(locked), locked=locked, twice=())
    return Environment(FOLDER, **{**known, **parts})


SIZE = 4168148189
CASES = [
    ("data", "mount-lost:fail", root(mount=MountSeen("/m", "dead"))),
    ("data", "mount-archives:fail", root(mount=MountSeen("/m", "mounted", ("/a.tgz",)))),
    ("data", "", root(mount=MountSeen("/m", "mounted"))),
    # family, id:severity (or "" for nothing but notes), record
    ("data", "", root()),
    ("data", "data-unreadable:fail", DataSet(ABSENT)),
    ("data", "data-nothing:fail", DataSet(FOLDER, entries=0)),
    ("data", "data-windows-drive:warn", DataSet(FOLDER, "9p", tables=(MINI,), can_bus=True, maps=True)),
    ("data", "archive-form:fail", archive("v1.0-mini.tgz", SIZE, "html")),
    ("data", "archive-form:fail", archive("can_bus.zip", 780974697, "zip", False)),
    ("data", "archive-form:fail", archive("x.tar", error="Permission denied")),
    ("data", "", archive("v1.0-mini.tgz", SIZE, "gzip")),
    ("data", "", archive("v1.0-trainval01_blobs.tgz", 31574298075, "gzip")),  # the older generation
    ("data", "archive-size:fail", archive("v1.0-trainval01_blobs.tgz", 1 << 30, "gzip")),
    ("data", "archive-size:warn", archive("v1.0-trainval01_keyframes.tgz", 1 << 30, "gzip")),  # unverified
    ("data", "archive-size:fail", archive("v1.0-trainval01_blobs (1).tgz", 1 << 30, "gzip")),
    ("data", "archive-unfinished:warn", DataSet(FILE, unfinished=("v1.0-mini.tgz.part",))),
    ("data", "archive-md5:fail", archive("v1.0-mini.tgz", SIZE, "gzip", True, "0" * 32)),
    ("data", "", archive("v1.0-mini.tgz", SIZE, "gzip", True, "dc2267f6e62b221efb9575929028603b")),
    ("data", "tables-missing:fail", root(tables=(TableFolder("v1.0-mini", lacking=("map.json",)),))),
    ("data", "table-counts:warn", root(tables=(TableFolder("v1.0-mini", scenes=10, samples=400),))),
    ("data", "sensor-files-missing:warn", root(tables=(
        TableFolder("v1.0-mini", scenes=10, samples=404, files_looked_for=60, files_missing=6,
                    files_named=("samples/a.jpg",)),))),
    ("data", "sensor-files-missing:fail", root(tables=(
        TableFolder("v1.0-mini", scenes=10, samples=404, files_looked_for=60, files_missing=60,
                    files_named=("samples/a.jpg",)),))),
    ("data", "maps-missing:warn", root(maps=False)),
    ("data", "can-bus-missing:fail", root(can_bus=False)),
    ("data", "can-bus-missing:warn", root(tables=(TableFolder("v1.0-mini", can_missing=(61, 103)),))),
    ("data", "", root(tables=(TableFolder("v1.0-trainval", can_missing=(161, 176)),))),
    ("data", "infos-refused:fail", infos(refused="os.system")),
    ("data", "infos-broken:fail", infos(broken="pickle data was truncated")),
    ("data", "infos-keys:fail", infos(lacking=("can_bus",))),
    ("data", "infos-convention:fail", infos(car_third=4.62, car_fourth=1.95)),
    ("data", "infos-counts:warn", infos(frames=28000, zero_can_scenes=0)),
    ("data", "infos-zero-can:warn", infos(zero_can_scenes=16)),
    ("data", "infos-zero-can:warn", infos(frames=6019, zero_can_scenes=1)),
    ("data", "", infos()),
    ("ckpt", "", weights(TINY)),
    ("ckpt", "", weights({f"ema_{key}": shape for key, shape in TINY.items()} | TINY)),
    ("ckpt", "", weights({key: shape for key, shape in TINY.items() if "num_batches" not in key})),
    ("ckpt", "ckpt-unreadable:fail", Checkpoint(Place("/x", "forbidden", said="Permission denied"))),
    ("ckpt", "ckpt-refused:fail", Checkpoint(FILE, "zip", refused="os.system")),
    ("ckpt", "ckpt-broken:fail", Checkpoint(FILE, "zip", broken="is cut or damaged: File is not a zip file")),
    ("ckpt", "ckpt-broken:fail", Checkpoint(FILE, "zip", shapes=TINY, short=("12",))),
    ("ckpt", "ckpt-keys:fail", weights(without("img_neck.lateral"))),
    ("ckpt", "ckpt-keys:warn", weights(without("img_backbone"))),
    ("ckpt", "ckpt-other-model:fail", weights(TINY | {"fcos3d_bbox_head.a": (1,)})),
    ("ckpt", "ckpt-other-model:fail", weights({"w": (1,)})),
    ("ckpt", "ckpt-initial-weights:warn", weights({f"img_backbone.{key}": v for key, v in BLOCK.items()}
                                                  | {"bbox_head.a": (1,)})),
    ("ckpt", "ckpt-initial-weights:warn", weights(BLOCK)),
    ("ckpt", "ckpt-initial-weights:warn", weights({f"backbone.{key}": v for key, v in BLOCK.items()})),
    ("ckpt", "ckpt-ema:fail", weights({f"ema_{key}": shape for key, shape in TINY.items()})),
    ("ckpt", "ckpt-ema:warn", weights(TINY, twin="epoch_24_ema.pth")),
    ("ckpt", "", weights(TINY, twin="epoch_24.pth")),
    ("metrics", "", results()),
    ("metrics", "metrics-unreadable:fail", Metrics(ABSENT)),
    ("metrics", "metrics-broken:fail", Metrics(FILE, broken="no NDS")),
    ("metrics", "metrics-box-convention:fail", results(0.25, 0.255, mASE=0.71, mAOE=1.55)),
    ("metrics", "metrics-near-zero:fail", results(0.0001, 0.02)),
    ("metrics", "metrics-batch-lr:warn", results(0.22, 0.318)),
    ("metrics", "metrics-temporal:warn", results(0.23, 0.30, mAVE=1.2)),
    ("metrics", "metrics-absent-classes:warn",
     results(0.2, 0.3, {"car": 0.4, "bus": 0.3, "truck": 0.3, "trailer": 0.0})),
    ("metrics", "metrics-ema:warn", results(0.3744, 0.4989)),
    ("config", "", recipe()),
    ("config", "", recipe(lr=2.8e-4, samples_per_gpu=2)),  # the published fp16 recipe
    ("config", "", recipe(lr=4e-4, samples_per_gpu=2)),
    ("config", "config-unreadable:fail", Config(ABSENT)),
    ("config", "config-broken:fail", Config(FILE, broken="SyntaxError")),
    ("config", "config-batch-lr:warn", recipe(samples_per_gpu=4)),
    ("config", "config-sampler:fail", recipe(nonshuffler="RoundRobin")),
    ("config", "config-sampler:warn", recipe(shuffler="Random")),
    ("config", "config-video:fail", recipe(video=False)),
    ("config", "config-test-batch:fail", recipe(test_samples_per_gpu=4)),
    ("config", "config-queue:warn", recipe(queue_length=2)),
    ("config", "config-batch-norm:warn", recipe(live_batch_norm=True)),
    ("config", "config-initial-weights:warn", recipe(load_from="r.pth", load_from_exists=False)),
    ("config", "config-data-root:warn", recipe(data_root="/d/", data_root_exists=False)),
    ("config", "config-tools-import:warn", recipe(tree=Tree("/b", True, False, False))),
    ("config", "", recipe(tree=Tree("/b", True, True, True))),
    ("env", "", made()),
    ("env", "env-unreadable:fail", Environment(ABSENT)),
    ("env", "env-nothing:fail", Environment(FOLDER)),
    ("env", "env-no-lock:warn", made(locked=None)),
    ("env", "env-versions:fail", made(installed={"torch": "2.12.0", "scipy": "1.17"})),
    ("env", "env-versions:warn", made(installed={"torch": "2.13.0", "scipy": "1.16"})),
    ("env", "env-missing:warn", made(installed={"torch": "2.13.0"})),
    ("env", "env-twice:warn", made(twice=("numpy",))),
    ("env", "env-edited:warn", made(edited=("numpy/core/numeric.py",))),
    ("env", "", made(edited=("mmcv/x.py",), patched=("mmcv/x.py",))),
    ("env", "env-gone:fail", made(gone=("torch/a.py",))),
]  # fmt: skip
NOTES = [
    ("ckpt", "ckpt-fits", weights(TINY, epoch=24)),
    ("ckpt", "ckpt-digest", weights(TINY, sha256="0" * 64)),
    ("data", "infos-paths", infos(prefix="/mnt/other/nuscenes/", prefix_exists=False)),
    ("metrics", "metrics-published", results()),
    ("config", "config-effective-batch", recipe()),
    ("config", "config-launcher", recipe(tree=Tree("/b", True, True, True))),
    ("data", "data-read-only", root(writable=False)),
    ("env", "env-more", made(installed={"torch": "2.13.0", "scipy": "1.17", "wandb": "1"})),
]


def said(family, record) -> list[str]:
    return [f"{each.id}:{each.severity.value}" for each in judge_all(record, PATH_CHECKS[family])]


@pytest.mark.parametrize("family, expected, record", CASES, ids=[f"{f}-{e or 'well'}" for f, e, _ in CASES])
def test_a_record_gets_exactly_its_finding(family, expected, record):
    told = [each for each in said(family, record) if not each.endswith(":info")]
    assert told == ([expected] if expected else [])


@pytest.mark.parametrize("family, id, record", NOTES)
def test_notes(family, id, record):
    assert f"{id}:info" in said(family, record)


def test_every_check_fires_somewhere_and_is_quiet_somewhere():
    fires = {(family, expected.partition(":")[0]) for family, expected, _ in CASES}
    fires |= {(family, id) for family, id, _ in NOTES}
    checks = {(family, check.id) for family, checks in PATH_CHECKS.items() for check in checks}
    assert fires - {(family, "") for family in PATH_CHECKS} == checks
    assert {family for family, expected, _ in CASES if not expected} == set(PATH_CHECKS)


def test_nothing_known_says_nothing():
    for family, record in (("data", DataSet), ("ckpt", Checkpoint), ("config", Config), ("metrics", Metrics)):
        assert said(family, record(Place("/x"))) == []


def test_key_tables_are_the_reference_models(shared):
    import json

    for name, ours in ckpt.preset_shapes().items():
        path = shared / f"facts/state_dict_{name.removeprefix('bevformer_')}.json"
        if path.exists():
            rows = json.loads(path.read_text())["rows"]
            assert ours == {row[0]: tuple(row[1]) for row in rows}


def test_all_five_take_a_path_and_never_raise(tmp_path):
    for look in (data.examine_data, ckpt.examine_ckpt, config.examine_config, metrics.examine_metrics,
                 env.examine_env):  # fmt: skip
        for deep in (False, True):
            assert [each.severity.value for each in look(tmp_path / "no", deep)] == ["fail"]
            assert all(isinstance(each.id, str) for each in look(tmp_path, deep))


def test_names_of_files_reach_no_terminal_as_they_are(tmp_path):
    (tmp_path / "a\x1b[31m_infos.pkl").write_text("x")
    (tmp_path / "b\udcff.tgz").write_text("<html>")
    seen = " ".join(each.seen for each in data.examine_data(tmp_path))
    assert "a [31m" in seen and ".tgz" in seen and seen.isprintable()


def test_pipes_among_data_are_not_waited_for(tmp_path):
    (tmp_path / "v1.0-mini").mkdir()
    for name in ("x_infos.pkl", "can_bus.zip", "v1.0-mini/scene.json", "v1.0-mini/sample_data.json"):
        os.mkfifo(tmp_path / name)
    found = {each.id: each.seen for each in data.examine_data(tmp_path, deep=True)}
    assert "no ordinary file" in found["infos-broken"] and "no ordinary file" in found["archive-form"]
