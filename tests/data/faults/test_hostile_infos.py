"""Infos made to harm whoever reads them, through `bevrepro data convert`: nothing runs or is touched outside.

Tries: 19 pickles and 4 twins to two layouts each, with 3 GiB of memory; each place a result may not go to.
"""

import json
import os
import pickle
import resource
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.data.faults.hostile import snapshot
from tests.data.flow.walkers import walker

KIND_CODES = (2, 4, 6)  # usage, data, config: a sentence and a way on
MEMORY = 3 << 30


class Calls:
    """A pickle that calls something when it is read."""

    def __init__(self, function, *words):
        self.how = function, words

    def __reduce__(self):
        return self.how


def laughs(levels=40):
    """Two of what had two of what had two ...: small in a pickle, 10**12 when written out."""
    found = ["ha"]
    for _ in range(levels):
        found = [found, found]
    return found


def raw(module, name, args):
    """Protocol 2 of a call by name, for what Python itself would not pickle so."""
    return b"\x80\x02c%s\n%s\n" % (module, name) + pickle.dumps(args, 2)[2:-1] + b"R."


def infos(**more):
    return dict(infos=[], metadata=dict(version="v1.0-mini"), **more)


def pickles(victim):
    """name -> bytes."""
    evil, treasure = victim / "evil", victim / "treasure"
    return {
        "os.system": pickle.dumps(Calls(os.system, f"touch {evil}"), 2),
        "os.unlink": pickle.dumps(infos(x=Calls(os.unlink, str(treasure))), 2),
        "eval": pickle.dumps(infos(x=Calls(eval, f"open({str(evil)!r}, 'w')")), 4),
        "Popen": pickle.dumps([Calls(subprocess.Popen, ["touch", str(evil)])], 5),
        "rmtree": pickle.dumps(Calls(shutil.rmtree, str(victim)), 2),
        "open": raw(b"io", b"open", (str(treasure), "w")),
        "tofile": raw(b"numpy", b"memmap", (str(treasure), "u1", "w+", 0, (9,))),
        "attribute of an allowed name": raw(b"numpy", b"ndarray.tofile", (str(treasure),)),
        "set of a range": raw(b"builtins", b"set", (range(10**11),)),
        "frozenset of a range": raw(b"__builtin__", b"frozenset", (range(10**11),)),
        "bytearray": raw(b"builtins", b"bytearray", (10**13,)),
        "array": raw(b"numpy", b"ndarray", ((10**11,),)),
        "reconstructed array": raw(b"numpy.core.multiarray", b"_reconstruct", (np.ndarray, (10**11,), b"b")),
        "long list of nothing": b"\x80\x02]" + b"(" * 10**6 + b".",
        "deep": b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",
        "a loop": b"\x80\x02}q\x00X\x05\x00\x00\x00infosq\x01h\x00s.",
        "cut": pickle.dumps(infos(), 2)[:-5],
        "text": b"<!DOCTYPE html>",
        "nothing": b"",
    }


NAMES = sorted(pickles(Path("/nowhere")))


@pytest.fixture
def world(tmp_path):
    """(home, where commands may write; downloads and a victim with a treasure, where nobody may)."""
    goer = walker(tmp_path / "home", unprivileged=False)
    for name in ("downloads", "victim"):
        (tmp_path / "outside" / name).mkdir(parents=True)
    (tmp_path / "outside/victim/treasure").write_text("gold")
    return goer, tmp_path / "outside"


def _little_memory():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def refused(goer, *words):
    argv = [goer.python, "-m", "bevrepro", "data", "convert", *words]
    with goer.start(argv, preexec_fn=_little_memory) as child:
        out, err = child.communicate(timeout=60)
    assert child.returncode in KIND_CODES and "Traceback" not in err, (words, child.returncode, out, err)
    return err


def check(goer, outside, before):
    assert snapshot(outside) == before
    assert not list((goer.home / "out").rglob("*")), "something was written"


SLOW = [(name, to) for name in NAMES for to in ("1.1", "twin") if (name, to) != ("os.system", "1.1")]


@pytest.mark.parametrize(
    "name, to", [("os.system", "1.1"), *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW)]
)
def test_a_hostile_pickle_is_refused(world, name, to):
    goer, outside = world
    source = outside / "downloads/nuscenes_infos_temporal_train.pkl"
    source.write_bytes(pickles(outside / "victim")[name])
    before = snapshot(outside)
    refused(goer, source, goer.home / "out" / ("a.bev" if to == "twin" else "a.pkl"), "--to", to)
    check(goer, outside, before)


def twin(folder, change):
    """An index that lists columns elsewhere, each with a digest that fits."""
    import hashlib

    folder.mkdir()
    index = dict(format="bevformer-infos-columns", version=1, frames=1, boxes=False, metadata={}, columns={})
    index.update(change)
    text = json.dumps(index, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / "index.json").write_text(json.dumps(dict(index, sha256=digest)))
    return folder


CAMERAS = ["CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT"]
CHANGES = {
    "nothing there": {},
    "columns outside": dict(columns={"../../victim/treasure": dict(dtype="|u1", shape=[4], sha256="")}),
    "endless": dict(
        cameras=CAMERAS, frames=2**47, columns={"frame.token.offsets": dict(shape=[2**47], dtype="<i8")}
    ),
    "no numbers": dict(cameras=CAMERAS, frames="many", columns=[]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_a_hostile_twin_is_refused(world, name):
    goer, outside = world
    source = twin(outside / "downloads/train.bev", CHANGES[name])
    before = snapshot(outside)
    for to in ("0.17", "1.1"):
        refused(goer, source, goer.home / "out/a.pkl", "--to", to)
        check(goer, outside, before)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A whole file of infos, of one scene."""
    top = tmp_path_factory.mktemp("made")
    goer = walker(top / "home", unprivileged=False)
    goer.bevrepro("data", "synth", top / "set", "--scenes", 2, "--samples", 2, "--scale", 0.05)
    goer.bevrepro("data", "prepare", "--data-root", top / "set/nuscenes", "--out", top / "infos")
    return top / "infos/nuscenes_infos_temporal_train.pkl"


@pytest.mark.slow
@pytest.mark.parametrize("to", ["1.1", "twin"])
@pytest.mark.parametrize("where", ["metadata", "frame"])
def test_lists_that_hold_each_other_a_trillion_times_are_not_written_out(world, prepared, to, where):
    goer, outside = world
    content = pickle.loads(prepared.read_bytes())
    (content["metadata"] if where == "metadata" else content["infos"][0])["x"] = laughs()
    source = outside / "downloads/train.pkl"
    source.write_bytes(pickle.dumps(content, 2))
    out = goer.home / ("a.bev" if to == "twin" else "a.pkl")
    if where == "metadata" or to == "twin":
        assert "fill the memory" in refused(goer, source, out, "--to", to) or where == "frame"
        assert not out.exists()
    else:  # a pickle names what it repeats
        goer.bevrepro("data", "convert", source, out, "--to", to)
        assert out.stat().st_size < 2 * source.stat().st_size + 100_000


@pytest.mark.slow
@pytest.mark.parametrize("to, ending", [("1.1", ".pkl"), ("twin", ".bev")])
def test_a_link_in_the_place_of_the_result_is_not_written_through(world, prepared, to, ending):
    goer, outside = world
    place = goer.home / ("a" + ending)
    place.symlink_to(outside / "victim" / ("treasure" if to == "1.1" else ""))
    before = snapshot(outside)
    codes = []
    for more in ([], ["--force"]):
        argv = ["data", "convert", prepared, place, "--to", to, *more]
        codes.append(goer.run(goer.python, "-m", "bevrepro", *argv).returncode)
        assert snapshot(outside) == before, more
    assert codes == ([4, 0] if to == "1.1" else [4, 4])


@pytest.mark.slow
def test_no_result_appears_where_it_would_not_be_asked_for(world, prepared):
    """Names that go up are those of the user, who may; what lies there stays."""
    goer, outside = world
    before = snapshot(outside)
    victim = outside / "victim"
    for out, to in ((victim / "treasure", "1.1"), (victim, "twin"), (f"{goer.home}/../outside/x.bev", "1.1")):
        refused(goer, prepared, out, "--to", to)
        assert snapshot(outside) == before
