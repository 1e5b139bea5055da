"""Prepared files: what is read, rewritten, converted and refused."""

import collections
import gc
import os
import pickle
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bevformer import boxes
from bevformer.config import bevformer_micro
from bevformer.data import infos as infos_file
from bevformer.data import prepare, safe_pickle
from bevformer.data.dataset import NuScenesQueue
from bevformer.data.infos import check_infos, from_object, infos_path, load_infos, relative_path
from bevformer.data.store import open_store
from bevformer.errors import DataError
from bevformer.talk import Talk

sys.path.insert(0, str(Path(__file__).parent))
import small_nuscenes  # noqa: E402


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return small_nuscenes.write(tmp_path_factory.mktemp("nusc"))


@pytest.fixture(scope="module")
def store(root):
    return open_store([root])


@pytest.fixture(scope="module")
def out(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("infos")
    prepare.main(["--data-root", root, "--out", str(folder)], Talk(events=False))
    return folder


@pytest.fixture
def data(out):
    """The object in the train file, ours to break."""
    return pickle.loads((out / "nuscenes_infos_temporal_train.pkl").read_bytes())


def write(tmp_path, data, protocol=2):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(data, protocol))
    return str(path)


@pytest.mark.parametrize("protocol", (2, 3, 4, 5))
def test_what_was_prepared_is_read_back_sorted_by_time_whatever_the_protocol(data, tmp_path, protocol):
    data["infos"].reverse()
    infos = load_infos(write(tmp_path, data, protocol))
    stamps = [info["timestamp"] for info in infos.infos]
    assert stamps == sorted(stamps) and infos.version == "v1.0-mini" and len(infos.digest) == 64
    np.testing.assert_array_equal(infos.infos[0]["gt_boxes"], data["infos"][-1]["gt_boxes"])
    assert infos.infos[0]["num_lidar_pts"].dtype == np.int64 and infos.notes == ()


@pytest.mark.parametrize(
    "path, expected",
    (
        ("./data/nuscenes/samples/CAM_BACK/x.jpg", "samples/CAM_BACK/x.jpg"),
        ("/mnt/samples/nuscenes/sweeps/LIDAR_TOP/x.bin", "sweeps/LIDAR_TOP/x.bin"),
        ("samples/CAM_BACK/x.jpg", "samples/CAM_BACK/x.jpg"),
        ("D:\\nuscenes\\samples\\CAM_BACK\\x.jpg", "samples/CAM_BACK/x.jpg"),
        ("my_samples/x.jpg", "my_samples/x.jpg"),
        ("x.jpg", "x.jpg"),
    ),
)
def test_baked_in_folders_are_dropped(path, expected):
    assert relative_path(path) == expected


def test_paths_are_rewritten_in_cameras_sweeps_and_lidar(data, store):
    for info in data["infos"]:
        info["lidar_path"] = "./data/nuscenes/" + info["lidar_path"]
        for entry in [*info["cams"].values(), *info["sweeps"]]:
            entry["data_path"] = "./data/nuscenes/" + entry["data_path"]
    infos = from_object(data, "x.pkl")
    info = infos.infos[-1]
    for name in [info["lidar_path"], info["sweeps"][0]["data_path"], info["cams"]["CAM_BACK"]["data_path"]]:
        assert store.exists(name)
    check_infos(infos, store)


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


class Plain:
    pass


@pytest.mark.parametrize(
    "bad", (Evil(), Plain(), collections.Counter(), np.random.RandomState(0), Path("x"), np.save, eval)
)
def test_anything_but_builtins_and_numpy_is_refused_unrun(bad, tmp_path, capsys):
    with pytest.raises(DataError, match="(?s)x.pkl holds more than plain data.*bevrepro data prepare"):
        load_infos(write(tmp_path, dict(infos=[bad]), 3))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("function", ("numpy.load", "builtins.eval", "os.system", "numpy.f2py"))
def test_no_function_is_reached_by_its_name(function):
    module, name = function.split(".")
    raw = b"\x80\x02c" + module.encode() + b"\n" + name.encode() + b"\n."
    with pytest.raises(DataError, match="more than plain data: " + function):
        safe_pickle.loads(raw, "x.pkl")


def test_no_other_codec_is_reached_either():
    raw = b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00zliBtR.".replace(b"zliB", b"zlib")
    with pytest.raises(DataError, match="zlib"):
        safe_pickle.loads(raw, "x.pkl")


@pytest.mark.parametrize("core", (b"numpy.core", b"numpy._core"))  # NumPy 2 renamed it
def test_the_files_of_either_numpy_are_read(core):
    value = dict(a=np.arange(3), b=np.float32(2), c=np.array(["x", "yy"]), e={1, 2}, f=b"\xff")
    raw = pickle.dumps(value, 2).replace(b"numpy.core", core)
    back = safe_pickle.loads(raw, "x")
    assert back["c"].tolist() == ["x", "yy"] and back["b"].dtype == np.float32 and back["f"] == b"\xff"


@pytest.mark.parametrize("keep", (0, 1, 10, 500, -1))
def test_a_cut_file_is_no_whole_pickle(out, tmp_path, keep):
    (tmp_path / "x.pkl").write_bytes((out / "nuscenes_infos_temporal_train.pkl").read_bytes()[:keep])
    with pytest.raises(DataError, match="x.pkl is not a whole pickle"):
        load_infos(str(tmp_path / "x.pkl"))


@pytest.mark.parametrize(
    "bad", ([], {}, 7, {"infos": 3}, {"infos": [3]}, {"data_list": [3]}, {"infos": [{}]})
)
def test_a_file_of_another_form_is_refused(bad, tmp_path):
    with pytest.raises(DataError, match="x.pkl"):
        load_infos(write(tmp_path, bad))


def test_a_file_without_frames_and_a_missing_one_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no frames"):
        load_infos(write(tmp_path, dict(infos=[], metadata={})))
    with pytest.raises(DataError, match="cannot read"):
        load_infos(str(tmp_path / "none.pkl"))


@pytest.mark.parametrize("random_bytes", range(20))
def test_damage_never_ends_in_a_traceback(out, tmp_path, store, random_bytes):
    rng = np.random.RandomState(random_bytes)
    raw = bytearray((out / "nuscenes_infos_temporal_train.pkl").read_bytes())
    for at in rng.randint(0, len(raw), 20):
        raw[at] = rng.randint(256)
    (tmp_path / "x.pkl").write_bytes(raw)
    try:
        NuScenesQueue(load_infos(str(tmp_path / "x.pkl")), store, bevformer_micro(), training=True)
    except DataError as error:
        assert "x.pkl" in str(error) or "sample" in str(error)


def test_five_cameras_are_refused_naming_the_sample_and_the_camera(data):
    del data["infos"][2]["cams"]["CAM_BACK_LEFT"]
    with pytest.raises(DataError, match="sample scene-0061-2 in x.pkl has 5 cameras: CAM_BACK_LEFT"):
        from_object(data, "x.pkl")


def test_a_camera_without_calibration_is_named(data):
    del data["infos"][2]["cams"]["CAM_BACK_LEFT"]["cam_intrinsic"]
    with pytest.raises(DataError, match="sample scene-0061-2, CAM_BACK_LEFT in x.pkl lacks cam_intrinsic"):
        from_object(data, "x.pkl")


def test_boxes_that_do_not_fit_together_are_refused(data):
    data["infos"][1]["valid_flag"] = data["infos"][1]["valid_flag"][:-1]
    with pytest.raises(DataError, match="sample scene-0061-1 .*, . boxes: valid_flag"):
        from_object(data, "x.pkl")


@pytest.mark.parametrize(
    "key, value",
    (
        ("ego2global_rotation", [1, 0, 0]),
        ("can_bus", np.zeros(16)),
        ("cams", 7),
        ("timestamp", "noon"),
        ("gt_boxes", np.zeros((5, 9))),
        ("gt_velocity", None),
        ("cams", {}),
    ),
)
def test_a_field_of_another_form_is_refused(data, key, value):
    data["infos"][1][key] = value
    with pytest.raises(DataError, match="x.pkl"):
        from_object(data, "x.pkl")


def test_infos_without_can_data_get_zeros_and_a_note(data):
    for info in data["infos"]:
        del info["can_bus"]
    infos = from_object(data, "x.pkl")
    assert infos.infos[0]["can_bus"].shape == (18,) and "5 of 5 frames have no CAN data" in infos.notes[0]


def test_boxes_of_mmdet3d_1_0_are_recognised_by_their_cars_and_converted(data):
    size = [2.0, 4.5, 1.6]
    del data["metadata"]["bevrepro_tables_digest"]
    for info in data["infos"]:
        info["gt_boxes"][:, 3:6] = size
    expected = from_object(data, "x.pkl")
    assert expected.notes == ()
    for info in data["infos"]:
        info["gt_boxes"] = boxes.legacy_to_new(info["gt_boxes"])
    found = from_object(data, "x.pkl")
    assert "mmdet3d 1.0" in found.notes[0]
    for a, b in zip(found.infos, expected.infos):
        np.testing.assert_allclose(boxes.corners(a["gt_boxes"]), boxes.corners(b["gt_boxes"]), atol=1e-12)


def test_a_folder_is_searched_for_the_split(out, tmp_path):
    assert infos_path(str(out), "val").endswith("nuscenes_infos_temporal_val.pkl")
    assert infos_path(str(out / "nuscenes_infos_temporal_val.pkl"), "train").endswith("val.pkl")
    with pytest.raises(DataError, match="(?s)no nuscenes_infos_temporal_test.pkl.*_train.pkl, nuscenes"):
        infos_path(str(out), "test")
    with pytest.raises(DataError, match="no such infos file"):
        infos_path(str(tmp_path / "none"), "train")


def test_infos_of_the_same_data_pass(out, store):
    for split in ("train", "val"):
        check_infos(load_infos(infos_path(str(out), split)), store)


def test_infos_of_other_data_are_refused_by_their_tokens(data, store):
    data["infos"][3]["token"] = "elsewhere"
    with pytest.raises(DataError, match="made from other data: 1 of its 5 frames.* as sample elsewhere"):
        check_infos(from_object(data, "x.pkl"), store)


def test_infos_of_another_set_of_frames_are_refused_by_the_digest(data, store):
    data["metadata"]["bevrepro_tables_digest"] = "0" * 64
    with pytest.raises(DataError, match="(?s)another set of frames.*digest.*000000000000"):
        check_infos(from_object(data, "x.pkl"), store)


def test_infos_of_another_version_are_refused(data, store):
    data["metadata"]["version"] = "v1.0-trainval"
    with pytest.raises(DataError, match="(?s)no tables of v1.0-trainval.*There is v1.0-mini"):
        check_infos(from_object(data, "x.pkl"), store)


def test_missing_images_name_sample_and_camera_also_without_tables(out, root, tmp_path):
    shutil.copytree(Path(root) / "samples", tmp_path / "samples")
    infos = load_infos(infos_path(str(out), "train"))
    check_infos(infos, open_store([str(tmp_path)]))
    shutil.rmtree(tmp_path / "samples/CAM_FRONT_LEFT")
    with pytest.raises(DataError, match="sample scene-0061-0, CAM_FRONT_LEFT of .*_train.pkl"):
        check_infos(infos, open_store([str(tmp_path)]))


def test_bare_file_names_are_looked_for_in_the_cameras_folder(data, store):
    cam = data["infos"][0]["cams"]["CAM_BACK"]
    full, cam["data_path"] = cam["data_path"], cam["data_path"].rsplit("/", 1)[1]
    assert infos_file.image_name(cam, "CAM_BACK", store) == full


def test_numpy_that_contradicts_itself_is_refused_and_ends_no_process(tmp_path):
    script = Path(__file__).with_name("forged_numpy.py")
    call = [sys.executable, "-W", "ignore", str(script), "infos", str(tmp_path)]
    model = str(Path(safe_pickle.__file__).parents[2])
    done = subprocess.run(
        call, env={**os.environ, "PYTHONPATH": model}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = done.stdout.decode()
    assert done.returncode == 0 and said.count("more than plain data") == said.count("\n") > 80, said[-2000:]


@pytest.mark.parametrize("protocol", (2, 3, 4, 5))
@pytest.mark.parametrize(
    "value",
    (
        np.zeros((0, 7)),
        np.array([], dtype="U5"),
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.array(["x", "yy"], dtype=">U3"),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(3.5),
        np.array(["2018-07-24", "NaT"], "M8[D]"),
        np.array([25], "m8[25s]"),
        np.array([b"a", b"bc"]),
        np.array([True, False]),
        np.float32(2.5),
        np.bool_(True),
        np.str_(""),
        np.str_("yy"),
        np.datetime64("2018-07-24T01", "us"),
    ),
    ids=lambda value: "%s %s" % (value.dtype.str, value.shape),
)
def test_numpy_is_read_as_numpy_reads_it(protocol, value):
    raw = pickle.dumps([value, (value, {"x": value})], protocol)
    plain, ours = pickle.loads(raw), safe_pickle.loads(raw, "x")
    for there, here in ((plain[0], ours[0]), (plain[1][1]["x"], ours[1][1]["x"])):
        assert type(here) is type(there) and here.dtype == there.dtype and here.shape == there.shape
        assert np.array(here).tobytes() == np.array(there).tobytes()
    if isinstance(value, np.ndarray):
        assert ours[0] is ours[1][0] is ours[1][1]["x"]
        assert ours[0].flags.f_contiguous == plain[0].flags.f_contiguous and ours[0].flags.writeable


@pytest.mark.parametrize("protocol", (2, 4, 5))
def test_objects_and_circles_keep_who_they_are(protocol):
    one, several = np.ones(3), np.empty((2, 2), dtype=object)
    circle = [one, (), ((one, "x"),), {"dtype": np.dtype(">f4")}]
    several[:] = [[one, circle], [{"y": one}, (1, (one,))]]
    circle += [circle, several, (circle, 1), {(1, ("a",)): {2, 3}}]
    back = safe_pickle.loads(pickle.dumps(circle, protocol), "x")
    found = back[5]
    assert back[4] is back and back[6][0] is back and type(back[0]) is np.ndarray and back[7] == circle[7]
    assert back[2][0][0] is back[0] is found[0, 0] is found[1, 0]["y"] is found[1, 1][1][0]
    assert found[0, 1] is back and found.dtype == object and back[3]["dtype"] == np.dtype(">f4")


def test_nesting_deeper_than_python_calls_is_read():
    deep = b"\x80\x02" + b"]" * 10**5 + b"N\x85" + b"a" * 10**5 + b"."
    assert safe_pickle.loads(deep, "x")[0][0][0]
    assert safe_pickle.loads(b"\x80\x02N" + b"\x85" * 10**5 + b".", "x")[0][0][0]


def test_the_garbage_collector_and_the_memory_are_left_as_they_were():
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(DataError):
        safe_pickle.loads(b"\x80\x02Nr\xff\xff\xff\x7f.", "x")  # a memo of 2**31 places
    assert gc.isenabled() and resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_function_of_the_readers_own_cannot_be_changed():
    with pytest.raises(DataError, match="a change to _codecs.encode"):
        safe_pickle.loads(b"\x80\x02c_codecs\nencode\nN}X\x01\x00\x00\x00aK\x01s\x86b.", "x")
    with pytest.raises(DataError, match="x is not a whole pickle"):
        safe_pickle.loads(b"\x80\x02cnumpy\ndtype\nN}X\x01\x00\x00\x00aK\x01s\x86b.", "x")


@pytest.mark.parametrize("levels", (10**6, 10**8), ids=("read", "more than there is room for"))
def test_keys_nested_deeper_than_the_stack_end_no_process(levels):
    code = (
        "from bevformer.data.safe_pickle import loads; loads(b'\\x80\\x02}N' + b'\\x85' * %d + b'Ns.', 'x')"
    )
    model = str(Path(safe_pickle.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code % levels],
        env={**os.environ, "PYTHONPATH": model},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said = done.stdout.decode()
    assert (done.returncode, said) == (0, "") if levels < 10**7 else "x is not a whole pickle" in said


@pytest.mark.parametrize("value", (np.array(["ab"]), np.str_("ab")))
def test_text_that_is_none_is_a_sentence(value):
    raw = pickle.dumps([value], 4).replace(b"a\0\0\0", b"a\0\0\x7f")
    with pytest.raises(DataError, match="x is not a whole pickle"):
        safe_pickle.loads(raw, "x")
