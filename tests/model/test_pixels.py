"""Images finished on the device are, to rounding, those that OpenCV finishes in a worker."""

import dataclasses
import itertools

import cv2
import numpy as np
import pytest
import torch

from bevformer import pixels
from bevformer.config import DataConfig, bevformer_base, bevformer_small, bevformer_tiny
from bevformer.data import transforms
from bevformer.data.dataset import finished
from bevformer.data.distortion import Distortion, draw_distortion
from bevformer.errors import ConfigError
from bevformer.ops import triton_backend
from bevformer.types import Frame

PIXEL = 1e-3  # bound on the difference of a distorted image, of 255; measured at most 4.2e-4
CORNERS = np.array(list(itertools.product((0, 1, 127, 128, 254, 255), repeat=3)), np.uint8)


def pictures():
    """Noise, smooth colours, black, white, grey, and every corner of the colour space."""
    rng = np.random.RandomState(0)
    noise = rng.randint(0, 256, (54, 96, 3)).astype(np.uint8)
    smooth = cv2.resize(noise[:6, :8], (96, 54), interpolation=cv2.INTER_CUBIC)
    corners = np.tile(CORNERS, (24, 1, 1)).reshape(54, 96, 3)
    grey = np.repeat(noise[..., :1], 3, axis=2)
    black, white = np.zeros_like(noise), np.full_like(noise, 255)
    return np.stack([noise, smooth, corners, grey, black, white])


DRAWN = {
    "nothing": Distortion(),
    "darker": Distortion(brightness=-32.0),
    "brighter": Distortion(brightness=32.0),
    "contrast first": Distortion(brightness=-20.0, contrast_before=1.5),
    "contrast last": Distortion(brightness=12.5, contrast_after=0.5),
    "grey": Distortion(saturation=0.5),
    "colourful": Distortion(saturation=1.5, brightness=-31.0),
    "over 360": Distortion(hue_deg=18.0),
    "below 0": Distortion(hue_deg=-18.0, saturation=1.4),
    "swapped": Distortion(channels=(2, 0, 1)),
    "all": Distortion(-7.0, 1.0, 1.3, 9.0, 1.4, (1, 0, 2)),
}
PLAIN = DataConfig(mean=(0.0,) * 3, std=(1.0,) * 3, to_rgb=False, scale=1.0, pad_divisor=1)


def both(images_NHWC, data, distortions=()):
    tensor = torch.from_numpy(images_NHWC)
    device = pixels.finished(tensor.permute(0, 3, 1, 2), data, distortions)
    return finished(tensor, data, distortions).numpy(), device.numpy()


@pytest.mark.parametrize("name", DRAWN)
def test_a_distorted_image_differs_in_its_last_digits_only(name):
    worker, device = both(pictures(), PLAIN, [DRAWN[name]] * 6)
    assert device.dtype == np.float32 and device.shape == worker.shape
    assert np.abs(worker - device).max() < PIXEL


def test_each_image_of_a_batch_gets_its_own_distortion():
    images = np.stack([pictures()[1]] * len(DRAWN))
    worker, device = both(images, PLAIN, list(DRAWN.values()))
    assert np.abs(worker - device).max() < PIXEL
    apart = np.abs(worker[:, None] - worker[None]).max(axis=(2, 3, 4))
    assert (apart + 100 * np.eye(len(DRAWN)) > 1).all()  # else the test would not see a mix-up


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("preset", (bevformer_tiny, bevformer_small, bevformer_base))
def test_whole_pipelines_agree_on_what_was_drawn(preset, seed):
    data, rng = preset().data, np.random.RandomState(seed)
    with intels_library(False):
        worker, device = both(pictures(), data, [draw_distortion(rng) for _ in range(6)])
    assert np.abs(worker - device).max() < PIXEL / min(data.std)


@pytest.mark.parametrize("scale", (1.0, 0.5, 0.8, 0.16, 1.3))
@pytest.mark.parametrize("hw", ((54, 96), (53, 95)))
def test_without_distortion_it_is_opencvs_own_arithmetic_bit_for_bit(scale, hw):
    images = np.ascontiguousarray(pictures()[:, : hw[0], : hw[1]])
    for data in (bevformer_tiny().data, bevformer_base().data):
        with intels_library(False):
            worker, device = both(images, dataclasses.replace(data, scale=scale))
        np.testing.assert_array_equal(worker, device)


@pytest.mark.parametrize("scale, bound", ((1.0, 0.0), (0.5, 2**-16), (0.8, 2**-13)))
def test_intels_library_in_opencv_rounds_differently_when_it_scales(scale, bound):
    noise = np.random.RandomState(0).randint(0, 256, (2, 90, 160, 3)).astype(np.uint8)
    worker, device = both(noise, dataclasses.replace(bevformer_base().data, scale=scale))
    assert np.abs(worker - device).max() <= bound  # of values up to 152


class intels_library:
    def __init__(self, wanted):
        self.wanted = wanted

    def __enter__(self):
        self.before = cv2.ipp.useIPP()
        cv2.ipp.setUseIPP(self.wanted)

    def __exit__(self, *_):
        cv2.ipp.setUseIPP(self.before)


def test_stacking_takes_finished_and_unfinished_frames_alike():
    data, tensor = bevformer_tiny().data, torch.from_numpy(pictures())
    raw = Frame(tensor.permute(0, 3, 1, 2), None, tuple(DRAWN.values())[:6])
    floats = Frame(finished(tensor, data, raw.distortions), None)
    cpu = torch.device("cpu")
    one, two = (pixels.stacked([frame], cpu, data) for frame in (raw, floats))
    assert one.shape == two.shape == (1, 6, 3, 32, 64) and one.dtype == two.dtype == torch.float32
    assert (one - two).abs().max() < PIXEL / min(data.std)
    assert torch.equal(pixels.stacked([floats, floats], cpu, data)[1], floats.images_NCHW)


def test_drawing_apart_from_applying_leaves_stream_and_image_as_they_were():
    image = pictures()[1].astype(np.float32)
    one, two = np.random.RandomState(7), np.random.RandomState(7)
    for _ in range(40):
        drawn = transforms.distorted(image, draw_distortion(one))
        np.testing.assert_array_equal(drawn, transforms.photometric_distortion(image, two))
    assert one.rand() == two.rand()


def test_the_choice_is_by_device_unless_it_is_made():
    assert [pixels.choose("auto", kind) for kind in ("cpu", "cuda")] == ["worker", "device"]
    assert [pixels.choose("device", "cpu"), pixels.choose("worker", "cuda")] == ["device", "worker"]
    with pytest.raises(ConfigError, match="ops.pixels=gpu"):
        pixels.choose("gpu", "cuda")


@pytest.mark.parametrize(
    "trouble, said", ((RuntimeError("no compiler"), "no compiler"), (3.0, "it is 3 off"))
)
def test_a_kernel_that_fails_or_disagrees_is_passed_over_and_told(monkeypatch, trouble, said):
    def disagreement(device):
        if isinstance(trouble, Exception):
            raise trouble
        return trouble

    monkeypatch.setattr(pixels, "disagreement", disagreement)
    monkeypatch.setattr(triton_backend, "load", lambda device_type: None)
    with pytest.warns(UserWarning, match="without Triton's kernel: .*" + said):
        assert pixels._fastest.__wrapped__("cuda") is pixels.coloured
    monkeypatch.setattr(pixels, "disagreement", lambda device: 0.0)
    assert pixels._fastest.__wrapped__("cuda") is pixels.coloured_at_once
