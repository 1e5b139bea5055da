"""`python -m bevformer.bench ops`: every installed implementation of the attentions, side by side.

Forward without gradients; training, which is a forward and a backward pass, and its backward part alone.
Their numbers are compared with grid_sample's in float64: a fast one that is wrong is shown as wrong.
"""

import argparse
import dataclasses
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from .allocated import allocated_peak_b
from .bench_cases import KINDS, Case, make_case
from .bench_common import (
    Protocol,
    add_options,
    begin,
    check_options,
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
    take_turns,
)
from .bench_contenders import BASELINE, NAMES, contenders
from .errors import ConfigError
from .ops.backends import RESAMPLING, Backend
from .saved import SavedBytes
from .talk import Talk

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# How far a right result may lie from float64, in units of the largest number: the output, and the gradient of
# each input.  float32: a sample up to 256 cells from the edge of its map is placed by numbers whose last bit
# is 3e-5 cells, each step rounds by up to half of it, and neighbouring cells may differ by more than the
# largest output; grid_sample itself is off by 1.5e-5 at the sizes of base.  16 bits: inputs are those of
# float64 and sums are float32, so one rounding comes on top, that of the result: 2**-8 or 2**-11 of a number.
# One sample taken from the cell beside, or sums in bf16, are off by more than any of these (a test tries).
FLOAT32 = 4e-5
BOUNDS = {"float32": FLOAT32, "bfloat16": 2.0**-8 + FLOAT32, "float16": 2.0**-11 + FLOAT32}
# The layer with its projections: four products in 16 bits follow each other, and an offset of several cells
# is itself rounded; grid_sample in the same numbers is off by up to 4 times the rounding of one.
LAYER = "spatial layer"
LAYER_BOUNDS = {"float32": FLOAT32, "bfloat16": 10 * 2.0**-8, "float16": 10 * 2.0**-11}
GOALS: Dict[Tuple[str, str, str], float] = {  # device, kind of case, what -> at least so many times BASELINE
    ("cpu", "temporal", "forward"): 6.0,
    ("cpu", "temporal", "training"): 5.0,
    ("cpu", "spatial", "forward"): 6.0,
    ("cpu", "spatial", "training"): 5.0,
    ("cpu", "decoder", "forward"): 6.0,
    ("cpu", "decoder", "training"): 5.0,
    ("cpu", "spatial layer", "forward"): 4.0,
    ("cpu", "spatial layer", "training"): 4.0,
}
ABOUT = (
    "Seconds; medians and quartiles; on a GPU of its kernels, not of launching them. ratios: %s / contender,"
    " above 1 when the contender is faster. max_error: largest difference to grid_sample in float64 in units"
    " of the largest number, of the output (forward) or the worst gradient (training), right: at most bound;"
    " of the spatial layer without the query that is added to it. saved_mb: what waits for"
    " the backward pass beyond the inputs, peak_mb: the most beyond what was there before; 1 MB is 1e6 bytes."
    % BASELINE
)
Rows = List[Dict[str, Any]]


def main(argv: Sequence[str], talk: Talk) -> int:
    parser = argparse.ArgumentParser(prog="bench ops", description=__doc__)
    add_options(parser, ("tiny", "base"))
    parser.add_argument("--case", nargs="+", default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--who", nargs="+", metavar="NAME", help="contenders (default: all there are)")
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=sorted(DTYPES))
    args = parser.parse_args(argv)
    protocol, device = check_options(parser, args), device_of(args.device)
    unknown = [kind for kind in args.case if kind not in KINDS]
    if unknown:
        raise ConfigError("unknown case: %r" % unknown[0], do="One of: " + ", ".join(KINDS))
    configs = [preset_of(name) for name in args.preset]
    header = begin("ops", argv, device, time.monotonic())
    backends, absent = contenders(device.type, args.who)
    for name, why in absent.items():
        talk.note("%s is not here: %s" % (name, why))
    rows: Rows = []
    # `check` has run each of them twice; on a GPU the timed calls may still be the first of their kind.
    protocol = dataclasses.replace(protocol, warm_up=1 if device.type == "cuda" else 0)
    wanted = [(config, kind, dtype) for config in configs for kind in args.case for dtype in args.dtype]
    for done, (config, kind, dtype) in enumerate(wanted, 1):
        case = make_case(config, kind, DTYPES[dtype], device)
        bound = (LAYER_BOUNDS if kind == LAYER else BOUNDS)[dtype]
        more = dict(protocol=protocol.told(), about=ABOUT, cases_left=len(wanted) - done)
        failed: Dict[str, str] = {}
        try:
            rows += measure(case, backends, bound, device, protocol, talk, failed)
        finally:  # also where the GPU is lost
            absent.update(("%s, %s" % (case.name, name), why) for name, why in failed.items())
            result = finish(header, rows, ratios(rows, device), absent, **more)
            keep(result, args.out)
        del case
    return deliver(result, args.out, talk)


def measure(
    case: Case,
    backends: Dict[str, Backend],
    bound: float,
    device: torch.device,
    protocol: Protocol,
    talk: Talk,
    failed: Dict[str, str],
) -> Rows:
    """The rows of a case; `failed` takes why a contender has none.  Raises GpuLost."""
    exact, exact_gradients = exact_results(case)
    facts: Dict[str, Dict[str, Dict[str, Any]]] = {}
    for name, backend in backends.items():
        try:
            facts[name] = check(case, backend, exact, exact_gradients, bound, device)
        except Exception as error:  # what another's operator cannot do is a result, not the end of the run
            failed[name] = reason(error)
        if name in failed:
            recover(name, failed[name])
    del exact, exact_gradients
    runs = {name: _run(case, backends[name], device) for name in facts}
    rows: Rows = []
    taken = take_turns(runs, protocol, failed)
    for name, why in failed.items():
        talk.note("%s, %s failed: %s" % (case.name, name, why))
    for name, rounds in taken.items():
        for what in ("forward", "training", "backward"):
            values = [each[what] for each in rounds]
            rows.append(row(case.name, what, name, values, **facts[name].get(what, {})))
        talk.note(told(rows[-3:]))
    return rows


def told(rows: Rows) -> str:
    """`base spatial, cpp: forward 410.2 ms, ...`"""
    times = ", ".join("%s %.4g ms" % (each["what"], each["median"] * 1e3) for each in rows)
    wrong = "" if all(each.get("right", True) for each in rows) else "  WRONG NUMBERS"
    return "%s, %s: %s%s" % (rows[0]["case"], rows[0]["who"], times, wrong)


def exact_results(case: Case) -> Tuple[Tensor, Optional[List[Tensor]]]:
    """Output and gradients by grid_sample in float64; None for the gradients of a case with weights."""
    inputs = [each.detach().double() for each in case.inputs]
    with torch.no_grad():
        out = case.compared(case.call(RESAMPLING, inputs))
    return out, gradients(case.part or case, RESAMPLING, inputs) if len(inputs) == 3 else None


def gradients(case: Case, backend: Backend, inputs: Sequence[Tensor]) -> List[Tensor]:
    leaves = [each.detach().requires_grad_() for each in inputs]
    out = case.call(backend, leaves)
    return list(torch.autograd.grad((out * _weight(out)).sum(), leaves))


def _weight(out: Tensor) -> Tensor:
    """What the output is multiplied by before it is summed, hence its gradient: neighbours differ, and every
    dtype has the same (7 bits), or what is compared would be its rounding.
    """
    even = torch.linspace(-1, 1, out.numel(), device=out.device, dtype=torch.float64).view_as(out)
    return even.to(torch.bfloat16).to(out.dtype)


def check(
    case: Case,
    backend: Backend,
    exact: Tensor,
    exact_gradients: Optional[List[Tensor]],
    bound: float,
    device: torch.device,
) -> Dict[str, Dict[str, Any]]:
    """What is known of a contender besides its times, by `what`."""
    with torch.no_grad():
        forward = error_of(case.compared(case.call(backend, case.inputs)), exact)
    facts = {"forward": dict(max_error=forward, bound=bound, right=forward <= bound)}
    if exact_gradients is not None:
        ours = gradients(case.part or case, backend, case.inputs)
        worst = max(error_of(*pair) for pair in zip(ours, exact_gradients))
        facts["training"] = dict(max_error=worst, bound=bound, right=worst <= bound)
        del ours
    else:
        facts["training"] = {}
    facts["training"].update(
        saved_mb=round(saved_b(case, backend) / 1e6, 3),
        peak_mb=round(peak_b(lambda: _train(case, backend), device) / 1e6, 2),
    )
    return facts


def error_of(ours: Tensor, exact: Tensor) -> float:
    """The largest difference in units of the largest number; infinite where one is no number."""
    apart = float((ours.double() - exact).abs().max()) / max(float(exact.abs().max()), 1e-30)
    return float("%.3g" % apart) if apart == apart else float("inf")


def saved_b(case: Case, backend: Backend) -> int:
    """Bytes that wait for the backward pass, beyond the inputs."""
    there = nn.Module()
    for place, tensor in enumerate((*case.inputs, *case.held)):
        there.register_buffer("t%d" % place, tensor)
    saved = SavedBytes(there)
    with saved.counting("all"):
        case.call(backend, case.inputs)
    return saved.total


def peak_b(work: Callable[[], object], device: torch.device) -> int:
    if device.type != "cuda":
        return allocated_peak_b(work)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device) - before)


def _train(case: Case, backend: Backend) -> List[Tensor]:
    out = case.call(backend, case.inputs)
    return list(torch.autograd.grad(out, case.inputs, torch.ones_like(out), allow_unused=True))


def _run(case: Case, backend: Backend, device: torch.device) -> Callable[[], Dict[str, float]]:
    """One round of a contender: seconds by what was done.

    What it made is let go when the clock has stopped: the allocator may take that as the occasion to give the
    kernel back what the contender before has left.  10 MB of grid_sample's took half a millisecond, as long
    as another's whole attention.
    """
    made: List[Any] = []

    def infer() -> None:
        with torch.no_grad():
            made.append(case.call(backend, case.inputs))

    def forward() -> None:
        made.append(case.call(backend, case.inputs))

    def backward() -> None:
        out = made[-1]
        made.append(torch.autograd.grad(out, case.inputs, torch.ones_like(out), allow_unused=True))

    def run() -> Dict[str, float]:
        try:
            inferred = seconds_of(infer, device, True)
            made.clear()
            first, second = (seconds_of(work, device, True) for work in (forward, backward))
        finally:
            made.clear()
        return {"forward": inferred, "training": first + second, "backward": second}

    return run


def ratios(rows: Rows, device: torch.device) -> Rows:
    found: Rows = []
    for case in dict.fromkeys(each["case"] for each in rows):
        kind = " ".join(case.split()[1:])
        for what in ("forward", "training", "backward"):
            for name in NAMES[1:]:
                goal = GOALS.get((device.type, kind, what)) if name == "cpp" else None
                found += ratio(rows, case, what, name, BASELINE, goal)
    return found
