"""Images on their way to the backbone, against the statements of mmcv and BEVFormer's pipeline."""

import cv2
import numpy as np
import pytest

from bevformer.config import bevformer_base, bevformer_tiny
from bevformer.data import decoders, sizes, transforms
from bevformer.errors import DataError


@pytest.fixture
def image():
    noise = np.random.RandomState(0).randint(0, 256, (9, 16, 3)).astype(np.uint8)
    return cv2.resize(noise, (161, 90), interpolation=cv2.INTER_CUBIC)


def upstream_distortion(img):
    """PhotoMetricDistortionMultiViewImage for one image, with NumPy's global generator."""
    random = np.random
    if random.randint(2):
        img += random.uniform(-32, 32)
    mode = random.randint(2)
    if mode == 1:
        if random.randint(2):
            img *= random.uniform(0.5, 1.5)
    img = cv2.cvtColor(img, cv2.COLOR_BGR2HSV)
    if random.randint(2):
        img[..., 1] *= random.uniform(0.5, 1.5)
    if random.randint(2):
        img[..., 0] += random.uniform(-18, 18)
        img[..., 0][img[..., 0] > 360] -= 360
        img[..., 0][img[..., 0] < 0] += 360
    img = cv2.cvtColor(img, cv2.COLOR_HSV2BGR)
    if mode == 0:
        if random.randint(2):
            img *= random.uniform(0.5, 1.5)
    if random.randint(2):
        img = img[..., random.permutation(3)]
    return img


def test_distortion_draws_and_computes_as_upstream(image):
    rng, outside = np.random.RandomState(3), np.random.get_state()
    np.random.seed(3)
    for _ in range(60):
        expected = upstream_distortion(image.astype(np.float32))
        np.testing.assert_array_equal(
            transforms.photometric_distortion(image.astype(np.float32), rng), expected
        )
    np.random.set_state(outside)


def test_distortion_leaves_its_input_alone_and_repeats_with_the_seed(image):
    floats = image.astype(np.float32)
    once, twice = (transforms.photometric_distortion(floats, np.random.RandomState(5)) for _ in range(2))
    np.testing.assert_array_equal(once, twice)
    np.testing.assert_array_equal(floats, image)
    assert np.abs(once - floats).max() > 1


@pytest.mark.parametrize("preset", (bevformer_tiny, bevformer_base))
def test_normalising_is_mmcvs_imnormalize(image, preset):
    data = preset().data
    expected = image.astype(np.float32)
    if data.to_rgb:
        expected = cv2.cvtColor(expected, cv2.COLOR_BGR2RGB)
    expected = cv2.subtract(expected, np.float64(data.mean).reshape(1, -1))
    expected = cv2.multiply(expected, 1 / np.float64(data.std).reshape(1, -1))
    found = transforms.normalise(image, data)
    np.testing.assert_array_equal(found, expected)
    plain = (image[..., ::-1] if data.to_rgb else image).astype(np.float64) - data.mean
    np.testing.assert_allclose(found, plain / data.std, rtol=1e-5, atol=1e-5)


def test_the_size_is_rounded_down_and_a_factor_of_one_changes_nothing(image):
    floats = image.astype(np.float32)
    assert transforms.scale(floats, 0.5).shape == (45, 80, 3)
    assert transforms.scale(floats, 1.0) is floats


def test_scaling_happens_on_floats_after_normalising(image):
    data = bevformer_tiny().data
    ours = transforms.scale(transforms.normalise(image, data), data.scale)
    other = transforms.normalise(cv2.resize(image, (80, 45)), data)  # on bytes: rounded on the way
    assert 1e-3 < np.abs(ours - other).max() < 0.05


@pytest.mark.parametrize("divisor, hw", ((32, (96, 192)), (16, (96, 176)), (1, (90, 161))))
def test_padding_is_right_and_below_with_zeros(image, divisor, hw):
    planes = transforms.padded_planes([image, image], divisor)
    assert planes.shape == (2, 3) + hw and planes.flags.c_contiguous
    np.testing.assert_array_equal(planes[1, :, :90, :161], image.transpose(2, 0, 1))
    assert not planes[:, :, 90:].any() and not planes[:, :, :, 161:].any()


@pytest.mark.parametrize("preset, hw", ((bevformer_tiny, (480, 800)), (bevformer_base, (928, 1600))))
def test_full_size_images_become_the_contracts_sizes(preset, hw):
    data = preset().data
    scaled = tuple(int(side * data.scale) for side in (900, 1600))
    assert sizes.padded_hw(scaled, data.pad_divisor) == hw


def test_a_scaled_projection_hits_the_scaled_pixel():
    lidar2img = np.random.RandomState(0).rand(6, 4, 4)
    point = np.array([3.0, 4.0, 5.0, 1.0])
    full, half = lidar2img @ point, sizes.scaled_lidar2img(lidar2img, 0.5) @ point
    np.testing.assert_allclose(half[:, :2] / half[:, 2:3], full[:, :2] / full[:, 2:3] / 2)
    np.testing.assert_array_equal(half[:, 2:], full[:, 2:])


@pytest.mark.parametrize("data", (b"", b"no image", "cut"))
def test_what_cannot_be_decoded_is_named(image, data):
    if data == "cut":
        data = cv2.imencode(".png", image)[1].tobytes()[:200]
    with pytest.raises(DataError, match="x.png is not a readable image"):
        decoders.decode(data, "x.png")


def test_decoding_gives_bgr_bytes(image):
    back = decoders.decode(cv2.imencode(".png", image)[1].tobytes(), "x.png")
    np.testing.assert_array_equal(back, image)
