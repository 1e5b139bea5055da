"""A real training of seconds: the micro preset made smaller, on a set of a few frames, one save per epoch."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[3] / "model"
SMALLER = [
    "schedule.max_steps=0", "schedule.max_epochs=6", "schedule.warmup_steps=3", "transformer.dropout=0.1",
    "data.grid_mask=True", "encoder.bev_h=8", "encoder.bev_w=8", "head.num_query=12", "head.max_per_img=12",
    "transformer.embed_dims=32", "transformer.ffn_dims=32",
]  # fmt: skip
LIMIT_S = 180


@dataclass(frozen=True)
class Training:
    """`python -m bevformer train` on the frames, as the command line starts it."""

    frames: Path

    def env(self) -> dict[str, str]:
        return dict(os.environ, PYTHONPATH=str(MODEL), BEVREPRO_EVENTS="1", OMP_NUM_THREADS="1")

    def command(self, work_dir: Path, *more: str, launcher: tuple[str, ...] = ()) -> list[str]:
        data = ["--data-root", str(self.frames / "set" / "nuscenes"), "--infos", str(self.frames / "infos")]
        words = ["train", "bevformer_micro", *data, "--work-dir", str(work_dir), "--gpus", "0", "--seed", "3"]
        return [sys.executable, *launcher, "-m", "bevformer", *words, *more, "--cfg-options", *SMALLER]

    def start(self, work_dir: Path, *more: str, launcher: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        """stdout: one event per line."""
        return subprocess.Popen(
            self.command(work_dir, *more, launcher=launcher), env=self.env(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def finish(self, work_dir: Path, *more: str) -> list[dict]:
        """Run to the end; its events."""
        child = self.start(work_dir, *more)
        out, err = child.communicate(timeout=LIMIT_S)
        assert child.returncode == 0, out[-2000:] + err[-2000:]
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture(scope="session")
def training(tmp_path_factory) -> Training:
    frames = tmp_path_factory.mktemp("frames")
    env = dict(os.environ, PYTHONPATH=str(MODEL), OMP_NUM_THREADS="1")
    for words in (
        ["synth", frames / "set", "--scenes", "2", "--samples", "6", "--scale", "0.05"],
        ["prepare", "--data-root", frames / "set" / "nuscenes", "--out", frames / "infos", "--jobs", "1"],
    ):
        command = [sys.executable, "-m", "bevformer", *map(str, words)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT_S)
        assert done.returncode == 0, done.stderr[-2000:]
    return Training(frames)


@pytest.fixture(scope="session")
def whole(training, tmp_path_factory) -> str:
    """The digest of the weights of a run that nobody interrupts."""
    return training.finish(tmp_path_factory.mktemp("whole") / "w")[-1]["weights_digest"]
