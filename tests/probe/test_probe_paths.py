"""Looking at data roots, configurations, metrics and environments."""

import base64
import gzip
import hashlib
import json
import os
import pickle
import zipfile

import numpy
import pytest

from bevrepro.probe import nuscenes
from bevrepro.probe.config import probe_config
from bevrepro.probe.environment import probe_env
from bevrepro.probe.infos import probe_infos
from bevrepro.probe.metrics import probe_metrics
from bevrepro.probe.nuscenes import TABLES, probe_data
from bevrepro.probe.paths import probe_place
from bevrepro.probe.tree import Tree, probe_tree
from tests.probe.unprivileged import as_nobody


def frame(token, third=1.95, fourth=4.6, speed=1.0, prefix=""):
    return {
        "token": token, "scene_token": token, "can_bus": numpy.array([0.0] * 7 + [speed] * 9 + [0.0] * 2),
        "gt_names": numpy.array(["car", "pedestrian"]),
        "gt_boxes": numpy.array([[0, 0, 0, third, fourth, 1.7, 0], [0, 0, 0, 0.7, 0.7, 1.7, 0]]),
        "cams": {"CAM_FRONT": {"data_path": f"{prefix}samples/CAM_FRONT/a.jpg"}},
    }  # fmt: skip


def test_an_infos_file_tells_its_convention_paths_and_can(tmp_path):
    frames = [frame("a", prefix="./data/nuscenes/"), frame("b", speed=0.0)]
    path = tmp_path / "nuscenes_infos_temporal_val.pkl"
    path.write_bytes(pickle.dumps({"infos": frames, "metadata": {"version": "v1.0-mini"}}))
    found = probe_infos(path)
    assert (found.version, found.frames, found.scenes, found.zero_can_scenes) == ("v1.0-mini", 2, 2, 1)
    assert (found.car_third, found.car_fourth) == (1.95, 4.6)
    assert found.prefix == "./data/nuscenes/" and found.prefix_exists is False
    assert "cams" not in found.lacking and "frame_idx" in found.lacking


@pytest.mark.parametrize("content", [[], {"x": 1}, {"infos": 3}, None])
def test_a_pickle_of_something_else_is_broken(tmp_path, content):
    (tmp_path / "infos.pkl").write_bytes(pickle.dumps(content))
    assert probe_infos(tmp_path / "infos.pkl").broken


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "v1.0-mini"
    folder.mkdir()
    for name in TABLES:
        (folder / f"{name}.json").write_text("[]")
    (folder / "scene.json").write_text(json.dumps([{"name": "scene-0061"}, {"name": "scene-0103"}]))
    names = [f"samples/CAM_FRONT/{index}.jpg" for index in range(20)]
    rows = [{"filename": name} for name in names] + [{"filename": "sweeps/LIDAR_TOP/x.bin"}]
    (folder / "sample_data.json").write_text(json.dumps(rows))
    (tmp_path / "samples/CAM_FRONT").mkdir(parents=True)
    for name in names[:15]:
        (tmp_path / name).touch()
    (tmp_path / "can_bus").mkdir()
    (tmp_path / "can_bus/scene-0061_pose.json").touch()
    return tmp_path


def test_a_data_root_is_counted(root):
    (tables,) = probe_data(root, deep=True).tables
    assert tables.lacking == () and tables.scenes == 2 and tables.can_missing == (103,)
    assert (tables.files_looked_for, tables.files_missing) == (20, 5)
    assert probe_data(root).tables[0].files_missing > 0


def test_broken_and_missing_tables_are_named(root):
    (root / "v1.0-mini/scene.json").write_text("[{")
    (root / "v1.0-mini/map.json").unlink()
    (tables,) = probe_data(root).tables
    assert tables.lacking == ("map.json",) and tables.broken[0].startswith("scene.json")


def test_archives_are_told_by_their_bytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "can_bus.zip", "w") as archive:
        archive.writestr("a", "x" * 1000)
    whole = (tmp_path / "can_bus.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-30])
    (tmp_path / "page.tgz").write_text("<html>Please log in</html>")
    (tmp_path / "a.tgz").write_bytes(gzip.compress(os.urandom(1000)))
    (tmp_path / "b.tgz").write_bytes(gzip.compress(os.urandom(1000))[:-20])
    found = {each.name: each for each in probe_data(tmp_path, deep=True).archives}
    assert found["can_bus.zip"].ends is True and found["cut.zip"].ends is False
    assert found["page.tgz"].begins == "html"
    assert found["a.tgz"].ends is True and found["b.tgz"].ends is False
    assert found["can_bus.zip"].md5 == hashlib.md5(whole).hexdigest()


def test_places(tmp_path):
    (tmp_path / "file").write_text("abc")
    kinds = [
        probe_place(path).kind for path in (tmp_path, tmp_path / "file", tmp_path / "file/x", tmp_path / "no")
    ]
    assert kinds == ["folder", "file", "absent", "absent"]
    assert probe_place(tmp_path / "a\0b").kind == "absent"


CONFIG = """
_base_ = ['base.py']
queue = 3
import os
data = dict(samples_per_gpu=1, train=dict(queue_length=queue), val=dict(samples_per_gpu=2),
            shuffler_sampler=dict(type='DistributedGroupSampler'), root=os.environ['X'])
optimizer = dict(lr=2e-4)
load_from = 'ckpts/r101.pth'
raise SystemExit(3)
"""


def test_a_config_is_read_and_not_run(tmp_path):
    (tmp_path / "base.py").write_text(
        "model = dict(type='BEVFormer', video_test_mode=True)\ndata = dict(samples_per_gpu=9)"
    )
    (tmp_path / "c.py").write_text(CONFIG)
    found = probe_config(tmp_path / "c.py")
    assert (found.model, found.video, found.lr) == ("BEVFormer", True, 2e-4)
    assert (found.samples_per_gpu, found.test_samples_per_gpu, found.queue_length) == (1, 2, 3)
    assert found.shuffler == "DistributedGroupSampler" and found.load_from_exists is False


@pytest.mark.parametrize("text", ["x = (", "a = 1", "\0", "_base_ = ['c.py']\nmodel = dict()", "[" * 5000])
def test_a_broken_config_is_told(tmp_path, text):
    (tmp_path / "c.py").write_text(text)
    assert probe_config(tmp_path / "c.py").broken


LOG = """mAP: 0.2519
mATE: 0.8989
mASE: 0.2943
mAOE: 0.6530
mAVE: 0.6552
mAAE: 0.2172
NDS: 0.3545
Per-class results:
Object Class	AP	ATE	ASE	AOE	AVE	AAE
car	0.455	0.702	0.169	0.150	0.678	0.236
trailer	0.000	1.000	1.000	1.000	1.000	1.000
traffic_cone	0.399	0.754	0.350	nan	nan	nan
"""


def test_the_devkits_table_in_a_log(tmp_path):
    (tmp_path / "log").write_text("NDS: 0.1000\n" + LOG)
    found = probe_metrics(tmp_path / "log")
    assert (found.map, found.nds, found.errors["mAVE"]) == (0.2519, 0.3545, 0.6552)
    assert found.class_ap == {"car": 0.455, "trailer": 0.0, "traffic_cone": 0.399}


def test_a_metrics_summary_in_its_folder(tmp_path):
    content = {"mean_ap": 0.25, "nd_score": 0.35, "tp_errors": {"vel_err": 0.6, "x": 1},
               "mean_dist_aps": {"car": 0.4, "bus": float("nan")}}  # fmt: skip
    (tmp_path / "metrics_summary.json").write_text(json.dumps(content))
    found = probe_metrics(tmp_path)
    assert (found.map, found.nds, found.errors, found.class_ap) == (0.25, 0.35, {"mAVE": 0.6}, {"car": 0.4})


@pytest.mark.parametrize("text", ["", "{}", "[1]", "nothing here", "\ufffd"])
def test_what_is_no_evaluation_is_told(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    assert probe_metrics(tmp_path / "x.json").broken


def test_edited_and_deleted_files_of_an_environment(tmp_path):
    site = tmp_path / "lib/python3.11/site-packages"
    info = site / "torch-2.13.0.dist-info"
    info.mkdir(parents=True)
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"as built").digest()).decode().rstrip("=")
    for name, text in (("same.py", "as built"), ("edited.py", "by hand")):
        (site / name).write_text(text)
    rows = "".join(f"{name},sha256={digest},8\n" for name in ("same.py", "edited.py", "gone.py"))
    (info / "RECORD").write_text(rows + "torch-2.13.0.dist-info/RECORD,,\n")
    (tmp_path / "pyvenv.cfg").write_text("home = /usr\nversion = 3.11.7\n")
    found = probe_env(tmp_path, deep=True)
    assert found.python == "3.11.7" and found.installed == {"torch": "2.13.0"}
    assert found.edited == ("edited.py",) and found.gone == ("gone.py",)
    assert probe_env(tmp_path).edited is None


def test_what_setup_py_installed_counts_as_installed(tmp_path):
    site, checkout = tmp_path / "lib/python3.8/site-packages", tmp_path / "mmdetection"
    for folder in (site / "mmdet3d-0.17.1-py3.8-linux-x86_64.egg", site / "mmcv_full-1.4.0-py3.8.egg-info",
                   checkout / "mm_det.egg-info"):  # fmt: skip
        folder.mkdir(parents=True)
    (site / "mm-det.egg-link").write_text(f"{checkout}\n.")
    (checkout / "mm_det.egg-info/PKG-INFO").write_text("Name: mm-det\nVersion: 2.14.0\n")
    (site / "gone.egg-link").write_text("/nonexistent\n.")
    assert probe_env(tmp_path).installed == {"mmdet3d": "0.17.1", "mmcv-full": "1.4.0", "mm-det": "2.14.0"}


def test_the_lock_is_read_for_the_environments_python(tmp_path):
    (tmp_path / "lib/python3.11/site-packages").mkdir(parents=True)
    (tmp_path / "pyvenv.cfg").write_text("version = 3.11.7\n")
    locked = probe_env(tmp_path).locked
    assert locked["numpy"].startswith("1.26") and "torch" in locked
    (tmp_path / "bevrepro-env.json").write_text('{"target": "../../etc/passwd"}')
    assert probe_env(tmp_path).locked is None


ABSOLUTE = "from tools.data_converter.s3dis_data_utils import S3DISData\n"


def upstream(folder, converter=ABSOLUTE, demand="assert False"):
    """A source tree with its converter, its test.py and a configuration, which is returned."""
    texts = {
        "tools/data_converter/indoor_converter.py": converter,
        "tools/test.py": f"    if not distributed:\n        {demand}\n",
        "projects/configs/bevformer/tiny.py": "model = dict(type='BEVFormer')\n",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "projects/configs/bevformer/tiny.py"


def test_the_tree_around_a_configuration_tells_what_its_tools_stop_at(tmp_path):
    found = probe_tree(upstream(tmp_path / "a"), {"PYTHONPATH": f"/x:{tmp_path}/b"})
    assert found == Tree(str(tmp_path / "a"), True, False, True)
    mended = upstream(
        tmp_path / "b", ABSOLUTE.replace("tools.data_converter", ""), "model = MMDataParallel(m)"
    )
    on_path = probe_tree(mended, {"PYTHONPATH": f"/x:{tmp_path}/b/"})
    assert on_path == Tree(str(tmp_path / "b"), False, True, False)
    assert probe_config(mended).tree.path == str(tmp_path / "b")
    assert probe_tree(tmp_path / "alone.py", {}) is None


def test_data_that_may_not_be_written_is_told(open_folder):
    (open_folder / "v1.0-mini").mkdir()
    open_folder.chmod(0o555)
    assert as_nobody(lambda: probe_data(open_folder)).writable is False
    open_folder.chmod(0o777)
    assert as_nobody(lambda: probe_data(open_folder)).writable is True


def test_a_mounted_archive_cannot_be_written_whatever_the_kernel_says(tmp_path, monkeypatch):
    (tmp_path / "v1.0-mini").mkdir()
    text = f"FuseMount {tmp_path} fuse rw,nosuid 0 0\n"
    monkeypatch.setattr(nuscenes, "read_text", lambda path: text)
    assert os.access(tmp_path, os.W_OK) and probe_data(tmp_path).writable is False
