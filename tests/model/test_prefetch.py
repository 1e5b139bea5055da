"""One item is moved ahead, in order, and what goes wrong is raised where it is asked for."""

import threading

import numpy as np
import pytest
import small_frames
import torch
from test_loading import Deadly

from bevformer import loading
from bevformer.errors import ChildError
from bevformer.prefetch import Prefetch, with_images
from bevformer.ranks import Ranks
from bevformer.runstate import DataOrder
from bevformer.types import Frame, GroundTruth, Sample

WAIT_S = 60.0


class Moves:
    """Counts, and says when `wanted` items have been moved."""

    def __init__(self, wanted=1):
        self.moved, self.arrived, self.wanted = [], [], wanted
        self.enough = threading.Event()

    def __call__(self, item):
        self.moved.append(item)
        if len(self.moved) >= self.wanted:
            self.enough.set()
        return -item, lambda: self.arrived.append(item)


def test_items_come_in_order_each_after_it_has_arrived():
    move = Moves()
    assert list(Prefetch(range(1, 9), move)) == [-k for k in range(1, 9)]
    assert move.moved == move.arrived == list(range(1, 9))


def test_one_item_is_moved_ahead_and_no_more():
    move, asked = Moves(2), []
    source = (asked.append(k) or k for k in range(10))
    ahead = Prefetch(source, move)
    assert next(ahead) == 0 and move.enough.wait(WAIT_S)
    ahead.close()  # the thread has ended, so that counting is safe
    assert move.moved == [0, 1] and move.arrived == [0] and len(asked) <= 3


@pytest.mark.parametrize("where", ("source", "move"))
def test_an_error_is_raised_when_its_item_is_asked_for_and_ever_after(where):
    def source():
        yield 1
        if where == "source":
            raise RuntimeError("worker died")
        yield 2

    def move(item):
        if item == 2:
            raise RuntimeError("worker died")
        return item, lambda: None

    ahead = Prefetch(source(), move)
    assert next(ahead) == 1
    for _ in range(2):
        with pytest.raises(RuntimeError, match="worker died"):
            next(ahead)


def test_closing_ends_the_thread_also_where_nothing_was_asked_for():
    ahead = Prefetch(iter(range(5)), Moves())
    ahead.close()
    assert not ahead._thread.is_alive()


def test_images_are_found_in_whatever_the_loaders_give():
    frame = Frame(torch.zeros(6, 3, 2, 2, dtype=torch.uint8), None)
    sample = Sample((frame, frame), GroundTruth(torch.zeros(0, 9), torch.zeros(0)))
    state = np.random.RandomState(0).get_state()
    samples, kept = with_images(([sample], state), lambda images: images + 1)
    assert kept is state and [int(f.images_NCHW.sum()) for f in samples[0].frames] == [72, 72]
    assert samples[0].truth is sample.truth and with_images(None, None) is None
    assert int(with_images(frame, lambda images: images + 1).images_NCHW.sum()) == 72


def steps_of(data, indices, device, steps=5):
    """Two ranks' samples and streams, and nothing left running."""
    order = DataOrder(tuple(range(indices)), 2, 5, 2)
    loader = loading.open_loader(data, order, Ranks(2), range(steps), 2, torch.device(device))
    try:
        for _ in range(steps):
            for drawn in loader.draw():
                samples = loader.load(drawn)
                yield samples, drawn.rng.rand()
    finally:
        loader.close()


@pytest.fixture
def move(monkeypatch):
    """Instead of the copy to a GPU."""
    moves = []
    monkeypatch.setattr(
        loading, "ToDevice", lambda device: lambda item: (moves.append(1) or item, lambda: None)
    )
    return moves


def test_a_loader_that_copies_ahead_gives_the_samples_and_streams_of_one_that_does_not(move):
    plain, ahead = ([*steps_of(small_frames.SmallFrames(count=7), 7, kind)] for kind in ("cpu", "cuda"))
    for (samples, after), (samples_too, after_too) in zip(plain, ahead):
        assert after == after_too
        for one, two in zip(samples, samples_too):
            assert torch.equal(one.frames[0].images_NCHW, two.frames[0].images_NCHW)
    assert len(plain) == len(ahead) == len(move) == 10


def test_a_worker_that_is_killed_is_told_through_the_copies_ahead(move):
    with pytest.raises(ChildError, match="a process that reads images was ended by SIGKILL"):
        list(steps_of(Deadly(), 40, "cuda", 20))
