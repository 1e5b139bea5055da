"""Strangers' pickles: read as data, refused by name, never run."""

import io
import os
import pickle
import resource
import subprocess
import sys
import types
import zipfile

import numpy
import pytest

from bevrepro.probe.ckpt import LEGACY_MAGIC, probe_ckpt
from bevrepro.probe.infos import probe_infos
from bevrepro.probe.pickles import DAMAGE, PlainUnpickler, Refused, TorchUnpickler


class Hostile:
    def __init__(self, marker, how=os.system):
        self.marker, self.how = marker, how

    def __reduce__(self):
        return self.how, (f"touch {self.marker}",)


def hostile_programs(marker) -> list[bytes]:
    """Several ways to call something: REDUCE, an object's INST, a change to what may be called."""
    return [
        pickle.dumps({"infos": Hostile(marker)}),
        pickle.dumps({"infos": Hostile(marker, eval)}),
        f"cos\nsystem\n(S'touch {marker}'\ntR.".encode(),
        f"(S'touch {marker}'\nios\nsystem\n.".encode(),
        b"cbuiltins\n__import__\n(S'os'\ntR.",
        b"cnumpy\ndtype\n}S'text'\nS'x'\nsb.",  # BUILD on something callable
        b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'__init__'\ntR.",
    ]


@pytest.mark.parametrize("reader", [PlainUnpickler, TorchUnpickler])
def test_nothing_is_run(tmp_path, reader):
    marker = tmp_path / "run"
    for program in hostile_programs(marker):
        try:
            reader(io.BytesIO(program)).load()
        except (Refused, *DAMAGE):
            pass
    assert not marker.exists()


@pytest.mark.parametrize("number", range(5))
def test_a_hostile_file_is_refused_by_name(tmp_path, number):
    marker, path = tmp_path / "run", tmp_path / "x_infos_val.pkl"
    path.write_bytes(hostile_programs(marker)[number])
    assert "." in probe_infos(path).refused and not marker.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_back_without_numpy(protocol):
    content = {
        "f8": numpy.arange(6.0).reshape(2, 3), "names": numpy.array(["car", "bus"]),
        "i4": numpy.int32([1, -2]),
        "scalar": numpy.float64(2.5), "bool": numpy.array([True, False]), "none": None, "set": {1},
        "objects": numpy.array([None, "x"], dtype=object),
    }  # fmt: skip
    read = PlainUnpickler(io.BytesIO(pickle.dumps(content, protocol))).load()
    assert read["f8"].shape == (2, 3) and read["f8"].values() == [0, 1, 2, 3, 4, 5]
    assert read["names"].values() == ["car", "bus"] and read["i4"].values() == [1, -2]
    assert read["bool"].values() == [True, False] and read["scalar"] == 2.5
    assert read["objects"].values() == [None, "x"]


@pytest.mark.parametrize("protocol", range(6))
def test_a_frame_without_boxes_comes_back(protocol):
    raw = pickle.dumps({"boxes": numpy.zeros((0, 7)), "raw": b""}, protocol)
    content = PlainUnpickler(io.BytesIO(raw)).load()
    assert (content["boxes"].shape, content["boxes"].values(), content["raw"]) == ((0, 7), [], b"")


@pytest.mark.parametrize("size", [0, 1, 20, 100])
def test_a_cut_file_is_broken(tmp_path, size):
    path = tmp_path / "infos.pkl"
    path.write_bytes(pickle.dumps({"infos": [{"token": "x" * 200}]})[:size])
    assert probe_infos(path).broken


# ---- checkpoints


class Tensor:
    """Pickles like a torch tensor of that shape."""

    def __init__(self, key, *shape):
        self.key, self.shape = key, shape


class TorchPickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, tuple) and value[:1] == ("STORAGE",):
            return ("storage", sys.modules["torch"].FloatStorage, value[1], "cpu", value[2])
        return None

    def reducer_override(self, value):
        if isinstance(value, Tensor):
            count = 1
            for each in value.shape:
                count *= each
            rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
            return rebuild, (("STORAGE", value.key, count), 0, value.shape, (1,), False, {})
        return NotImplemented


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Write what torch.save would, without torch."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch._utils = utils
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    exec("def _rebuild_tensor_v2(*args): ...", utils.__dict__)
    utils._rebuild_tensor_v2.__module__ = "torch._utils"
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    def write(content, records, name="x.pth"):
        buffer = io.BytesIO()
        TorchPickler(buffer, 2).dump(content)
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("archive/data.pkl", buffer.getvalue())
            for key, data in records.items():
                archive.writestr(f"archive/data/{key}", data)
        return tmp_path / name

    return write


def test_keys_and_shapes_without_torch(save):
    path = save({"meta": {"epoch": 3}, "state_dict": {"module.w": Tensor("0", 2, 3)}, "optimizer": {}},
                {"0": bytes(24)})  # fmt: skip
    found = probe_ckpt(path, deep=True)
    assert found.shapes == {"w": (2, 3)} and found.short == () and found.epoch == 3 and found.optimizer
    assert len(found.sha256) == 64


def test_a_record_that_is_too_short_is_seen(save):
    assert probe_ckpt(save({"w": Tensor("0", 2, 3)}, {"0": bytes(20)})).short == ("0",)
    assert probe_ckpt(save({"w": Tensor("0", 2, 3)}, {})).short == ("0",)


def test_the_average_beside_it_is_seen(save):
    save({"w": Tensor("0", 1)}, {"0": bytes(4)}, "epoch_24_ema.pth")
    path = save({"w": Tensor("0", 1)}, {"0": bytes(4)}, "epoch_24.pth")
    assert probe_ckpt(path).twin == "epoch_24_ema.pth"


def test_a_truncated_zip_is_broken_at_every_length(save):
    path = save({"w": Tensor("0", 2, 3)}, {"0": bytes(24)})
    whole = path.read_bytes()
    for size in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:size])
        assert probe_ckpt(path).broken


def test_a_hostile_checkpoint_is_refused(tmp_path):
    marker = tmp_path / "run"
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": Hostile(marker)}, 2))
    assert "system" in probe_ckpt(tmp_path / "x.pth").refused and not marker.exists()


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs"),
        (pickle.dumps({"a": 1}), "no checkpoint"),
        (b"\x80\x02garbage", "damaged"),
    ],
)
def test_what_is_no_checkpoint_is_told_in_words(tmp_path, content, words):
    (tmp_path / "x.pth").write_bytes(content)
    assert words in probe_ckpt(tmp_path / "x.pth").broken


NESTED = b"\x80\x02}K\x01" + b"\x85" * 300_000 + b"K\x02s."  # {((((...1,),),),): 2}


@pytest.mark.parametrize("kind", ["infos", "zip", "legacy"])
def test_tuples_in_each_other_do_not_end_the_process(tmp_path, kind):
    path = tmp_path / "a.pth"
    path.write_bytes(NESTED)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", NESTED)
    reader = "infos" if kind == "infos" else "ckpt"
    code = f"import sys, pathlib; from bevrepro.probe.{reader} import probe_{reader} as probe; "
    code += "found = probe(pathlib.Path(sys.argv[1])); print(found.broken, found.refused)"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def _long(number):
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


STALLS = {
    "one hash": b"}" + b"".join(_long(k * (2**61 - 1)) + b"Ns" for k in range(1, 99)) + b".",
    "tuples without end": b"}K\x01\x85" + b"2\x86" * 25 + b"Ns.",
}


@pytest.mark.parametrize("words", STALLS)
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_keys_that_would_keep_a_reader_busy_are_told(tmp_path, kind, words):
    path, content = tmp_path / "a.pth", b"\x80\x04" + STALLS[words]
    path.write_bytes(pickle.dumps(LEGACY_MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + content)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", content)
    assert words in probe_ckpt(path).broken


def test_more_tuples_than_there_is_room_for_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("bevrepro.probe.pickles.HASH_B", 1 << 40)
    (tmp_path / "a.pkl").write_bytes(NESTED)
    assert "300000 tuples" in probe_infos(tmp_path / "a.pkl").broken


def test_a_small_pickle_that_asks_for_gigabytes_is_refused_them(tmp_path):
    path = tmp_path / "x_infos.pkl"
    path.write_bytes(b"\x80\x04]r\x00\x00\x00\x20.")  # a memo of 2**29 entries: 8 GiB
    before = resource.getrlimit(resource.RLIMIT_AS)
    found = probe_infos(path)
    assert found.broken == "MemoryError" and resource.getrlimit(resource.RLIMIT_AS) == before
