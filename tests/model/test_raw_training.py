"""Whole trainings from bytes: the weights do not depend on workers or a stop, and are those from floats."""

import os
import signal

import pytest
import small_frames
from test_train import Interrupted

from bevformer import bench_loader_set, train
from bevformer.config import override
from bevformer.data.dataset import NuScenesQueue
from bevformer.data.store import open_store
from bevformer.detector import build_model
from bevformer.runstate import Options
from bevformer.talk import Talk

pytestmark = pytest.mark.slow
HW = (90, 160)


@pytest.fixture(scope="module")
def infos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jpegs")
    return folder, bench_loader_set.write_set(str(folder), 5, HW)


@pytest.fixture
def go(infos, tmp_path):
    """go(name, options, workers, stop after so many losses, resume) -> the digest of the weights."""
    folder, frames = infos

    def trained(name, options, workers=0, stop_after=None, resume=None):
        config = override(small_frames.config(4), options)

        def build(config):
            model = build_model(config)
            plain, calls = model.loss, []

            def loss(*args):
                calls.append(1)
                if len(calls) == stop_after:
                    os.kill(os.getpid(), signal.SIGTERM)
                return plain(*args)

            model.loss = loss
            return model

        data = NuScenesQueue(frames, open_store([str(folder)]), config, True)
        chosen = Options(str(tmp_path / name), seed=4, workers=workers, resume=resume)
        return train.run(config, data, chosen, Talk(False), build)["weights_digest"]

    return trained


def test_bytes_train_the_weights_that_floats_train(go):
    digests = {go("worker", ["ops.pixels=worker"])}
    digests |= {go("device%d" % workers, ["ops.pixels=device"], workers) for workers in (0, 2)}
    assert len(digests) == 1


def test_distorted_bytes_resume_bit_for_bit(go):
    options = ["ops.pixels=device", "data.photometric=True", "data.scale=0.5"]
    whole = go("whole", options)
    with pytest.raises(Interrupted):
        go("cut", options, 2, stop_after=2)
    assert go("cut", options, 2, resume="auto") == whole
