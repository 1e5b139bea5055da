"""N ranks on fewer devices: the gradient, the streams and the sampler are those of N processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import small_frames
import torch
from torch import nn

from bevformer.checkpoint import load_checkpoint
from bevformer.errors import ConfigError
from bevformer.ranks import Ranks, mean_terms, refuse_live_batch_norm
from bevformer.runstate import DataOrder

HERE = Path(__file__).parent


def torchrun(*argv):
    """Runs small_frames.py in two processes that talk over gloo."""
    env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(HERE.parents[1] / "model"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(HERE / "small_frames.py"), *map(str, argv)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def two_alone(*argv):
    """The same in two processes that find each other without torchrun, which takes seconds to start."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = str(found.getsockname()[1])
    path = str(HERE.parents[1] / "model")
    meet = dict(
        OMP_NUM_THREADS="1", PYTHONPATH=path, MASTER_ADDR="localhost", MASTER_PORT=port, WORLD_SIZE="2"
    )
    command = [sys.executable, str(HERE / "small_frames.py"), *map(str, argv)]
    both = [
        subprocess.Popen(command, env=dict(os.environ, RANK=rank, **meet), stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    ends = [each.communicate(timeout=120)[1] for each in both]
    return subprocess.CompletedProcess(command, max(each.returncode for each in both), stderr="".join(ends))


def weights(folder):
    return load_checkpoint(str(folder / "latest.pth"))["state_dict"]


def largest_difference(one, two):
    return max(float((one[key].double() - two[key].double()).abs().max()) for key in one)


@pytest.mark.parametrize(
    "start, world",
    [(two_alone, 2), *(pytest.param(torchrun, world, marks=pytest.mark.slow) for world in (2, 4))],
)
def test_two_processes_and_emulated_ranks_end_with_the_same_weights(tmp_path, start, world):
    done = start(tmp_path / "two", world)
    assert done.returncode == 0, done.stderr[-2000:]
    small_frames.in_float64(str(tmp_path / "one"), world)
    small_frames.in_float64(str(tmp_path / "alone"), 1)
    two, one, alone = (weights(tmp_path / name) for name in ("two", "one", "alone"))
    assert largest_difference(one, two) <= 1e-9
    assert largest_difference(one, alone) > 1e-6  # another number of ranks is another training


@pytest.mark.slow
def test_a_run_goes_on_with_other_processes_but_not_with_other_ranks(tmp_path):
    done = torchrun(tmp_path / "cut", 2, 5)
    assert done.returncode == 0, done.stderr[-2000:]
    with pytest.raises(ConfigError, match="2 ranks, this would go on with 1"):
        small_frames.in_float64(str(tmp_path / "cut"), 1, 5, resume="auto")
    assert small_frames.in_float64(str(tmp_path / "cut"), 2, 5, resume="auto")["steps"] == 5


def test_every_rank_has_its_own_part_of_an_epoch():
    order = DataOrder(tuple(range(10)), batch=1, seed=0, world=4)
    assert order.steps_per_epoch == 3
    parts = [[order.at(step, rank)[0] for step in range(3)] for rank in range(4)]
    assert set(sum(parts, [])) == set(range(10)) and len({tuple(part) for part in parts}) == 4


def test_ranks_are_shared_evenly():
    assert [list(Ranks(8, 2, p).mine) for p in (0, 1)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(ConfigError, match="8 ranks cannot be shared by 3 processes"):
        Ranks(8, 3, 0)


def test_terms_are_means_over_the_ranks_and_nan_where_one_has_none():
    assert mean_terms([{"loss": 1.0}, {"loss": 3.0}], Ranks(2)) == {"loss": 2.0}
    assert str(mean_terms([{"loss": 1.0}, {}], Ranks(2))["loss"]) == "nan"


def test_live_batch_norm_is_refused_where_ranks_share_a_device():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    refuse_live_batch_norm(model.train(), Ranks(2, 2, 0))
    refuse_live_batch_norm(model.eval(), Ranks(2))
    with pytest.raises(ConfigError, match="and 1 is live"):
        refuse_live_batch_norm(model.train(), Ranks(2))


@pytest.mark.slow
def test_a_rank_that_dies_stops_the_others_with_the_cause(tmp_path):
    done = torchrun(tmp_path / "no" / "such", 3)
    assert done.returncode != 0 and "3 ranks cannot be shared by 2 processes" in done.stderr


def test_gradients_are_the_mean_of_the_ranks_not_the_sum(tmp_path):
    torch.manual_seed(0)
    first = small_frames.in_float64(str(tmp_path / "a"), 2, 1)
    second = small_frames.in_float64(str(tmp_path / "b"), 6, 1)
    assert 0.2 < first["losses"]["grad_norm"] / second["losses"]["grad_norm"] < 5
