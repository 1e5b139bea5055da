"""A configuration: batch, learning rate, sampler, video mode."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from bevrepro import facts
from bevrepro.core.finding import Finding
from bevrepro.doctor.check import Check, Verdict, fail, info, warn
from bevrepro.doctor.data import PREPARE
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.readable import readable_check
from bevrepro.probe.config import Config, probe_config


def _broken(config: Config) -> Iterator[Verdict]:
    if config.broken:
        yield fail(
            f"{config.place.path}: {config.broken}", "Name a preset, an upstream .py or a work folder."
        )


def _batch_lr(config: Config) -> Iterator[Verdict]:
    row = facts.row("recipes", "recipe")
    if config.lr is None or config.samples_per_gpu is None or config.preset == "bevformer_micro":
        return
    batch = config.samples_per_gpu * row["gpus"]
    ratio = batch / row["batch"]
    low, high = sorted((row["lr"] * ratio**0.5, row["lr"] * ratio))
    if not low * (1 - row["tolerance"]) <= config.lr <= high * (1 + row["tolerance"]):
        yield warn(
            f"{config.samples_per_gpu} sample(s) per GPU, lr {config.lr:g}: on {row['gpus']} GPUs batch "
            f"{batch}, for which the published {row['lr']:g} at batch {row['batch']} scales to {low:.2g}"
            + (f" (square root) or {high:.2g} (linear)" if ratio != 1 else ""),
            "Change the rate with the batch, or keep batch 8: bevrepro emulates 8 GPUs on fewer.",
        )


def _one_gpu(config: Config) -> Iterator[Verdict]:
    row = facts.row("recipes", "recipe")
    if config.model and config.samples_per_gpu is not None and config.lr is not None:
        batch = config.samples_per_gpu * row["gpus"]
        yield info(f"batch {batch} on {row['gpus']} GPUs, {config.samples_per_gpu} on one",
                   "With fewer GPUs upstream's tools keep the rate and lose batch.")  # fmt: skip


def _sampler(config: Config) -> Iterator[Verdict]:
    row = facts.row("recipes", "samplers")
    if config.nonshuffler and config.nonshuffler != row["nonshuffler"]:
        yield fail(f"nonshuffler_sampler is {config.nonshuffler}, not {row['nonshuffler']}",
                   "Evaluation needs consecutive frames on every rank.")  # fmt: skip
    if config.shuffler and config.shuffler != row["shuffler"]:
        yield warn(f"shuffler_sampler is {config.shuffler}, not {row['shuffler']}",
                   "Compare with the published recipe only when they are equal.")  # fmt: skip


def _video(config: Config) -> Iterator[Verdict]:
    if config.video is False:
        yield fail("video_test_mode is off", "Set it to True: BEVFormer's results are with history.")


def _test_batch(config: Config) -> Iterator[Verdict]:
    if config.test_samples_per_gpu is not None and config.test_samples_per_gpu > 1:
        yield fail(f"{config.test_samples_per_gpu} samples per GPU at test time",
                   "Set data.val and data.test to 1: history is kept per process.")  # fmt: skip


def _queue(config: Config) -> Iterator[Verdict]:
    wanted = dict(facts.row("recipes", "queue")["by_grid"]).get(config.bev_h)
    if wanted is not None and config.queue_length is not None and config.queue_length != wanted:
        yield warn(
            f"queue_length {config.queue_length} with a {config.bev_h}x{config.bev_h} grid, not {wanted}",
            "A shorter queue trains faster and gives another model: do not compare it with the table.",
        )


def _batch_norm(config: Config) -> Iterator[Verdict]:
    if config.live_batch_norm and (config.samples_per_gpu or 1) < 2:
        yield warn("batch norm of the backbone learns, with one sample per GPU",
                   "Freeze it (norm_eval, requires_grad=False), or use SyncBN and several GPUs.")  # fmt: skip


def _load_from(config: Config) -> Iterator[Verdict]:
    if config.load_from and config.load_from_exists is False:
        yield warn(f"load_from={config.load_from} does not exist",
                   "Training without initial weights converges to far less: fetch the file first.",
                   f"bevrepro doctor ckpt {config.load_from}")  # fmt: skip


def _data_root(config: Config) -> Iterator[Verdict]:
    if config.data_root and config.data_root_exists is False:
        yield warn(f"data_root={config.data_root} is written into the configuration and does not exist",
                   "bevrepro takes --data-root; upstream's tools need a link of that name.")  # fmt: skip


def _tools_import(config: Config) -> Iterator[Verdict]:
    tree = config.tree
    if tree and tree.absolute_imports and not tree.on_path:
        yield warn(
            f"{tree.path}/tools/data_converter/indoor_converter.py imports `tools` by its full name, and "
            "PYTHONPATH does not name that folder",
            "Prepare the data with bevrepro, or put the folder in front.",
            PREPARE,
            f"export PYTHONPATH={shlex.quote(tree.path)}",
        )


def _launcher(config: Config) -> Iterator[Verdict]:
    if config.tree and config.tree.launcher_demanded:
        yield info(
            f"{config.tree.path}/tools/test.py stops at `assert False` unless a launcher starts it",
            "Start it with one even for one GPU; bevrepro eval needs none.",
            "torchrun --nproc_per_node=1 tools/test.py CONFIG CHECKPOINT --launcher pytorch --eval bbox",
        )


CHECKS = (
    readable_check("config", "the configuration"),
    Check("config-broken", "config", "whether it is a configuration", "Training does not start.", _broken),
    Check("config-batch-lr", "config", "the learning rate against the batch",
          "tiny at batch 4 with the rate of batch 8 gave NDS 0.318 instead of 0.354.", _batch_lr),
    Check("config-effective-batch", "config", "the effective batch",
          "The number of GPUs changes it silently.", _one_gpu),
    Check("config-sampler", "config", "samplers",
          "Frames that are dealt out in turn tear the history apart: mAVE rises, mAP falls.", _sampler),
    Check("config-video", "config", "video mode at test time", "Else every frame starts blind.", _video),
    Check("config-test-batch", "config", "samples per GPU at test time",
          "With more than one, a frame gets another scene's history.", _test_batch),
    Check("config-queue", "config", "the queue of frames in training", "It is part of the recipe.", _queue),
    Check("config-batch-norm", "config", "batch norm with one sample",
          "Its statistics are those of one picture: training diverges or stays poor.", _batch_norm),
    Check("config-initial-weights", "config", "the file of initial weights",
          "The run stops at its start, or trains from nothing.", _load_from),
    Check("config-data-root", "config", "a data root in the configuration",
          "It is found on its author's machine only.", _data_root),
    Check("config-tools-import", "config", "the converter's imports in the tree around it",
          "tools/create_data.py stops with ImportError when another package is called tools.",
          _tools_import),
    Check("config-launcher", "config", "whether the tree's test.py demands a launcher",
          "One GPU, started plainly, ends in an AssertionError without a word.", _launcher),
)  # fmt: skip


def examine_config(path: Path, deep: bool = False) -> tuple[Finding, ...]:
    """All findings about `path`: a preset's name, an upstream .py, a config.json or its work folder."""
    return judge_all(probe_config(path, deep), CHECKS)
