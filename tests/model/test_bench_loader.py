"""The benchmark of reading samples: what it counts, and that its contenders give the same images."""

import json

import numpy as np
import pytest
import torch

from bevformer import bench_loader, bench_loader_set
from bevformer.bench_common import find
from bevformer.bench_loader_reference import reference_frame
from bevformer.config import bevformer_base, bevformer_tiny
from bevformer.data.dataset import NuScenesQueue
from bevformer.data.store import open_store
from bevformer.talk import Talk
from bevformer.types import CAMERAS

HW = (90, 160)


@pytest.mark.parametrize("preset", (bevformer_tiny, bevformer_base))
def test_the_references_path_gives_our_floats(tmp_path, preset):
    infos = bench_loader_set.write_set(str(tmp_path), 1, HW)
    queue = NuScenesQueue(infos, open_store([str(tmp_path)]), preset(), True)
    rng = np.random.RandomState(4)
    (ours, *_) = queue.load_queue([0], rng).frames
    cams = infos.infos[0]["cams"]
    paths = [str(tmp_path / cams[channel]["data_path"]) for channel in CAMERAS]
    again = np.random.RandomState(4)
    assert torch.equal(reference_frame(paths, preset().data, again), ours.images_NCHW)
    assert rng.rand() == again.rand()


def test_it_counts_bytes_and_names_who_did_not_run(tmp_path):
    out = tmp_path / "loader.json"
    who = ["float", "uint8", "uint8 half"]
    argv = ["--preset", "base", "--repeats", "1", "--hw", *map(str, HW), "--out", str(out), "--who", *who]
    assert bench_loader.main(argv, Talk(False)) == 0
    told = json.loads(out.read_text())
    truth_b = 4 * 9 + 8  # one box and its label
    sent = [find(told["rows"], "base", "bytes per sample", name)["median"] for name in who[:2]]
    whole = 4 * 6 * 3 * HW[0] * HW[1]
    assert sent == pytest.approx([(4 * whole * 96 / 90 + truth_b) / 1e6, (whole + truth_b) / 1e6], rel=1e-4)
    cpu = find(told["rows"], "base", "CPU time per sample", "uint8")
    assert cpu["median"] > 0 and cpu["ms_per_image"] == pytest.approx(cpu["median"] * 1e3 / 24, rel=1e-3)
    assert told["absent"] == {"base, uint8 half": "ops.decoder=cv2-half with data.scale=1.0"}
    assert {each["what"]: each.get("goal") for each in told["ratios"]}["bytes per sample"] == 4.0


def test_rounds_so_far_are_kept_and_one_that_fails_is_named(tmp_path, monkeypatch):
    kept, real = [], bench_loader.keep
    monkeypatch.setattr(bench_loader, "keep", lambda result, out: (kept.append(result), real(result, out)))
    run, calls = bench_loader.Contender.run, []

    def failing(self):
        calls.append(self)
        if len(calls) == 5:  # float in its second round
            raise RuntimeError("no space left\nmore")
        run(self)

    monkeypatch.setattr(bench_loader.Contender, "run", failing)
    argv = ["--preset", "base", "--repeats", "2", "--hw", *map(str, HW), "--who", "float", "uint8"]
    assert bench_loader.main([*argv, "--out", str(tmp_path / "l.json")], Talk(False)) == 0
    rounds = [
        [(e["who"], len(e["all"])) for e in each["rows"] if e["what"] == "time per sample"] for each in kept
    ]
    assert rounds[0] == [("float", 1), ("uint8", 1)] and kept[0]["ratios"]
    assert rounds[-1] in ([("float", 2)], [("uint8", 2)]) and len(rounds) == 3
    assert list(kept[-1]["absent"].values()) == ["RuntimeError: no space left"]
