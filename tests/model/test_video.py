"""Films: what is missing or full is a sentence, and nothing half is left."""

import os

import numpy as np
import pytest

from bevformer import video
from bevformer.errors import DiskError, UserError

PICTURE = np.zeros((64, 96, 3), np.uint8)


def test_an_encoder_that_is_missing_is_a_sentence(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(video, "CODECS", ("none",))
    with pytest.raises(UserError, match="cannot write MP4: none of none opens") as caught:
        with video.Video(str(tmp_path / "a.mp4"), 2) as film:
            film.add(PICTURE)
    assert ".gif" in caught.value.do and os.listdir(tmp_path) == [] and capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_what_fails_half_way_leaves_the_old_film(tmp_path, name):
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), video.Video(str(tmp_path / name), 2) as film:
        film.add(PICTURE)
        raise KeyboardInterrupt
    assert (tmp_path / name).read_bytes() == b"old" and os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_a_folder_that_is_not_there_is_named(tmp_path, name):
    with pytest.raises(DiskError, match="could not write .*none"):
        with video.Video(str(tmp_path / "none" / name), 2) as film:
            film.add(PICTURE)


def test_pictures_that_did_not_arrive_are_noticed(tmp_path, monkeypatch):
    """OpenCV's writer is silent about a full disk."""
    monkeypatch.setattr(video._Mp4, "add", lambda self, image: None)
    with pytest.raises(DiskError, match="of 1 pictures arrived"):
        with video.Video(str(tmp_path / "a.mp4"), 2) as film:
            film.add(PICTURE)
    assert os.listdir(tmp_path) == []


def test_a_gif_keeps_the_colours_of_the_legend(tmp_path):
    """Also where the first picture has hundreds of others."""
    image_module = pytest.importorskip("PIL.Image")
    noise = np.random.RandomState(0).randint(0, 255, (64, 96, 3)).astype(np.uint8)
    colours = [tuple(bytes.fromhex(colour[1:])) for colour in video.GIF_COLOURS]
    legend = noise.copy()
    legend[0, : len(colours)] = colours
    with video.Video(str(tmp_path / "a.gif"), 2) as film:
        film.add(noise)
        film.add(legend)
    read = image_module.open(tmp_path / "a.gif")
    read.seek(1)
    assert [read.convert("RGB").getpixel((x, 0)) for x in range(len(colours))] == colours
