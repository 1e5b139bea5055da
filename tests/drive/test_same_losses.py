"""The same weights and frames in another environment: the same losses, in float64, step by step.

From outside, with the commands that a person types: `make test-openmmlab` builds the environments.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bevrepro.env.layout import resolve

pytestmark = pytest.mark.openmmlab
TARGETS = ("cpu-openmmlab", "cpu-openmmlab-torch2")
STEPS, BOUND = 20, 1e-6
START_S = 300


def command(*words):
    return [sys.executable, "-m", "bevrepro", *map(str, words)]


def bevrepro(*words, code=0):
    """What the command says on stdout and stderr."""
    done = subprocess.run(command(*words), capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def by_step(folder):
    """The training lines of all sessions."""
    texts = [text for path in sorted(folder.glob("*.log.json")) for text in path.read_text().splitlines()]
    lines = [json.loads(text) for text in texts]
    return {line["step"]: line for line in lines if line.get("mode") == "train"}


def furthest(one, other):
    """The largest relative difference of a loss term or gradient norm of any step."""
    pairs = [
        (one[step][key], other[step][key])
        for step in one
        for key in one[step]
        if "loss" in key or "norm" in key
    ]
    return max(abs(a - b) / abs(a) for a, b in pairs)


class World:
    """A small set, and `first`: a training on it in this environment, with the weights that it began with."""

    def __init__(self, folder):
        self.folder, self.first = folder, folder / "first"
        bevrepro("data", "synth", folder / "set", "--scenes", 3, "--samples", 6)
        bevrepro("data", "prepare", "--data-root", folder / "set/nuscenes", "--out", folder / "infos")
        bevrepro(*self.training(self.first))

    @property
    def data(self):
        return ("--data-root", self.folder / "set/nuscenes", "--infos", self.folder / "infos")

    def training(self, work, *more):
        fixed = ("--work-dir", work, "--amp", "fp64", "--gpus", 0, "--no-validate", *more)
        return (
            "train",
            "bevformer_micro",
            *self.data,
            *fixed,
            "--cfg-options",
            f"schedule.max_steps={STEPS}",
        )

    def start(self):
        return ("--init-from", self.first / "iter_0.pth")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("same"))


@pytest.fixture(scope="module", params=TARGETS)
def target(request):
    if resolve(None, request.param).link is None:
        pytest.skip(f"no environment of {request.param}: bevrepro env build --target {request.param}")
    return request.param


@pytest.fixture(scope="module")
def there(world, target):
    """The work folder of the same training in the target's environment."""
    work = world.folder / target
    _, said = bevrepro(*world.training(work, "--target", target, *world.start()))
    assert f"In {target} (" in said
    return work


def test_losses_are_the_same_step_by_step(world, there):
    here, other = by_step(world.first), by_step(there)
    assert list(here) == list(other) == list(range(1, STEPS + 1))
    assert furthest(here, other) < BOUND
    assert here[STEPS]["loss"] < 0.9 * here[1]["loss"]  # it learns, so that the steps matter


def test_the_record_names_the_environment(there, target):
    run, receipt = (json.loads(path.read_text()) for path in
                    (there / "run.json", resolve(None, target).link / "bevrepro-env.json"))  # fmt: skip
    told = run["sessions"][0]["environment"]
    assert (told["target"], told["digest"]) == (target, receipt["digest"])
    assert run["sessions"][0]["versions"]["torch"].split("+")[0] == receipt["packages"]["torch"].split("+")[0]
    assert run["sessions"][0]["command"][0].startswith(str(resolve(None, target).link))


def test_scores_are_the_same(world, there, target):
    """Of one checkpoint: boxes, and what the devkit of each environment makes of them."""
    found = []
    for name, more in (("here", ()), ("there", ("--target", target))):
        out = world.folder / f"eval-{target}-{name}"
        words = ("eval", "bevformer_micro", there / "latest.pth", *world.data, "--out", out, "--amp", "fp64")
        bevrepro(*words, "--gpus", 0, *more)
        found.append((json.loads((out / "results_nusc.json").read_text())["results"],
                      json.loads((out / "eval.json").read_text())["all"]))  # fmt: skip
    (ours, our_score), (theirs, their_score) = found
    assert their_score["environment"]["target"] == target
    assert list(ours) == list(theirs) and our_score["mAP"] == pytest.approx(their_score["mAP"], abs=1e-9)
    assert our_score["NDS"] == pytest.approx(their_score["NDS"], abs=1e-9)
    for token in ours:
        scores = [sorted(box["detection_score"] for box in boxes[token]) for boxes in (ours, theirs)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-9)


def test_a_replay_there_comes_out_the_same(world, there, target):
    told, _ = bevrepro("replay", there, "--steps", 3, "--json")  # in the run's own environment
    assert json.loads(told)["word"] == "equal"


def test_a_run_that_began_here_goes_on_there(world, target):
    """Interrupted after a few steps, resumed in the target's environment: the losses of one that was not."""
    work = world.folder / f"moved-{target}"
    child = subprocess.Popen(command(*world.training(work, *world.start())), stderr=subprocess.DEVNULL)
    until = time.monotonic() + START_S
    while (
        time.monotonic() < until
        and child.poll() is None
        and (not work.is_dir() or len(by_step_so_far(work)) < 3)
    ):
        time.sleep(0.1)
    os.kill(child.pid, signal.SIGINT)
    assert child.wait(60) == 130
    assert 3 <= len(by_step(work)) < STEPS
    bevrepro(*world.training(work, "--target", target, "--resume", "auto"))
    assert furthest(by_step(world.first), by_step(work)) < BOUND
    ledger = [entry["what"] for entry in json.loads((work / "run.json").read_text())["ledger"]]
    same = target_torch(target) == here_torch(world)
    assert ("went on in another environment" in ledger) != same


def by_step_so_far(folder):
    """While it is written: the last line may not be whole."""
    return [
        text
        for path in folder.glob("*.log.json")
        for text in path.read_text().splitlines()
        if '"mode"' in text
    ]


def torch_of(run):
    return json.loads(Path(run).read_text())["sessions"][0]["versions"]["torch"]


def here_torch(world):
    return torch_of(world.first / "run.json")


def target_torch(target):
    return json.loads((resolve(None, target).link / "bevrepro-env.json").read_text())["packages"]["torch"]
