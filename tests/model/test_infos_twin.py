"""The twin of a prepared file: the same frames, checked, and used only while it belongs to its pickle."""

import json
import os
import pickle
import random
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from bevformer import record
from bevformer.config import bevformer_micro
from bevformer.data import infos as infos_file
from bevformer.data import infos_twin, prepare
from bevformer.data.dataset import NuScenesQueue
from bevformer.data.infos import check_infos, infos_path, load_infos
from bevformer.data.infos_frames import Frames, plain_frames
from bevformer.data.infos_twin import open_twin
from bevformer.data.store import open_store
from bevformer.errors import DataError
from bevformer.talk import Talk

sys.path.insert(0, str(Path(__file__).parent))
import small_nuscenes  # noqa: E402

NAME = "nuscenes_infos_temporal_train"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return small_nuscenes.write(tmp_path_factory.mktemp("nusc"))


@pytest.fixture(scope="module")
def prepared(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("infos")
    prepare.main(["--data-root", root, "--out", str(folder)], Talk(events=False))
    return folder


@pytest.fixture
def out(prepared, tmp_path):
    """A copy to break: new times, the same bytes."""
    shutil.copytree(prepared, tmp_path / "infos")
    return tmp_path / "infos"


def both(folder):
    """The infos from the twin and from the pickle."""
    pkl = str(folder / (NAME + ".pkl"))
    slow = infos_file.from_object(infos_file.read_object(pkl), pkl)
    fast = load_infos(pkl)
    assert isinstance(fast.infos, Frames) and isinstance(slow.infos, list)
    return fast, slow


def assert_same(a, b, where=""):
    """Bit for bit, types too."""
    if isinstance(b, Mapping):
        assert list(a) == list(b), where
        for key in b:
            assert_same(a[key], b[key], where + "/" + key)
    elif isinstance(b, (list, tuple)):
        assert type(a) is type(b) and len(a) == len(b), where
        for i, (one, other) in enumerate(zip(a, b)):
            assert_same(one, other, "%s/%d" % (where, i))
    elif isinstance(b, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes(), where
    else:
        assert type(a) is type(b) and a == b, where


def test_every_frame_is_the_pickles_bit_for_bit(prepared):
    fast, slow = both(prepared)
    for a, b in zip(fast.infos, slow.infos):
        assert_same(a, b)
    assert len(fast) == len(slow) == 5 and (fast.version, fast.digest) == (slow.version, slow.digest)
    assert (fast.source, fast.metadata, fast.notes) == (slow.source, slow.metadata, slow.notes)


def test_the_data_set_and_the_runs_digest_are_the_same_either_way(prepared, root):
    store = open_store([root])
    one, two = (NuScenesQueue(infos, store, bevformer_micro(), True) for infos in both(prepared))
    for index in range(len(one)):
        a, b = one.test_frame(index), two.test_frame(index)
        assert torch.equal(a.images_NCHW, b.images_NCHW)
        for name in ("lidar2img_N44", "can_bus_18"):
            assert getattr(a.meta, name).tobytes() == getattr(b.meta, name).tobytes()
        assert torch.equal(one.truth(index).boxes_G9, two.truth(index).boxes_G9)
    assert one.labelled_indices() == two.labelled_indices()
    assert record.infos_digest(one.infos.infos) == record.infos_digest(two.infos.infos)
    check_infos(one.infos, store)


def test_what_is_changed_in_a_frame_does_not_reach_the_file(prepared):
    frame = load_infos(str(prepared / (NAME + ".bev"))).infos[0]
    frame["gt_boxes"][:] = 7
    frame["cams"]["CAM_BACK"]["cam_intrinsic"][:] = 7
    assert not (frame["gt_boxes"] == 7).any() and "gt_boxes" in frame and "nothing" not in frame
    with pytest.raises(KeyError):
        frame["nothing"]


def test_a_twin_alone_is_enough(out):
    os.unlink(str(out / (NAME + ".pkl")))
    path = infos_path(str(out), "train")
    assert path.endswith(NAME + ".bev") and len(load_infos(path)) == 5
    assert infos_path(path, "val") == path


def test_a_copy_with_other_times_is_fresh_and_a_changed_pickle_is_not(out):
    assert isinstance(load_infos(str(out / (NAME + ".pkl"))).infos, Frames)
    data = pickle.loads((out / (NAME + ".pkl")).read_bytes())
    data["infos"][0]["gt_boxes"] = data["infos"][0]["gt_boxes"] + 1.0
    (out / (NAME + ".pkl")).write_bytes(pickle.dumps(data, 2))
    infos = load_infos(str(out / (NAME + ".pkl")))
    assert isinstance(infos.infos, list) and "was not made from" in infos.notes[-1]


def test_a_pickle_changed_at_the_same_size_is_noticed(out):
    path = out / (NAME + ".pkl")
    path.write_bytes(path.read_bytes().replace(b"scene-0061-1", b"scene-0061-9"))
    assert isinstance(load_infos(str(path)).infos, list)


def files(folder):
    return sorted(path.name for path in (folder / (NAME + ".bev")).iterdir())


@pytest.mark.parametrize("seed", range(60))
def test_damage_anywhere_is_found_and_the_pickle_is_read_instead(out, seed):
    draw = random.Random(seed)
    path = out / (NAME + ".bev") / draw.choice(files(out))
    raw = bytearray(path.read_bytes())
    how = draw.randrange(3)
    if how == 0:
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    elif how == 1:
        del raw[draw.randrange(len(raw)) :]
    path.write_bytes(raw) if how < 2 else path.unlink()
    _, slow = both_or_pickle(out)
    try:
        twin = open_twin(str(out / (NAME + ".bev")))
    except DataError as error:
        assert str(out) in str(error)
        return
    # Spaces of index.json, or a header's padding, may change without meaning anything.
    assert path.name.endswith(("index.json", ".npy")) and how == 0
    for a, b in zip(plain_frames(twin), slow):
        assert_same(a, b)


def both_or_pickle(folder):
    """Loading never fails; the frames of the pickle."""
    pkl = str(folder / (NAME + ".pkl"))
    return load_infos(pkl), pickle.loads(Path(pkl).read_bytes())["infos"]


@pytest.mark.parametrize(
    "change",
    (
        dict(format="x"),
        dict(version=2),
        dict(frames=-1),
        dict(frames=10**30),
        dict(frames="5"),
        dict(cameras=["CAM_FRONT"]),
        dict(boxes=False, columns=None),
        dict(columns={}),
        dict(metadata=[]),
    ),
    ids=str,
)
def test_an_index_that_says_something_else_is_refused(out, change):
    path = out / (NAME + ".bev") / "index.json"
    index = dict(json.loads(path.read_text()), **change)
    path.write_text(json.dumps(dict(index, sha256=infos_twin._index_digest(index))))
    with pytest.raises(DataError, match="bev"):
        load_infos(str(out / (NAME + ".bev")))


def test_an_array_of_objects_is_never_unpickled(out, capsys):
    class Evil:
        def __reduce__(self):
            return print, ("ran",)

    np.save(out / (NAME + ".bev") / "frame.timestamp.npy", np.array([Evil()] * 5), allow_pickle=True)
    with pytest.raises(DataError, match="frame.timestamp.npy"):
        load_infos(str(out / (NAME + ".bev")))
    assert capsys.readouterr().out == ""


def test_it_travels_to_a_worker_as_a_path(prepared):
    infos = load_infos(str(prepared / (NAME + ".pkl")))
    raw = pickle.dumps(infos)
    again = pickle.loads(raw)
    assert len(raw) < 20_000
    for a, b in zip(again.infos, infos.infos):
        assert_same(a, b)
