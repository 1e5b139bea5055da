"""A split as video on several processes: where it is cut, and what the results are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bevformer.checkpoint import save_checkpoint
from bevformer.config import preset
from bevformer.detector import build_model
from bevformer.results import ResultsWriter, RowsWriter, join_rows
from bevformer.stream import cut

MODEL = Path(__file__).parents[2] / "model"
SCENES = ["a"] * 4 + ["b"] * 3 + ["c"] * 5


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_scenes_stay_whole_and_every_frame_comes_once(processes):
    stretches = cut(SCENES, processes, "scene")
    assert [i for stretch in stretches for i in stretch] == list(range(12)) and len(stretches) == processes
    assert all(not s or s.start == 0 or SCENES[s.start] != SCENES[s.start - 1] for s in stretches)


def test_stretches_are_as_even_as_scenes_allow():
    assert cut(SCENES, 2, "scene") == [range(7), range(7, 12)]


def test_upstream_cuts_into_equal_pieces():
    assert cut(SCENES, 5, "upstream") == [range(3), range(3, 6), range(6, 9), range(9, 12), range(12, 12)]


def test_parts_make_the_file_that_one_process_writes(tmp_path):
    samples = [("t%d" % i, [{"sample_token": "t%d" % i, "detection_score": 0.1 * i}]) for i in range(5)]
    with ResultsWriter(str(tmp_path / "one")) as one:
        for sample in samples:
            one.add(*sample)
    for name, part in (("p0", samples[:2]), ("p1", samples[2:])):
        with RowsWriter(str(tmp_path / name)) as writer:
            for sample in part:
                writer.add(*sample)
    join_rows([str(tmp_path / "p0"), str(tmp_path / "p1")], str(tmp_path / "joined"))
    assert (tmp_path / "joined").read_bytes() == (tmp_path / "one").read_bytes()


def run(verb, *argv, processes=1):
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "bevformer", verb, *map(str, argv)]
    env = dict(os.environ, PYTHONPATH=str(MODEL), OMP_NUM_THREADS="1")
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_several_processes_give_the_results_of_one(tmp_path):
    run("synth", tmp_path / "set", "--scenes", 4, "--samples", 3, "--scale", 0.05)
    root = next((tmp_path / "set").rglob("samples")).parent
    run("prepare", "--data-root", root, "--out", tmp_path / "infos")
    save_checkpoint(str(tmp_path / "w.pth"), build_model(preset("bevformer_micro")))
    written = {}
    for name, processes, how in (("one", 1, "scene"), ("two", 2, "scene"), ("torn", 5, "upstream")):
        argv = ["bevformer_micro", tmp_path / "w.pth", "--data-root", root, "--infos", tmp_path / "infos"]
        argv += ["--gpus", 0, "--cut", how, "--split", "train", "--out", tmp_path / name]
        run("eval", *argv, processes=processes)
        assert sorted(os.listdir(tmp_path / name)) == ["eval.json", "metrics", "results_nusc.json"]
        written[name] = (tmp_path / name / "results_nusc.json").read_bytes()
    assert written["one"] == written["two"] != written["torn"]
    assert set(json.loads(written["one"])["results"]) == set(json.loads(written["torn"])["results"])
    assert json.loads((tmp_path / "torn/eval.json").read_text())["all"]["world_size"] == 5
