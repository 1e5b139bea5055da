"""Frames to train on, and a run that nobody interrupts."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # small_training

from small_training import LIMIT_S, Training, frames_in, result_of  # noqa: E402


@pytest.fixture(scope="session")
def training(tmp_path_factory) -> Training:
    made, *making = frames_in(tmp_path_factory.mktemp("frames"))
    for words in making:
        command = [sys.executable, "-m", "bevformer", *words]
        done = subprocess.run(command, env=made.env(), capture_output=True, text=True, timeout=LIMIT_S)
        assert done.returncode == 0, done.stderr[-2000:]
    return made


@pytest.fixture(scope="session")
def whole(training, tmp_path_factory) -> Callable[[], Path]:
    """The work folder of a run that nobody interrupts; it runs meanwhile and is waited for when asked."""
    folder = tmp_path_factory.mktemp("whole") / "w"
    child = training.start(folder)

    def finished() -> Path:
        if child.returncode is None:
            result_of(child)
        return folder

    return finished
