"""Frames that travel as bytes: what is finished on the device is what a worker would have finished."""

import dataclasses
import io
import pickle

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from bevformer import bench_loader_set, pixels, train
from bevformer.config import bevformer_base, bevformer_micro, bevformer_tiny, override
from bevformer.data.dataset import NuScenesQueue
from bevformer.data.store import open_store
from bevformer.detector import build_model
from bevformer.errors import ConfigError, DataError
from bevformer.ledger import CHANGES, IDENTICAL, ROUNDING, fidelity_ledger
from bevformer.loading import open_loader
from bevformer.ranks import ALONE
from bevformer.runstate import DataOrder, Options

CPU = torch.device("cpu")
HW = (90, 160)
PIXEL = 1e-3  # as in test_pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("jpegs")


@pytest.fixture(scope="module")
def infos(folder):
    return bench_loader_set.write_set(str(folder), 4, HW)


@pytest.fixture
def open_queue(folder, infos):
    def opened(config, *options, roots=(), **more):
        store = open_store([str(folder), *map(str, roots)])
        return NuScenesQueue(infos, store, override(config, options), True, **more)

    return opened


def in_steps(queue, workers, steps=3):
    """Every sample, and the next number of the stream after it."""
    loader = open_loader(queue, DataOrder((1, 2, 3), 1, 5, 1), ALONE, range(steps), workers)
    seen = []
    try:
        for _ in range(steps):
            (drawn,) = loader.draw()
            (sample,) = loader.load(drawn)
            seen.append((sample, drawn.rng.rand()))
    finally:
        loader.close()
    return seen


@pytest.mark.parametrize("workers", (0, 2))
def test_bytes_through_workers_give_the_floats_and_the_streams_of_before(open_queue, workers):
    config = bevformer_tiny()
    floats = in_steps(open_queue(config, "ops.pixels=worker"), 0)
    for (one, after), (two, after_too) in zip(
        floats, in_steps(open_queue(config, "ops.pixels=device"), workers)
    ):
        assert after == after_too and len(one.frames) == len(two.frames)
        for finished, raw in zip(one.frames, two.frames):
            assert raw.images_NCHW.dtype == torch.uint8 and raw.images_NCHW.shape == (6, 3, *HW)
            assert raw.meta.img_shape_hw == finished.meta.img_shape_hw == finished.images_NCHW.shape[-2:]
            images = pixels.images_of(raw, CPU, config.data)
            assert (images - finished.images_NCHW).abs().max() < PIXEL / min(config.data.std)


def test_a_worker_decodes_into_the_memory_that_it_sends(open_queue):
    ((sample, _), *_) = in_steps(open_queue(bevformer_base(), "ops.pixels=device"), 1, 1)
    assert all(frame.images_NCHW.is_shared() for frame in sample.frames)


def test_a_model_computes_the_same_bits_from_bytes(open_queue):
    losses = []
    for where in ("worker", "device"):
        config = override(bevformer_micro(), ["ops.pixels=" + where, "data.pad_divisor=32"])
        torch.manual_seed(0)
        sample = open_queue(config).train_sample(2, np.random.RandomState(1))
        losses.append(build_model(config).loss(sample))
    assert losses[0] and all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


def test_a_frame_of_a_video_is_bytes_too(open_queue):
    frame = open_queue(bevformer_micro(), device_type="cuda").test_frame(1)
    assert frame.images_NCHW.dtype == torch.uint8 and frame.distortions == ()
    torch.manual_seed(0)
    model = build_model(bevformer_micro()).eval()
    scores = [model.step(each)[0].scores_K for each in (frame, open_queue(bevformer_micro()).test_frame(1))]
    assert torch.equal(*scores)


def test_kept_frames_are_bytes_of_the_callers_own(open_queue):
    queue = open_queue(bevformer_tiny(), "ops.pixels=device", "data.scale=0.2", cache_frames=True)
    first = queue.test_frame(1).images_NCHW
    expected = first.clone()
    first.zero_()
    assert torch.equal(queue.test_frame(1).images_NCHW, expected)


def test_it_travels_to_a_worker_that_is_not_forked(open_queue):
    queue = open_queue(bevformer_base(), "ops.pixels=device", "ops.decoder=cv2")
    again = pickle.loads(pickle.dumps(queue))
    assert torch.equal(again.test_frame(0).images_NCHW, queue.test_frame(0).images_NCHW)


def changed(tmp_path, infos, data):
    """A folder that lies over the set, with another front camera's image in frame 1."""
    path = tmp_path / infos.infos[1]["cams"]["CAM_FRONT_LEFT"]["data_path"]
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return tmp_path


def as_jpeg(mode):
    stream = io.BytesIO()
    Image.fromarray(bench_loader_set.picture(HW, np.random.RandomState(3))).convert(mode).save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize("workers", (0, 1))
@pytest.mark.parametrize(
    "data, message",
    (
        (as_jpeg("RGB")[:-300], "CAM_FRONT_LEFT: samples/.*000001.jpg is not a readable image"),
        (b"", r"CAM_FRONT_LEFT: samples/.* is not a readable image \(0 bytes\)"),
        (
            cv2.imencode(".jpg", np.zeros((45, 80, 3), np.uint8))[1].tobytes(),
            "CAM_FRONT_LEFT: the image is 80x45, CAM_FRONT's is 160x90",
        ),
    ),
    ids=("cut", "empty", "smaller"),
)
def test_a_damaged_file_is_named_wherever_it_is_read(open_queue, infos, tmp_path, data, message, workers):
    queue = open_queue(bevformer_tiny(), "ops.pixels=device", roots=[changed(tmp_path, infos, data)])
    with pytest.raises(DataError, match="sample frame1, " + message):
        in_steps(queue, workers, 8)


@pytest.mark.parametrize("mode", ("L", "CMYK"))
def test_grey_and_cmyk_jpegs_become_three_channels_as_in_a_worker(open_queue, infos, tmp_path, mode):
    root = changed(tmp_path, infos, as_jpeg(mode))
    raw, floats = (
        open_queue(bevformer_base(), "ops.pixels=" + where, roots=[root]).test_frame(1)
        for where in ("device", "worker")
    )
    left = raw.images_NCHW[2]
    assert (left[0] == left[1]).all() == (mode == "L")
    assert torch.equal(pixels.images_of(raw, CPU, bevformer_base().data), floats.images_NCHW)


def test_decoding_at_half_size_scales_half_as_much(open_queue):
    config = bevformer_tiny()
    plain = open_queue(config, "ops.pixels=device")
    half = open_queue(config, "ops.pixels=device", "ops.decoder=cv2-half")
    one, two = plain.test_frame(0), half.test_frame(0)
    assert two.images_NCHW.shape == (6, 3, 45, 80) and one.meta.img_shape_hw == two.meta.img_shape_hw
    np.testing.assert_array_equal(one.meta.lidar2img_N44, two.meta.lidar2img_N44)
    images = [
        pixels.images_of(frame, CPU, pixels.data_after_decoding(queue.config))
        for frame, queue in ((one, plain), (two, half))
    ]
    assert images[0].shape == images[1].shape and 0 < (images[0] - images[1]).abs().mean() < 0.05
    with pytest.raises(ConfigError, match="ops.decoder=cv2-half with data.scale=1.0"):
        open_queue(bevformer_base(), "ops.decoder=cv2-half")


def test_the_room_that_workers_need_is_that_of_the_bytes(infos):
    whole = 6 * 3 * HW[0] * HW[1]
    base, tiny = bevformer_base(), bevformer_tiny()
    on_gpu = [train.sample_bytes(config, infos.infos, "cuda") for config in (base, tiny)]
    assert on_gpu == pytest.approx([4 * whole, 3 * whole], rel=0.15)
    assert train.sample_bytes(base, infos.infos) == pytest.approx(16 * whole, rel=0.15)
    half = override(tiny, ["ops.decoder=cv2-half"])
    assert train.sample_bytes(half, infos.infos, "cuda") == pytest.approx(3 * whole / 4, rel=0.15)


@pytest.mark.parametrize(
    "config, options, device, effects",
    (
        (bevformer_tiny(), [], "cpu", []),
        (bevformer_tiny(), [], "cuda", [ROUNDING]),
        (bevformer_tiny(), ["ops.pixels=device"], "cpu", [ROUNDING]),
        (bevformer_micro(), ["ops.pixels=device"], "cpu", [IDENTICAL]),
        (bevformer_tiny(), ["ops.decoder=cv2-half"], "cpu", [CHANGES]),
    ),
)
def test_the_ledger_says_what_it_does_to_the_result(config, options, device, effects):
    config = override(config, options)
    ranks = dataclasses.replace(ALONE, world=config.schedule.world_size)
    entries = fidelity_ledger(config, Options("w"), torch.device(device), None, ranks)
    assert [entry["effect"] for entry in entries if entry["what"].startswith("images")] == effects
