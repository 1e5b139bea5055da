"""Files that are broken, foreign or meant to do harm: a sentence, and nothing executed."""

import datetime
import inspect
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bevformer import checkpoint_read
from bevformer.checkpoint import load_checkpoint, save_checkpoint
from bevformer.checkpoint_scan import Described, scan
from bevformer.errors import CheckpointError


@pytest.fixture
def path(tmp_path):
    """A good checkpoint of one 4-vector to be spoilt."""
    file = tmp_path / "a.pth"
    torch.save({"meta": {}, "state_dict": {"w": torch.arange(4.0)}}, str(file))
    return file


def rewrite(path, change, compression=zipfile.ZIP_STORED):
    """The zip again, with `change(name, data) -> data` applied."""
    with zipfile.ZipFile(path) as archive:
        parts = [(member.filename, archive.read(member)) for member in archive.infolist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts:
            archive.writestr(name, change(name, data))
    return str(path)


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated_file_is_a_sentence(tmp_path, keep):
    path = tmp_path / "a.pth"
    save_checkpoint(str(path), nn.Linear(50, 50))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(str(path))


@pytest.mark.parametrize("keep", [0.02, 0.1, 0.5, 0.99])
def test_truncated_file_of_the_old_format_is_a_sentence(tmp_path, keep):
    path = tmp_path / "a.pth"
    torch.save({"w": torch.ones(1000)}, str(path), _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(CheckpointError, match="is broken"):
        load_checkpoint(str(path))


@pytest.mark.parametrize(
    "content, word",
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git-lfs"),
        (b"epoch 24: mAP 0.25\n", "text file.*epoch 24"),
        (b"cos\nsystem\n(S'touch ran'\ntR.", "text file"),
        (b"\x80\x02garbage", "broken"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b'\x40\x00\x00\x00\x00\x00\x00\x00{"w":', "safetensors"),
        (b"PK\x05\x06" + bytes(18), "broken"),
        (pickle.dumps({"infos": [], "metadata": {}}), "no checkpoint of torch .a dict: infos, metadata"),
        (pickle.dumps([1, 2], 2), "no checkpoint of torch .a list"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, word):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=word):
        load_checkpoint(str(path))


def test_archives_are_not_unpacked(tmp_path):
    with tarfile.open(tmp_path / "a.pth", "w") as archive:
        archive.add(__file__, "storages")
    with pytest.raises(CheckpointError, match="tar archive"):
        load_checkpoint(str(tmp_path / "a.pth"))
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
        archive.write(__file__, "b/readme.txt")
    with pytest.raises(CheckpointError, match="no data.pkl"):
        load_checkpoint(str(tmp_path / "b.pth"))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_program_is_not_run(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(tmp_path / "a.pth"))
    with pytest.raises(CheckpointError, match="TorchScript"):
        load_checkpoint(str(tmp_path / "a.pth"))


def test_missing_file_and_folder_list_the_neighbours(tmp_path, path):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(str(tmp_path / "iter_6.pth"))
    assert "a.pth" in caught.value.why
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(str(tmp_path))
    assert "a folder with: a.pth" in caught.value.why


def test_unreadable_file_is_a_sentence(path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkpoint_read, "scan", refuse)
    with pytest.raises(CheckpointError, match="cannot read .*Permission"):
        load_checkpoint(str(path))


class Evil:
    """Unpickles as a call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], tuple(self.call[1:])


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "function, name", [(os.system, "posix.system"), (eval, "eval"), (subprocess.check_call, "check_call")]
)
def test_code_in_a_file_is_refused_and_not_run(tmp_path, monkeypatch, zipped, function, name):
    monkeypatch.chdir(tmp_path)
    word = {"eval": "open('ran', 'w')"}.get(name, "touch ran")
    content = {"state_dict": {"w": torch.ones(2)}, "meta": {"x": Evil(function, word)}}
    torch.save(content, "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=name) as caught:
        load_checkpoint("evil.pth")
    assert "never run" in caught.value.why and os.listdir(".") == ["evil.pth"]


def test_a_whole_model_is_refused_by_its_class(tmp_path):
    torch.save(nn.Linear(2, 2), str(tmp_path / "a.pth"))
    with pytest.raises(CheckpointError, match="torch.nn.modules.linear.Linear"):
        load_checkpoint(str(tmp_path / "a.pth"))


def test_changing_a_class_on_the_list_is_refused(path):
    # GLOBAL torch.nn.parameter Parameter, BUILD (None, {"__len__": 1}): would set an attribute of the class.
    attack = b"\x80\x02ctorch.nn.parameter\nParameter\n(N}X\x07\x00\x00\x00__len__K\x01stb."
    rewrite(path, lambda name, data: attack if name.endswith("data.pkl") else data)
    with pytest.raises(CheckpointError, match="a change to torch.nn.parameter.Parameter"):
        load_checkpoint(str(path))
    assert torch.nn.Parameter.__len__ != 1


def test_other_codecs_are_refused(tmp_path):
    import _codecs

    torch.save({"w": torch.ones(1), "x": Evil(_codecs.encode, "a", "rot13")}, str(tmp_path / "a.pth"))
    with pytest.raises(CheckpointError, match="codec"):
        load_checkpoint(str(tmp_path / "a.pth"))


@pytest.mark.parametrize("count", [5, 2**20, 2**31 - 1])
def test_record_that_declares_more_than_it_has_is_refused(path, count):
    """Older torch reads past the end of such a record."""
    number = b"J" + count.to_bytes(4, "little")

    def lie(name, data):
        return data.replace(b"K\x04t", number + b"t", 1).replace(b"K\x04\x85", number + b"\x85", 1)

    with pytest.raises(CheckpointError, match="declares %d bytes and has 16" % (4 * count)):
        load_checkpoint(rewrite(path, lie))


def test_record_that_is_missing_is_refused(path):
    with pytest.raises(CheckpointError, match="has none"):
        load_checkpoint(
            rewrite(path, lambda name, data: data.replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x009"))
        )


def test_zip_that_would_expand_a_thousandfold_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"w": torch.zeros(2**21)}, str(path))
    rewrite(path, lambda name, data: data, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**16
    with pytest.raises(CheckpointError, match="declare to be"):
        load_checkpoint(str(path))


def test_old_format_that_declares_more_than_the_file_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"w": torch.arange(4.0)}, str(path), _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert b"K\x04N" in data  # number of the storage's elements, then its view
    path.write_bytes(data.replace(b"K\x04N", b"J\xff\xff\xff\x7fN"))
    with pytest.raises(CheckpointError, match="declare 8589934588 bytes"):
        load_checkpoint(str(path))


@pytest.mark.parametrize(
    "content", [[1, 2], {"a": 1}, {"state_dict": {"a": 1}}, {"state_dict": {}}, {1: torch.ones(1)}]
)
def test_files_without_weights_are_a_sentence(tmp_path, content):
    torch.save(content, str(tmp_path / "a.pth"))
    with pytest.raises(CheckpointError, match="holds no weights|holds a list"):
        load_checkpoint(str(tmp_path / "a.pth"))


def test_objects_of_openmmlab_are_left_unread(tmp_path, monkeypatch):
    """mmengine keeps its message hub beside the weights; its classes are not needed and never loaded."""
    import sys
    import types

    package = types.ModuleType("mmengine")
    package.History = type("History", (), {"__module__": "mmengine", "mean": lambda self: 0})
    monkeypatch.setitem(sys.modules, "mmengine", package)
    history = package.History()
    history.log = [1, 2]
    torch.save(
        {"state_dict": {"w": torch.ones(1)}, "message_hub": {"loss": history}}, str(tmp_path / "a.pth")
    )
    monkeypatch.delitem(sys.modules, "mmengine")
    content = load_checkpoint(str(tmp_path / "a.pth"))
    assert repr(content["message_hub"]["loss"]) == "<not loaded>"


@pytest.mark.parametrize("zipped", [True, False])
def test_shapes_are_known_without_loading(tmp_path, zipped):
    model = nn.Linear(3, 2)
    content = {"state_dict": model.state_dict(), "half": torch.ones(4).half(), "parameter": model.weight}
    torch.save(content, str(tmp_path / "a.pth"), _use_new_zipfile_serialization=zipped)
    seen = scan(str(tmp_path / "a.pth"))
    assert seen["state_dict"]["weight"] == Described((2, 3), "Float") == seen["parameter"]
    assert seen["half"] == Described((4,), "Half")


@pytest.fixture
def old_torch(monkeypatch):
    """torch.load as it was before 1.13: everything is unpickled by the module it is given."""
    whole = torch.load
    free = {"weights_only": False} if "weights_only" in inspect.signature(whole).parameters else {}

    def load(f, map_location=None, pickle_module=pickle, **options):
        assert pickle_module is not pickle
        return whole(f, map_location=map_location, pickle_module=pickle_module, **free, **options)

    monkeypatch.setattr(torch, "load", load)


@pytest.mark.parametrize("zipped", [True, False])
def test_old_torch_reads_through_the_list_alone(tmp_path, old_torch, zipped):
    model, name = nn.Linear(3, 2), str(tmp_path / "a.pth")
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    meta = {"seed": np.int64(3), "means": np.ones(2), "CLASSES": ("car",), "when": datetime.date(2022, 3, 26)}
    content = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "meta": meta}
    torch.save(content, name, _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(name, nn.Linear(3, 2))
    assert loaded["meta"]["seed"] == 3 and loaded["meta"]["when"].year == 2022
    assert torch.equal(
        loaded["optimizer"]["state"][0]["exp_avg"], content["optimizer"]["state"][0]["exp_avg"]
    )


def test_old_torch_refuses_code_even_where_the_scan_saw_none(tmp_path, old_torch, monkeypatch):
    torch.save({"w": torch.ones(1), "x": Evil(os.system, "touch ran")}, str(tmp_path / "a.pth"))
    monkeypatch.setattr(checkpoint_read, "scan", lambda path: None)
    with pytest.raises(CheckpointError, match="posix.system"):
        load_checkpoint(str(tmp_path / "a.pth"))


def with_pickle(path, attack):
    return rewrite(path, lambda name, data: attack if name.endswith("data.pkl") else data)


def test_numpy_that_contradicts_itself_is_refused_and_ends_no_process(tmp_path):
    script = Path(__file__).with_name("forged_numpy.py")
    call = [sys.executable, "-W", "ignore", str(script), "checkpoint", str(tmp_path)]
    model = str(Path(checkpoint_read.__file__).parents[1])
    done = subprocess.run(
        call, env={**os.environ, "PYTHONPATH": model}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = done.stdout.decode()
    assert done.returncode == 0 and said.count(" carries ") == said.count("\n") > 80, said[-2000:]


def test_honest_numpy_in_a_meta_is_read(tmp_path):
    meta = {
        "number": np.float32(2.5),
        "date": np.datetime64("2022-03-26T01", "25s"),
        "dates": np.array(["2022-03-26"], "M8[D]"),
        "texts": np.array(["car", "bus"]),
        "empty": np.zeros((0, 7)),
        "no text": np.str_(""),
        "bytes": np.array([b"a"]),
        "objects": np.array([{"a": np.ones(2)}, None, "x"], dtype=object),
        "other end": np.arange(6, dtype=">i4").reshape(2, 3),
        "by column": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "flags": np.array([True, False]),
    }
    torch.save({"state_dict": {"w": torch.ones(1)}, "meta": meta}, str(tmp_path / "a.pth"))
    back = checkpoint_read.read_file(str(tmp_path / "a.pth"))["meta"]
    assert np.array_equal(back["objects"][0].pop("a"), meta["objects"][0].pop("a"))
    for name, value in meta.items():
        assert np.array_equal(back[name], value), name
        assert back[name].dtype == value.dtype.newbyteorder("="), name  # NumPy turns the bytes round


@pytest.mark.parametrize("names", [("numpy.core.", "numpy._core."), ("numpy._core.", "numpy.core.")])
def test_a_meta_of_the_other_numpy_is_read(path, names):
    old, new = (("cnumpy.%s." % name.split(".")[1]).encode() for name in names)
    torch.save({"state_dict": {"w": torch.ones(1)}, "meta": {"x": np.arange(3)}}, str(path))
    rewrite(path, lambda name, data: data.replace(old, new))
    assert load_checkpoint(str(path))["meta"]["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "attack, word",
    [
        (b"}N" + b"\x85" * 10**6 + b"Ns.", "tuples in each other"),  # as a key: its hash overruns the stack
        (b"(dp2000000000\n.", "does not fit|holds no weights"),  # a memo of 2 * 10**9 places
        (b"ctorch\nTensor\n\x8a\x05\x00\x00\x00\x00\x10\x85R.", "a call of torch.Tensor"),
        (b"cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R.", "bytearray"),
        (b"\x96" + (2**40).to_bytes(8, "little") + b".", "is broken"),
        (b"c__builtin__\nbytes\n\x8a\x05\x00\x00\x00\x00\x10\x85R.", "is broken"),
    ],
)
def test_a_pickle_that_would_take_all_memory_or_the_stack_is_a_sentence(path, attack, word):
    with pytest.raises(CheckpointError, match=word):
        load_checkpoint(with_pickle(path, b"\x80\x02" + attack))


def _long(number):
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _pairs(count):
    return b"".join(b"(" + _long(k * P) + b"Nl" for k in range(1, count))


P = 2**61 - 1  # the modulus of hashes of numbers
ALIKE = b"".join(_long(k * P) for k in range(1, 99))
TWO = b"".join(b"G" + struct.pack(">d", -1000003.0 * k) + b"G" + struct.pack(">d", k) for k in range(99))
COMPLEX = b"".join(b"cbuiltins\ncomplex\n" + TWO[18 * k : 18 * k + 18] + b"\x86R" for k in range(1, 99))
STALLS = {
    "dict": b"}(" + ALIKE.replace(b"\x8a", b"N\x8a")[1:] + b"Nu.",
    "dict by one": b"}" + b"".join(_long(k * P) + b"Ns" for k in range(1, 99)) + b".",
    "old dict": b"(" + ALIKE.replace(b"\x8a", b"N\x8a")[1:] + b"Nd.",
    "set": b"\x8f(" + ALIKE + b"\x90.",
    "frozenset": b"(" + ALIKE + b"\x91.",
    "old set": b"cbuiltins\nset\n(" + ALIKE + b"l\x85R.",
    "old ordered dict": b"ccollections\nOrderedDict\n(" + _pairs(99) + b"l\x85R.",
    "complex": b"\x8f(" + COMPLEX + b"\x90.",
    "tuples of one": b"}K\x01\x85" + b"2\x86" * 25 + b"Ns.",
}


@pytest.mark.parametrize("name", STALLS)
def test_keys_that_would_keep_a_reader_busy_are_a_sentence(path, name):
    with pytest.raises(CheckpointError, match="keys have one hash|tuples without end"):
        load_checkpoint(with_pickle(path, b"\x80\x04" + STALLS[name]))


def test_numbers_of_honest_parameters_are_keys_as_they_were(tmp_path):
    """By order, or by address as older torch has it; -1 and -2 have one hash."""
    state = {
        number: {"step": 1} for number in (*range(-2000, 2000), *range(2**47, 2**47 + 64000, 64), 1.0, True)
    }
    content = {"state_dict": {"w": torch.ones(2)}, "optimizer": {"state": state, "seen": {(1, (2, 3)): 4}}}
    torch.save(content, str(tmp_path / "a.pth"))
    assert load_checkpoint(str(tmp_path / "a.pth"))["optimizer"] == content["optimizer"]


@pytest.mark.parametrize(
    "old, new",
    [(b"K\x00K\x04\x85", b"K\x01K\x04\x85"), (b"K\x01\x85", b"K\x02\x85"), (b"K\x04\x85", b"K\x05\x85")],
)
def test_a_tensor_that_reaches_past_its_record_is_refused(path, old, new):
    """By its offset, its strides, its shape: torch takes more memory and shows what was there before."""
    with pytest.raises(CheckpointError, match="reaches number [57] of a record that declares 4"):
        load_checkpoint(rewrite(path, lambda name, data: data.replace(old, new)))


def test_a_record_of_two_lengths_is_refused(tmp_path):
    weight = torch.arange(4.0)
    torch.save({"a": weight, "b": weight.view(2, 2)}, str(tmp_path / "a.pth"))

    def lie(name, data):
        return data.replace(b"K\x04t", b"K\x08t", 1)

    with pytest.raises(CheckpointError, match="twice"):
        load_checkpoint(rewrite(tmp_path / "a.pth", lie))


def test_two_zip_archives_in_one_file_are_refused(path, tmp_path):
    """Python reads the last; torch may be shown another."""
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(CheckpointError, match="more than one zip archive"):
        load_checkpoint(str(path))


def test_a_zip_whose_end_points_elsewhere_is_refused(path):
    data = bytearray(path.read_bytes())
    assert data[-42:-38] == b"PK\6\7"
    data[-34] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="more than one zip archive"):
        load_checkpoint(str(path))


def test_records_whose_names_differ_by_case_are_refused(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/DATA.pkl", b"")
    with pytest.raises(CheckpointError, match="two records of one name"):
        load_checkpoint(str(path))


def test_names_of_weights_in_the_old_format_are_names(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"w": torch.arange(4.0)}, str(path), _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    at = data.rindex(b"\x80\x02]")
    path.write_bytes(data[:at] + pickle.dumps([Evil(os.system, "true")], 2) + data[at:])
    with pytest.raises(CheckpointError, match="posix.system"):
        load_checkpoint(str(path))
