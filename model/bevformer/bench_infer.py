"""`python -m bevformer.bench infer`: a frame of a video with history, ours against a plain fp32 version.

    python -m bevformer.bench infer [--preset tiny ...] [--device cpu|cuda] [--who NAME...] [--size HxW]

From images on the device to decoded boxes.  Contenders: see `bench_models`.  `apart` says how far their
outputs lie from the plain one's, in units of its largest number.  The file is written after each contender
and each round.
"""

import argparse
import dataclasses
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
from torch import Tensor

from .allocated import allocated_peak_b
from .bench_common import (
    Protocol,
    add_options,
    begin,
    check_options,
    compete,
    deliver,
    device_of,
    finish,
    keep,
    preset_of,
    ratio,
    reason,
    recover,
    row,
    seconds_of,
    short_name,
)
from .bench_models import (
    PLAIN,
    Contender,
    add_model_options,
    made_one_by_one,
    model_bytes,
    sizes_of,
    told,
)
from .config import Config, override
from .nominal import ImageSize, nominal_frame
from .talk import Talk
from .types import Frame

WHAT, PEAK = "inference step with history", "peak memory"
NAMES = (PLAIN, "fp32", "fast")
GOALS = {("cpu", "tiny"): 1.8, ("cpu", "base"): 1.5}  # the better of fp32 and fast, times plain
PEAK_GOALS = {("cpu", "base"): 2.0}  # of the same one
ABOUT = (
    "Seconds of one frame, medians; rounds 0: one frame alone, before the rounds. ratios: plain / contender."
    " peak_gb: weights and the most that was allocated, 1e9 bytes. apart: largest difference to plain, in"
    " units of its largest number, by output."
)
Rows = List[Dict[str, Any]]
Work = Callable[[], Dict[str, Tensor]]
Save = Callable[[Rows], None]


def main(argv: Sequence[str], talk: Talk) -> int:
    started_s = time.monotonic()
    parser = argparse.ArgumentParser(prog="bench infer", description=__doc__)
    add_options(parser)
    add_model_options(parser, NAMES)
    args = parser.parse_args(argv)
    protocol, device = check_options(parser, args), device_of(args.device)
    header = begin("infer", argv, device, started_s)
    rows, absent, full_size = [], {}, args.size is None  # type: Rows, Dict[str, str], bool

    def document(found: Rows) -> Dict[str, Any]:
        found = [*rows, *found]
        cases = dict.fromkeys(each["case"] for each in found)
        ratios = [each for case in cases for each in judged(found, case, device, full_size)]
        return finish(header, found, ratios, absent, protocol=protocol.told(), about=ABOUT)

    def save(found: Rows) -> None:
        keep(document(found), args.out)

    for name in args.preset:
        config = override(preset_of(name), args.cfg_options)
        size = sizes_of(config, args.size)
        rows += measure(config, size, args.who, device, protocol, absent, talk, save)
    return deliver(document([]), args.out, talk)


def judged(rows: Rows, case: str, device: torch.device, full_size: bool) -> Rows:
    """Ratios to plain, of times and of peaks; the better one carries the goals."""
    peaks = [dict(each, what=PEAK, median=each["peak_gb"], unit="GB") for each in rows if "peak_gb" in each]
    found = [each for who in NAMES[1:] for each in ratio(rows, case, WHAT, who, PLAIN)]
    saved = [each for who in NAMES[1:] for each in ratio(peaks, case, PEAK, who, PLAIN)]
    best = max(found, key=lambda each: float(each["times"]))["who"] if found else None
    for each, goals in [(each, GOALS) for each in found] + [(each, PEAK_GOALS) for each in saved]:
        goal = goals.get((device.type, case))
        if each["who"] == best and goal is not None and full_size:
            each.update(goal=goal, met=each["times"] >= goal)
    return found + saved


def measure(
    config: Config,
    size: ImageSize,
    names: Sequence[str],
    device: torch.device,
    protocol: Protocol,
    absent: Dict[str, str],
    talk: Talk,
    save: Save,
) -> Rows:
    """The rows of a preset, saved as they come; what does not fit or run is entered in `absent`."""
    case = short_name(config.name)
    frames = [on_device(nominal_frame(size, index), device) for index in range(2)]
    works: Dict[str, Work] = {}
    facts: Dict[str, Dict[str, Any]] = {}
    lost: Dict[str, str] = {}
    outputs: Optional[Dict[str, Tensor]] = None

    def rows_of(taken: Dict[str, List[float]]) -> Rows:
        absent.update(("%s, %s" % (case, who), why) for who, why in lost.items())
        kept = {who: each for who, each in facts.items() if who not in lost and (who in taken or not taken)}
        rows = [row_about(case, who, each, taken.get(who, [])) for who, each in kept.items()]
        return [dict(each, images_hw=list(size.padded_hw)) for each in rows]

    for contender in made_one_by_one(config, names, device, False, absent, case):
        who = contender.who
        try:
            described_as, found = described(contender, frames, device)
            works[who] = framer(contender, frames, device)
            described_as["alone_s"] = seconds_of(works[who], device)
        except Exception as error:  # told in `absent`: one contender is not the end of the others
            lost[who] = reason(error)
            talk.note("%s, %s: %s" % (case, who, lost[who]))
        else:
            facts[who] = described_as
            outputs = found if who == PLAIN else outputs
            if outputs is not None and who != PLAIN:
                facts[who]["apart"] = {name: apart(found[name], outputs[name]) for name in outputs}
        del contender
        save(rows_of({}))
        recover(who, lost.get(who, "no error until it was waited for"))
    once = dataclasses.replace(protocol, warm_up=0)  # `described` and what came after it ran them
    rows = rows_of(compete(works, device, once, lost, lambda so_far: save(rows_of(so_far))))
    for line in told(rows):
        talk.note(line)
    return rows


def row_about(case: str, who: str, facts: Dict[str, Any], seconds: Sequence[float]) -> Dict[str, Any]:
    """With the time of one frame alone until rounds were made."""
    known = {key: value for key, value in facts.items() if key != "alone_s"}
    return row(case, WHAT, who, seconds or [facts["alone_s"]], rounds=len(seconds), **known)


def on_device(frame: Frame, device: torch.device) -> Frame:
    return dataclasses.replace(frame, images_NCHW=frame.images_NCHW.to(device))


def framer(contender: Contender, frames: Sequence[Frame], device: torch.device) -> Work:
    """The second frame of a video; what comes out are the head's outputs before decoding."""
    model, seen = contender.model, {}  # type: Any, Dict[str, Any]
    model.pts_bbox_head.register_forward_hook(lambda head, inputs, out: seen.update(out=out))
    with contender.precision.autocast(device):
        # Folded weights, made once for a video.  The plain model runs its layers as they are.
        extract = None if contender.who == PLAIN else model.extractor()
        _, memory = model.step(frames[0], None, extract)

    def work() -> Dict[str, Tensor]:
        with contender.precision.autocast(device):
            model.step(frames[1], memory, extract)
        out = seen["out"]
        return {"bev": out.bev_BQC, "logits": out.logits_LBOK[-1], "codes": out.codes_LBOD[-1]}

    return work


def described(contender: Contender, frames: Sequence[Frame], device: torch.device) -> Any:
    """What is known of a contender besides its times, and its outputs."""
    weights_b, outputs = model_bytes(contender.model), {}  # type: int, Dict[str, Tensor]

    def whole() -> None:
        outputs.update(framer(contender, frames, device)())

    if device.type == "cuda":
        before_b = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        whole()
        peak_b = torch.cuda.max_memory_allocated(device) - before_b
    else:
        peak_b = allocated_peak_b(whole)
    facts = dict(peak_gb=round((weights_b + peak_b) / 1e9, 3), levers=list(contender.levers))
    return facts, {name: each.float().cpu() for name, each in outputs.items()}


def apart(ours: Tensor, plain: Tensor) -> float:
    return float("%.3g" % (float((ours - plain).abs().max()) / max(float(plain.abs().max()), 1e-30)))
