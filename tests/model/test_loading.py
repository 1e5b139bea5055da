"""The samples of a step do not depend on who reads them, or when."""

import os
import signal

import numpy as np
import pytest
import small_frames
from test_train import FakeData, play
from torch.utils.data import DataLoader

from bevformer import train
from bevformer.detector import build_model
from bevformer.errors import ChildError, DataError
from bevformer.loading import open_loader, take_back_sigchld, workers_that_fit
from bevformer.ranks import Ranks
from bevformer.runstate import DataOrder, Options
from bevformer.talk import Talk


class Deadly(FakeData):
    """Reading `fatal` a second time ends the process, or raises."""

    def __init__(self, error=None):
        super().__init__(count=40)
        self.error = error

    def load_queue(self, queue, rng):
        if queue[-1] == 33:
            if self.error:
                raise self.error
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load_queue(queue, rng)


def streams(workers):
    """What every step sees: samples, and the next number of each rank's stream."""
    data = small_frames.SmallFrames(count=7)
    loader = open_loader(data, DataOrder(tuple(range(7)), 2, 5, 3), Ranks(3), range(2, 6), workers)
    seen = []
    for _ in range(4):
        for drawn in loader.draw():
            samples = loader.load(drawn)
            seen += [frame.images_NCHW.numpy().copy() for sample in samples for frame in sample.frames]
            seen.append(np.array([drawn.rank, drawn.rng.rand()]))
    loader.close()
    return seen


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_give_the_same_samples_and_streams(workers):
    for one, two in zip(streams(0), streams(workers)):
        assert np.array_equal(one, two)


def test_weights_do_not_depend_on_the_number_of_workers(tmp_path):
    digests = {play(tmp_path / str(n), workers=n)["weights_digest"] for n in (0, 1, 2)}
    assert len(digests) == 1


@pytest.mark.slow
def test_the_real_model_ends_with_the_same_bits(tmp_path):
    def go(workers):
        options = Options(str(tmp_path / str(workers)), seed=4, emulate_gpus=2, workers=workers)
        data = small_frames.SmallFrames(count=7)
        return train.run(small_frames.config(6), data, options, Talk(False), build_model)["weights_digest"]

    assert go(0) == go(1) == go(3)


def test_a_worker_that_is_killed_is_a_sentence_and_nothing_hangs(tmp_path):
    with pytest.raises(ChildError) as caught:
        play(tmp_path, data=Deadly(), seed=1, workers=2, config=long())
    assert caught.value.seen == "a process that reads images was ended by SIGKILL"
    assert "--resume auto" in caught.value.do and "memory" in caught.value.why


def test_a_worker_without_room_for_its_images_says_so(tmp_path):
    said = RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: Success (0)")
    with pytest.raises(ChildError, match="a process that reads images died") as caught:
        play(tmp_path, data=Deadly(said), seed=1, workers=2, config=long())
    assert "/dev/shm is full" in caught.value.why and "fewer --workers" in caught.value.do


def test_the_death_of_a_worker_interrupts_nothing_else():
    """torch's handler for dead children raises at any moment, also when an earlier loader brought it."""
    loaded = iter(DataLoader([1], batch_size=None, num_workers=1))
    before = signal.getsignal(signal.SIGCHLD)
    take_back_sigchld()
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    assert before is signal.SIG_DFL or before.__module__.startswith("torch.utils.data")
    assert list(loaded) == [1]


def test_an_error_in_a_worker_is_the_error_itself(tmp_path):
    error = DataError("sample 33 is broken", "why", "do")
    with pytest.raises(DataError, match="sample 33 is broken") as caught:
        play(tmp_path, data=Deadly(error), seed=1, workers=2, config=long())
    assert (caught.value.why, caught.value.do) == ("why", "do")


def test_workers_are_not_started_where_their_images_have_no_room():
    assert workers_that_fit(None, 4, 100 << 20, 500 << 20) == 2
    assert workers_that_fit(None, 4, 100 << 20, None) == 4 == workers_that_fit(4, 0, 1, 100)
    with pytest.raises(ChildError, match="4 workers need 800 MiB in /dev/shm, 500 MiB are free") as caught:
        workers_that_fit(4, 4, 100 << 20, 500 << 20)
    assert "--workers 2" in caught.value.do


def long():
    from dataclasses import replace

    from test_train import SHORT

    return replace(SHORT, schedule=replace(SHORT.schedule, max_steps=40))
