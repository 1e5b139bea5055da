"""The decoders there are: same pixels, same refusals, and a sentence where one is not installed."""

import importlib.util
import sys

import cv2
import numpy as np
import pytest

from bevformer.data import decoders
from bevformer.errors import ConfigError, DataError


def picture():
    noise = np.random.RandomState(0).randint(0, 256, (6, 9, 3)).astype(np.uint8)
    return cv2.resize(noise, (97, 54), interpolation=cv2.INTER_CUBIC)


def jpeg(image, *options):
    return cv2.imencode(".jpg", image, list(options))[1].tobytes()


KINDS = {
    "colour": jpeg(picture()),
    "progressive": jpeg(picture(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "grey": jpeg(picture()[..., 0]),
    "png": cv2.imencode(".png", picture())[1].tobytes(),
}


class StandIn:
    """Of simplejpeg, where it is not installed: the same two functions."""

    @staticmethod
    def decode_jpeg_header(data):
        whole = bytes(data[:2]) == b"\xff\xd8"
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if whole else None
        if image is None:
            raise ValueError("not a JPEG")
        return (*image.shape[:2], "YCbCr" if image.ndim == 3 else "Gray", "420")

    @staticmethod
    def decode_jpeg(data, colorspace, buffer):
        assert colorspace == "BGR"
        buffer[...] = decoders.decode(data, "")


@pytest.fixture(params=["cv2", "simplejpeg"])
def decoder(request, monkeypatch):
    if request.param == "simplejpeg" and importlib.util.find_spec("simplejpeg") is None:
        monkeypatch.setitem(sys.modules, "simplejpeg", StandIn)
    return decoders.open_decoder(request.param)


def test_the_pixels_of_simplejpeg_are_compared_with_opencvs(monkeypatch):
    class Other(StandIn):
        @staticmethod
        def decode_jpeg(data, colorspace, buffer):
            buffer[...] = decoders.decode(data, "") // 2

    for library, same in ((StandIn, True), (Other, False)):
        monkeypatch.setitem(sys.modules, "simplejpeg", library)
        assert decoders.same_pixels() is same


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_bgr_bytes(decoder, kind):
    image = decoder.decode(KINDS[kind], "x.jpg", None)
    assert image.shape == (54, 97, 3) and image.dtype == np.uint8
    if decoder.name == "cv2" or decoders.same_pixels():
        np.testing.assert_array_equal(image, decoders.decode(memoryview(KINDS[kind]), "x.jpg"))


def test_an_image_may_be_decoded_into_place(decoder):
    for shape in ((54, 97, 3), (53, 97, 3)):
        out = np.zeros(shape, np.uint8)
        image = decoder.decode(KINDS["colour"], "x.jpg", out)
        np.testing.assert_array_equal(image, decoders.decode(KINDS["colour"], "x.jpg"))
        assert image is not out or out.any()


@pytest.mark.parametrize(
    "data", (b"", b"no image", KINDS["colour"][:700], KINDS["colour"][:-40], KINDS["png"][:200])
)
def test_what_is_cut_or_no_image_is_named(decoder, data):
    with pytest.raises(DataError, match=r"x.jpg is not a readable image \(%d bytes\)" % len(data)):
        decoder.decode(data, "x.jpg", None)


def test_a_decoder_that_is_not_installed_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(ConfigError, match="ops.decoder=simplejpeg, but it cannot be imported") as caught:
        decoders.open_decoder("simplejpeg")
    assert "pip install simplejpeg" in caught.value.do
    with pytest.raises(ConfigError, match="ops.decoder=turbo") as caught:
        decoders.open_decoder("turbo")
    assert "cv2, simplejpeg, cv2-half" in caught.value.do


def test_half_size_is_another_picture_of_half_the_size():
    half = decoders.open_decoder("cv2-half")
    image = half.decode(jpeg(picture()[:, :96]), "x.jpg", None)
    scaled = cv2.resize(picture()[:, :96], (48, 27), interpolation=cv2.INTER_LINEAR)
    assert image.shape == (27, 48, 3) and half.shrink == 2
    assert 0 < np.abs(image.astype(int) - scaled).mean() < 12
