"""Memory that runs out: the same step again with less, by all processes, and the same weights at the end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_frames
import torch
from test_amp import needs_bf16
from test_train import MICRO, FakeModel, play

from bevformer import memory, train
from bevformer.checkpoint import load_checkpoint
from bevformer.config import override
from bevformer.detector import build_model
from bevformer.errors import ConfigError
from bevformer.ladder import named_rungs
from bevformer.loop import Interrupted
from bevformer.memory import DoesNotFit, OutOfMemory, is_out_of_memory, told_by
from bevformer.runstate import Options

HERE = Path(__file__).parent
GPU_SAYS = "CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 10.76 GiB total capacity)"
CPU_SAYS = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000 bytes"


class Hungry:
    """Builds the model, whose loss at the given calls (from 1) runs out of memory after half its work."""

    def __init__(self, *calls, before=None):
        self.calls, self.count, self.before, self.model = calls, 0, before, None

    def __call__(self, config):
        self.model = build_model(config)
        plain = self.model.loss

        def loss(samples, rng, mean_positives):
            self.count += 1
            if self.before:
                self.before(self.count)
            losses = plain(samples, rng, mean_positives)
            if self.count in self.calls:
                sum(losses.values()).backward()  # gradients that must not stay
                raise RuntimeError(GPU_SAYS)
            return losses

        self.model.loss = loss
        return self.model


def go(folder, heard, build=build_model, steps=3, config=None, **options):
    options = Options(str(folder), seed=4, emulate_gpus=options.pop("ranks", 2), **options)
    config = config or small_frames.config(steps)
    return train.run(config, small_frames.SmallFrames(), options, heard, build)["weights_digest"]


def run_json(folder):
    return json.loads((folder / "run.json").read_text())


def rungs_in(folder):
    return [entry for entry in run_json(folder)["ledger"] if "rung" in entry]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_that_fell_back_ends_as_one_that_began_with_these_rungs(tmp_path, heard, workers):
    begun = go(tmp_path / "begun", heard, memory="encoder-layers,backbone-blocks")
    # Step 2 (calls 3 and 4): its second rank runs out, then its first.
    hungry = Hungry(4, 5)
    fallen = go(tmp_path / "fallen", heard, hungry, workers=workers)
    assert fallen == begun and hungry.count == 2 + 2 + 1 + 2 + 2
    first, second = rungs_in(tmp_path / "fallen")
    assert (first["rung"], first["step"], first["effect"]) == ("encoder-layers", 2, "identical")
    assert "out of memory in step 2: 20.0 MiB more" in second["why"]
    assert sum("it is repeated with less" in note for note in heard.notes) == 2


def test_the_preflight_falls_back_and_leaves_nothing_behind(tmp_path, heard):
    plain = go(tmp_path / "off", heard, memory="off")
    assert go(tmp_path / "auto", heard, Hungry(1), memory="auto") == plain
    (entry,) = rungs_in(tmp_path / "auto")
    assert (entry["step"], entry["rung"]) == (1, "encoder-layers") and "preflight" in entry["why"]
    session = run_json(tmp_path / "auto")["sessions"][0]
    assert session["memory"]["preflight"]["entries"] == [entry]
    assert run_json(tmp_path / "off")["sessions"][0]["memory"]["preflight"] is None


def test_nobody_waits_for_a_preflight_of_a_small_model_on_a_cpu(tmp_path, heard):
    hungry = Hungry()
    go(tmp_path, heard, hungry, steps=1)
    assert hungry.count == 2
    assert run_json(tmp_path)["sessions"][0]["memory"]["preflight"] is None


def test_at_the_end_of_the_ladder_a_sentence_names_the_next_command(tmp_path, heard):
    with pytest.raises(OutOfMemory) as caught:
        go(tmp_path, heard, Hungry(*range(3, 99)), command=["train", "my.py"])
    error = caught.value
    assert error.exit_code == 3 and "out of memory in step 2: 20.0 MiB more could not be had" in error.seen
    assert "encoder-layers" in error.why and "iter_0.pth, is whole" in error.why
    assert "bevrepro plan my.py" in error.do and "--memory bf16 --allow statistics" in error.do
    assert run_json(tmp_path)["status"] == "out of memory"


@pytest.mark.slow
def test_a_preflight_that_does_not_fit_leaves_the_folder_for_the_next_try(tmp_path, heard):
    with pytest.raises(DoesNotFit):
        go(tmp_path, heard, Hungry(*range(99)), memory="auto")
    assert [name for name in os.listdir(tmp_path) if not name.startswith(".")] == []


def test_off_tries_nothing(tmp_path, heard):
    with pytest.raises(OutOfMemory, match="--memory off nothing"):
        go(tmp_path, heard, Hungry(1), memory="off")


def test_rungs_in_use_are_kept_on_resume(tmp_path, heard):
    plain = go(tmp_path / "plain", heard)

    def stop(count):
        if count == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        go(tmp_path / "w", heard, Hungry(3, before=stop))
    assert load_checkpoint(str(tmp_path / "w" / "latest.pth"))["meta"]["memory"][0]["step"] == 2
    again = Hungry()
    assert go(tmp_path / "w", heard, again, resume="auto") == plain
    assert again.model.pts_bbox_head.transformer.encoder.recompute_layers
    assert [(entry["rung"], entry["step"]) for entry in rungs_in(tmp_path / "w")] == [("encoder-layers", 2)]


@pytest.mark.slow
def test_a_rounding_rung_taken_in_the_preflight_equals_one_that_was_asked_for(tmp_path, heard):
    words = [
        "backbone.kind=resnet",
        "backbone.depth=50",
        "backbone.out_stages=(3,)",
        "neck.in_channels=(2048,)",
    ]
    config = override(small_frames.config(2), words)
    names = "encoder-layers,backbone-blocks,decoder-layers,sampling,backbone-groups,frozen-norms"
    asked = go(tmp_path / "asked", heard, ranks=1, config=config, memory=names)
    fallen = go(tmp_path / "fallen", heard, Hungry(*range(1, 7)), ranks=1, config=config, memory="auto")
    assert fallen == asked
    assert [entry["rung"] for entry in rungs_in(tmp_path / "fallen")] == names.split(",")


@pytest.mark.slow
def test_an_operator_that_a_rung_brought_is_named_once(tmp_path, heard):
    config = override(small_frames.config(1), ["ops.attention=reference"])
    go(tmp_path, heard, steps=1, ranks=1, config=config, memory="fused-attention")
    (session,) = run_json(tmp_path)["sessions"]
    assert session["operators"]["attention"] != "reference"
    named = [entry for entry in run_json(tmp_path)["ledger"] if "attention" in entry["what"]]
    assert [entry.get("rung") for entry in named] == ["fused-attention"]


def as_allowed(folder, heard, monkeypatch, refusals=0, **options):
    """`run_as_allowed` where so many preflights do not fit."""
    left = [OutOfMemory("out of memory in the preflight step", "", "")] * refusals

    def preflight(job, talk):
        if left:
            raise left.pop()
        return {"entries": []}

    monkeypatch.setattr(train, "preflight", preflight)
    config, chosen = small_frames.config(1), Options(str(folder), memory="auto", **options)
    return train.run_as_allowed(config, lambda config: small_frames.SmallFrames(), chosen, heard)


@needs_bf16
def test_what_changes_the_result_is_only_chosen_where_it_is_allowed(tmp_path, heard, monkeypatch):
    with pytest.raises(OutOfMemory):
        as_allowed(tmp_path, heard, monkeypatch, refusals=1)
    as_allowed(tmp_path, heard, monkeypatch, refusals=2, allow="changes")
    first, second = rungs_in(tmp_path)
    assert (first["rung"], first["effect"]) == ("bf16", "same statistics")
    assert (second["rung"], second["effect"]) == ("half-grid", "changes the result")
    assert "--allow changes" in second["why"] and run_json(tmp_path)["precision"]["kind"] == "bf16"
    assert run_json(tmp_path)["config"]["encoder"]["bev_h"] == 4
    # It goes on in bf16 and with that grid without being told again.
    assert as_allowed(tmp_path, heard, monkeypatch, resume="auto")["steps"] == 1


def test_a_smaller_model_can_be_named(tmp_path, heard):
    words = dict(memory="half-grid", allow="changes")
    config, data = small_frames.config(1), small_frames.SmallFrames()
    train.run_as_allowed(config, lambda config: data, Options(str(tmp_path), **words), heard)
    (entry,) = rungs_in(tmp_path)
    assert entry["why"] == "--memory asks for it" and entry["cfg_options"][0] == "encoder.bev_h=4"
    assert (
        load_checkpoint(str(tmp_path / "latest.pth"))["state_dict"][
            "pts_bbox_head.bev_embedding.weight"
        ].shape[0]
        == 16
    )


def test_names_are_checked_before_anything_runs():
    assert [each.name for each in named_rungs("bf16", "statistics", MICRO)] == ["bf16"]
    with pytest.raises(ConfigError, match="--memory bf16") as caught:
        named_rungs("encoder-layers,bf16", None, MICRO)
    assert "--allow statistics" in caught.value.do
    with pytest.raises(ConfigError, match="unknown memory rung: 'less'"):
        named_rungs("less", "changes", MICRO)
    with pytest.raises(ConfigError, match="half the BEV grid"):
        named_rungs("half-grid", "statistics", MICRO)
    assert not any(named_rungs(word, None, MICRO) for word in ("auto", "off", None))


def test_a_rung_that_this_model_has_no_use_for_is_said_and_left_out(tmp_path, heard):
    go(tmp_path, heard, steps=1, ranks=1, memory="dcn-taps,sampling")
    assert any("dcn-taps has nothing to save" in note for note in heard.notes)
    assert [entry["rung"] for entry in rungs_in(tmp_path)] == ["sampling"]


@pytest.mark.parametrize(
    "error, yes",
    [
        (RuntimeError(GPU_SAYS), True),
        (RuntimeError(CPU_SAYS), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("FIND was unable to find an engine to execute this computation after trying 6"), True),
        (RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (MemoryError("Unable to allocate 3.90 GiB for an array"), True),
        (RuntimeError("The size of tensor a (3) must match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error, yes):
    assert is_out_of_memory(error) is yes


def test_what_was_missing_is_said_in_people_s_units():
    assert told_by(RuntimeError(GPU_SAYS)) == "20.0 MiB more could not be had"
    assert told_by(RuntimeError(CPU_SAYS)) == "3.73 GiB more could not be had"
    assert told_by(RuntimeError("CUDA error: out of memory\nsecond line")) == "CUDA error: out of memory"


def test_another_error_is_not_swallowed(tmp_path):
    def broken(loss):
        raise RuntimeError("The size of tensor a must match")

    with pytest.raises(RuntimeError, match="must match"):
        play(tmp_path, spoil={2: broken})


def test_half_an_update_is_not_repeated(tmp_path, monkeypatch):
    def full(self, closure=None):
        raise RuntimeError(GPU_SAYS)

    monkeypatch.setattr(torch.optim.AdamW, "step", full)
    with pytest.raises(OutOfMemory) as caught:
        play(tmp_path)
    assert "while the weights were being changed" in caught.value.seen
    assert "--resume auto" in caught.value.do and "iter_0.pth" in caught.value.why


def test_statistics_of_a_live_batch_norm_count_a_repeated_step_once(tmp_path):
    def model(spoil):
        made = FakeModel(spoil)
        made.norm = torch.nn.BatchNorm1d(1)
        plain = made.loss

        def loss(sample, rng, mean_positives):
            made.norm(torch.arange(4.0).view(4, 1))
            return plain(sample, rng, mean_positives)

        made.loss = loss
        return made

    kept = memory.Memory(model({1: _out}), falls=False)
    before = kept._statistics()
    with pytest.raises(OutOfMemory):
        kept.tried(lambda: kept._model.loss(torch.ones(3), np.random, 1.0), train.Ranks(), 0)
    assert all(torch.equal(buffer, copy) for buffer, copy in before) and len(before) == 3


def _out(loss):
    raise RuntimeError(CPU_SAYS)


PROGRAM = """
import resource, sys
import numpy as np, scipy.optimize, torch
import small_frames
from bevformer import train
from bevformer.config import override
from bevformer.detector import build_model
from bevformer.runstate import Options
from bevformer.talk import Talk
torch.set_num_threads(1)
wide = ["encoder.bev_h=60", "encoder.bev_w=60", "encoder.num_layers=3", "decoder.num_layers=3"]
wide += ["head.num_query=300", "transformer.embed_dims=64", "ops.attention=reference"]  # it has most to give
config = override(small_frames.config(2), wide)
data = small_frames.SmallFrames()
sample = data.load_queue([0, 1], np.random.RandomState(0))
sum(build_model(small_frames.config(1)).loss(sample).values()).backward()
if int(sys.argv[2]):
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + (int(sys.argv[2]) << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
options = Options(sys.argv[1], seed=4, memory=sys.argv[3])
print(train.run(config, data, options, Talk(False))["weights_digest"])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_where_the_system_really_has_no_more_the_run_ends_as_without_a_limit(tmp_path):
    def limited(name, extra_mib, asked):
        env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH="%s:%s" % (HERE.parents[1] / "model", HERE))
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / name), str(extra_mib), asked]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)

    free = limited("free", 0, "off")
    assert free.returncode == 0, free.stderr[-2000:]
    for extra_mib in (320, 280, 250, 225, 200):
        name = str(extra_mib)
        done = limited(name, extra_mib, "auto")
        if done.returncode == 0 and rungs_in(tmp_path / name):
            break
    assert done.returncode == 0 and rungs_in(tmp_path / name), done.stderr[-2000:]
    assert done.stdout == free.stdout and "it is repeated with less" in done.stderr


TWO = """
import os, sys
import torch
import small_frames
from bevformer.detector import build_model
from bevformer import train
from bevformer.errors import UserError
from bevformer.ranks import leave
from bevformer.runstate import Options
from bevformer.talk import Talk
torch.set_num_threads(1)

def build(config):
    model, count, calls = build_model(config), [0], set(map(int, sys.argv[2].split(",")))
    plain = model.loss
    def loss(*args):
        count[0] += 1
        if os.environ["RANK"] == "1" and count[0] in calls:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return plain(*args)
    model.loss = loss
    return model

options = Options(sys.argv[1], seed=4, emulate_gpus=2, memory=sys.argv[3])
try:
    train.run(small_frames.config(3), small_frames.SmallFrames(), options, Talk(False), build)
except UserError as error:
    print("%s: %s" % (os.environ["RANK"], error.seen))
finally:
    leave()
"""


def in_two_processes(tmp_path, name, calls, asked="auto"):
    program = tmp_path / "two.py"
    program.write_text(TWO)
    env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH="%s:%s" % (HERE.parents[1] / "model", HERE))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(program), str(tmp_path / name), calls, asked]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_when_one_process_runs_out_all_fall_back_together(tmp_path):
    # The second process runs out in its preflight (call 1) and in step 2 (calls 4 and 5).
    done = in_two_processes(tmp_path, "fallen", "1,4,5")
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr[-2000:]
    begun = in_two_processes(tmp_path, "begun", "99", "encoder-layers,backbone-blocks,decoder-layers")
    assert begun.returncode == 0, begun.stderr[-2000:]
    entries = rungs_in(tmp_path / "fallen")
    assert [(entry["rung"], entry["step"]) for entry in entries] == [
        ("encoder-layers", 1),
        ("backbone-blocks", 2),
        ("decoder-layers", 2),
    ]
    assert "process 1 has none left" in entries[0]["why"]
    records = [run_json(tmp_path / name) for name in ("fallen", "begun")]
    assert records[0]["weights_digest"] == records[1]["weights_digest"]
    assert len(records[0]["sessions"][0]["hosts"]) == 2


@pytest.mark.slow
def test_at_the_end_of_the_ladder_no_process_waits_for_another(tmp_path):
    done = in_two_processes(tmp_path, "w", ",".join(map(str, range(3, 99))))
    said = sorted(line for line in done.stdout.splitlines() if "out of memory" in line)
    assert len(said) == 2 and said[0].startswith("0: Training stopped: out of memory in step 2"), done.stderr
