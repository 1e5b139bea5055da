"""`python -m bevformer.bench`: the bundled model against a plain grid_sample formulation of it.

    python -m bevformer.bench [--preset bevformer_tiny] [--size HxW] [--threads N] [--repeats N] [--train]
                              [--out FILE]

Both share every parameter and take turns in one process (A/B, B/A, ...), so that whatever else the machine
does falls on both; medians and their ratio are reported, above 1 when the bundled one is faster, and how
far their outputs lie apart.  Writes JSON to --out, else to stdout.
"""

import argparse
import json
import os
import re
import statistics
import sys
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from .atomic import write_atomically
from .bench_pair import Step, difference, inference_step, plain_copy, training_step, with_spread_sampling
from .config import Config, override
from .detector import BEVFormer, build_model
from .errors import ConfigError
from .nominal import ImageSize, image_size
from .record import host_summary, now_text, versions
from .talk import Talk


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Ours against a plain grid_sample version.")
    parser.add_argument("--preset", default="bevformer_tiny", metavar="CONFIG", help="as for train and eval")
    parser.add_argument("--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    parser.add_argument("--size", metavar="HxW", help="of the padded images (default: the configuration's)")
    parser.add_argument("--threads", type=int, help="default: torch's own choice")
    parser.add_argument("--repeats", type=int, default=5, help="steps of each, after one to warm up")
    parser.add_argument("--train", action="store_true", help="a training step instead of an inference step")
    parser.add_argument("--out", metavar="FILE", help="default: stdout")
    args = parser.parse_args(argv)
    for name in ("threads", "repeats"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error("--%s has to be at least 1" % name)
    return args


def main(argv: Sequence[str], talk: Talk) -> int:
    from .evaluate import read_config

    args = parse(argv)
    config = override(read_config(args.preset, talk), args.cfg_options)
    size = image_size(config, parse_size(args.size, config))
    if args.threads:
        torch.set_num_threads(args.threads)
    result = bench(config, size, args.repeats, args.train, talk)
    if args.out:
        write_atomically(args.out, json.dumps(result, indent=2) + "\n")
        talk.note("Wrote %s" % args.out)
    talk.result(**(result if not args.out else {"out": args.out, "ratio": result["ratio"]}))
    return 0


def parse_size(text: Optional[str], config: Config) -> Optional[Tuple[int, int]]:
    """480x800 as (480, 800).  Raises ConfigError for what the backbone's strides do not divide."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    divisor = config.data.pad_divisor
    if not found or any(int(side) < 1 or int(side) % divisor for side in found.groups()):
        raise ConfigError(
            "--size %s" % text, do="Height x width in multiples of %d, for example 480x800." % divisor
        )
    return int(found.group(1)), int(found.group(2))


def bench(config: Config, size: ImageSize, repeats: int, train: bool, talk: Talk) -> Dict[str, Any]:
    """Everything that is written, as JSON."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    torch.manual_seed(0)
    ours = with_spread_sampling(build_model(config)).train(train)
    plain = plain_copy(ours)
    make_step = training_step if train else inference_step
    contestants = {
        "ours": Contestant(ours, make_step(ours, size)),
        "plain": Contestant(plain, make_step(plain, size)),
    }
    apart = difference(*(contestant.run() for contestant in contestants.values()))  # warms up, too
    for done in range(repeats):
        for name in ("ours", "plain") if done % 2 == 0 else ("plain", "ours"):
            contestants[name].measure()
        talk.progress("bench", done + 1, repeats)
    return {
        "config": config.name,
        "step": "training" if train else "inference with history",
        "images_hw": size.padded_hw,
        "repeats": repeats,
        "ratio": ratio(contestants, "step_s"),
        "ratio_cpu_time": ratio(contestants, "cpu_s"),
        "ratio_encoder": ratio(contestants, "encoder_s"),
        "max_abs_difference": apart,
        **{name: contestant.summary() for name, contestant in contestants.items()},
        "host": host_summary(torch.device("cpu")),
        "load_1m_before": load,
        "versions": versions(),
        "time": now_text(),
        "about": "Seconds; medians. ratio = plain / ours: above 1, ours is faster. encoder_s is the part of a"
        " step's forward passes that differs; cpu_s is the process's CPU time.",
    }


class Contestant:
    """One of the two models and the times of its steps."""

    def __init__(self, model: BEVFormer, step: Step) -> None:
        self._step = step
        self._encoder_s = self._entered_s = 0.0
        self.times: Dict[str, List[float]] = {"step_s": [], "cpu_s": [], "encoder_s": []}
        encoder = model.pts_bbox_head.transformer.encoder
        encoder.register_forward_pre_hook(self._enter)
        encoder.register_forward_hook(self._leave)

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        self._entered_s = time.perf_counter()

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._encoder_s += time.perf_counter() - self._entered_s

    def run(self) -> Dict[str, Tensor]:
        torch.manual_seed(1)  # of the dropout masks
        return self._step()

    def measure(self) -> None:
        self._encoder_s = 0.0
        started_s, cpu_s = time.perf_counter(), time.process_time()
        self.run()
        self.times["step_s"].append(time.perf_counter() - started_s)
        self.times["cpu_s"].append(time.process_time() - cpu_s)
        self.times["encoder_s"].append(self._encoder_s)

    def summary(self) -> Dict[str, Any]:
        medians: Dict[str, Any] = {name: statistics.median(times) for name, times in self.times.items()}
        return dict(medians, step_s_all=self.times["step_s"])


def ratio(contestants: Dict[str, Contestant], kind: str) -> float:
    plain, ours = (statistics.median(contestants[name].times[kind]) for name in ("plain", "ours"))
    return plain / ours


if __name__ == "__main__":
    from .__main__ import main as start

    sys.exit(start(["bench", *sys.argv[1:]]))
