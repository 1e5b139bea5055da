"""A real training of seconds: the micro preset made smaller, on a set of a few frames, one save per epoch."""

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[3]
SMALLER = [
    "schedule.max_steps=0", "schedule.max_epochs=6", "schedule.warmup_steps=3", "transformer.dropout=0.1",
    "data.grid_mask=True", "encoder.bev_h=8", "encoder.bev_w=8", "head.num_query=12", "head.max_per_img=12",
    "transformer.embed_dims=32", "transformer.ffn_dims=32",
]  # fmt: skip
LIMIT_S = 180
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@dataclass(frozen=True)
class Training:
    """`train` on the frames: the model plane alone, which speaks in events, or as a person types it."""

    frames: Path
    infos: Path

    def env(self) -> dict[str, str]:
        path = os.pathsep.join([str(REPOSITORY / "model"), str(REPOSITORY)])
        return dict(os.environ, PYTHONPATH=path, BEVREPRO_EVENTS="1", OMP_NUM_THREADS="1")

    def words(self, work_dir: Path, *more: str, options: Sequence[str] = ()) -> list[str]:
        data = ["--data-root", str(self.frames / "nuscenes"), "--infos", str(self.infos)]
        words = ["train", "bevformer_micro", *data, "--work-dir", str(work_dir), "--gpus", "0", "--seed", "3"]
        return [*words, *more, "--cfg-options", *SMALLER, *options]

    def command(self, work_dir: Path, *more: str, launcher: tuple[str, ...] = (), **given: Any) -> list[str]:
        return [sys.executable, *launcher, "-m", "bevformer", *self.words(work_dir, *more, **given)]

    def start(self, work_dir: Path, *more: str, **given: Any) -> "subprocess.Popen[str]":
        """stdout: one event per line."""
        return self.popen(self.command(work_dir, *more, **given))

    def popen(self, command: list[str], **given: Any) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command, env=self.env(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, **given,
        )  # fmt: skip

    def finish(self, work_dir: Path, *more: str, **given: Any) -> list[dict]:
        """Run to the end; its events."""
        return result_of(self.start(work_dir, *more, **given))

    def typed(
        self, work_dir: Path, *more: str, before: Callable[[], None] | None = None, **given: Any
    ) -> Any:
        """`bevrepro train ...`: a running program; `before` runs in it first."""
        command = [sys.executable, "-m", "bevrepro", *self.words(work_dir, *more, **given)]
        return self.popen(command, preexec_fn=before)

    def says(self, work_dir: Path, *more: str, **given: Any) -> tuple[int, str]:
        """Exit code and stderr of `bevrepro train ...`."""
        child = self.typed(work_dir, *more, **given)
        _, err = child.communicate(timeout=LIMIT_S)
        assert "Traceback" not in err, err
        return child.returncode, err


def frames_in(folder: Path) -> tuple[Training, list[str], list[str]]:
    """A training on two small scenes, and the words that make and prepare them."""
    made = Training(folder / "set", folder / "infos")
    synth = ["synth", str(made.frames), "--scenes", "2", "--samples", "6", "--scale", "0.05"]
    data = ["--data-root", str(made.frames / "nuscenes")]
    return made, synth, ["prepare", *data, "--out", str(made.infos), "--jobs", "1"]


def result_of(child: "subprocess.Popen[str]") -> list[dict]:
    out, err = child.communicate(timeout=LIMIT_S)
    assert child.returncode == 0, out[-2000:] + err[-2000:]
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def proof(work_dir: Path, name: str = "latest.pth") -> list[str]:
    """The digests that a checkpoint carries: weights, optimiser, loss scale, place in the run, frames."""
    with zipfile.ZipFile(work_dir / name) as archive:
        (pickle,) = (entry for entry in archive.namelist() if entry.endswith("/data.pkl"))
        found = re.findall(rb"[0-9a-f]{64}", archive.read(pickle))
    assert len(set(found)) >= 4
    return sorted(digest.decode() for digest in set(found))


def until_step(child: "subprocess.Popen[str]", step: int) -> int:
    """Read events until so many steps are done; how many are."""
    for line in child.stdout:
        event = json.loads(line) if line.startswith("{") else {}
        assert event.get("event") != "error", line
        if event.get("event") == "progress" and event["task"] == "train" and event["done"] >= step:
            return int(event["done"])
    raise AssertionError(child.communicate()[1][-3000:])
