"""Stopped in the middle of an epoch and gone on with: weights, optimiser and place are those of one go."""

import os
import signal

import pytest
from small_training import TORCHRUN, proof, until_step

pytestmark = pytest.mark.slow
TWO = ("--emulate-gpus", "2")
CASES = {
    "four ranks one after another": (("--emulate-gpus", "4"), (), (), ()),
    "workers at first": ((), ("--workers", "2"), (), ()),
    "workers later": ((), (), ("--workers", "3"), ()),
    "bf16": (("--amp", "bf16"), (), (), ()),
    "deterministic": (("--deterministic",), (), (), ()),
    "a recipe of steps": ((), (), (), ("schedule.max_epochs=0", "schedule.max_steps=20")),
    "longer history": ((), (), (), ("data.queue_length=4",)),
    "batches": ((), (), (), ("schedule.samples_per_gpu=2",)),
    "distortion": ((), ("--workers", "1"), (), ("data.photometric=True",)),
}  # fmt: skip


def stopped_and_finished(training, work_dir, before, after, options, launcher=(), launcher_after=()):
    child = training.start(work_dir, *before, options=options, launcher=launcher)
    reached = until_step(child, 4)
    os.kill(child.pid, signal.SIGTERM)
    out, err = child.communicate(timeout=60)
    assert child.returncode != 0 and "Stopped by SIGTERM" in out, out + err
    again = training.start(work_dir, *after, "--resume", "auto", options=options, launcher=launcher_after)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, out + err
    return reached


@pytest.mark.parametrize("case", CASES)
def test_the_end_is_that_of_a_run_in_one_go(training, tmp_path, case):
    both, first, then, options = CASES[case]
    training.finish(tmp_path / "whole", *both, options=options)
    stopped_and_finished(training, tmp_path / "cut", both + first, both + then, options)
    assert proof(tmp_path / "cut") == proof(tmp_path / "whole")


@pytest.mark.parametrize("first, then", [(TORCHRUN, ()), ((), TORCHRUN), (TORCHRUN, TORCHRUN)])
def test_two_ranks_go_on_in_one_process_or_two_bit_for_bit(training, tmp_path, first, then):
    """Two summands are added in either order to the same float; with more ranks rounding may differ."""
    training.finish(tmp_path / "whole", *TWO)
    stopped_and_finished(training, tmp_path / "cut", TWO, TWO, (), first, then)
    assert proof(tmp_path / "cut") == proof(tmp_path / "whole")
