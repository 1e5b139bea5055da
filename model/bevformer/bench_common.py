"""What every benchmark writes and how it measures: one schema, so that any two files compare and draw alike.

A document has a header (`begin`: command, date, commit, hardware, versions, load) and rows.  A row is one
number of one contender:

    {"case": "base spatial", "what": "forward", "who": "cpp", "unit": "s", "median": 0.41, "low": 0.40,
     "high": 0.43, "all": [...], ...}

low and high are quartiles of `all`; smaller is better for every unit but those in MORE_IS_BETTER.  Whatever
else a kind knows of a row (`max_error`, `peak_mb`, ...) lies beside.  ratios: `against` / `who`, above 1 when
`who` is better.  absent: contenders that did not run, and why.
"""

import argparse
import functools
import json
import os
import re
import statistics
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, TypeVar

import torch

from .atomic import write_atomically
from .config import PRESETS, Config
from .errors import ConfigError, UserError
from .memory import OutOfMemory, give_back, is_out_of_memory
from .provenance import code_record
from .record import host_summary, now_text, versions
from .talk import Talk

SCHEMA = "bevformer-bench/1"
KINDS = ("ops", "step", "loader", "memory", "infer")
MORE_IS_BETTER = ("frames/s", "samples/s")
CONTENDERS = ("triton", "mmcv", "deformops", "simplejpeg", "scipy", "cv2")
WAIT_CYCLES = 4_000_000  # of a GPU's clock: about two milliseconds
Work = Callable[[], Any]
T = TypeVar("T")
After = Callable[[Dict[str, List[T]]], None]


@dataclass(frozen=True)
class Protocol:
    """warm_up: rounds that do not count.  repeats: rounds at most.  seconds: no new round after that long."""

    warm_up: int = 1
    repeats: int = 7
    seconds: float = 60.0
    least: int = 3  # rounds, also where they take longer

    def told(self) -> Dict[str, Any]:
        order = "contenders take turns in one process, each round in the opposite order"
        return dict(warm_up=self.warm_up, repeats=self.repeats, seconds=self.seconds, order=order)


def add_options(parser: argparse.ArgumentParser, presets: Sequence[str] = ("tiny",)) -> None:
    """--preset, --device, --threads, --repeats, --seconds, --out: the same for all kinds."""
    parser.add_argument("--preset", nargs="+", default=list(presets), metavar="NAME", help="base, tiny, ...")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--threads", type=int, help="default: torch's own choice")
    parser.add_argument("--repeats", type=int, default=7, help="rounds of each case, at most")
    parser.add_argument("--seconds", type=float, default=60.0, help="no new round of a case after that long")
    parser.add_argument("--out", metavar="FILE", help="default: stdout")


def check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Protocol:
    """What `add_options` added: set the threads, and refuse what cannot be.  Raises ConfigError."""
    for name in ("threads", "repeats"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error("--%s has to be at least 1" % name)
    device_of(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    return Protocol(repeats=args.repeats, seconds=args.seconds, least=min(3, args.repeats))


def device_of(name: str) -> torch.device:
    """Raises ConfigError for one that torch does not have here."""
    if name not in ("cpu", "cuda"):
        raise ConfigError("--device %s" % name, do="It is cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "--device cuda, but torch sees no GPU",
            "This is torch %s." % torch.__version__,
            "Leave --device out, or see `bevrepro doctor`.",
        )
    return torch.device(name)


def preset_of(name: str) -> Config:
    """`base` or `bevformer_base`.  Raises ConfigError naming the known ones."""
    full = name if name.startswith("bevformer_") else "bevformer_" + name
    if full not in PRESETS:
        known = ", ".join(each[len("bevformer_") :] for each in PRESETS)
        raise ConfigError("unknown preset: %r" % name, do="Known presets: " + known)
    return PRESETS[full]()


def short_name(name: str) -> str:
    """`base` for bevformer_base."""
    return name[len("bevformer_") :] if name.startswith("bevformer_") else name


def begin(kind: str, argv: Sequence[str], device: torch.device, started_s: float) -> Dict[str, Any]:
    """The header.  Call it before measuring: it holds the load that others put on the machine.

    started_s: of time.monotonic.
    """
    code = code_record() or {}
    return {
        "schema": SCHEMA,
        "kind": kind,
        "command": " ".join(["python -m bevformer.bench", kind, *argv]),
        "time": now_text(),
        "commit": code.get("commit"),
        "dirty": code.get("dirty"),
        "host": host_summary(device),
        "versions": all_versions(),
        "load_1m_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "_started_s": started_s,
    }


def finish(
    header: Dict[str, Any],
    rows: Sequence[Dict[str, Any]],
    ratios: Sequence[Dict[str, Any]] = (),
    absent: Optional[Mapping[str, str]] = None,
    **more: Any,
) -> Dict[str, Any]:
    """The document; `more`: protocol, about, and whatever the kind adds."""
    result = {key: value for key, value in header.items() if not key.startswith("_")}
    result["seconds"] = round(time.monotonic() - header["_started_s"], 1)
    return dict(result, **more, absent=dict(absent or {}), ratios=list(ratios), rows=list(rows))


def all_versions() -> Dict[str, Optional[str]]:
    """Also of the contenders; None where one is not installed."""
    from importlib import metadata

    found: Dict[str, Optional[str]] = dict(versions())
    names = dict(cv2="opencv-python-headless")
    for name in CONTENDERS:
        try:
            found[name] = metadata.version(names.get(name, name))
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def seconds_of(work: Work, device: torch.device, queued: bool = False) -> float:
    """One run: the clock on a CPU, events around it on a GPU, so that nothing queued before is counted.

    queued: of a GPU's time alone; it is kept waiting while the work is queued up behind.
    """
    if device.type != "cuda":
        started_s = time.perf_counter()
        work()
        return time.perf_counter() - started_s
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    if queued:
        torch.cuda._sleep(WAIT_CYCLES)
    first.record()
    work()
    last.record()
    torch.cuda.synchronize(device)
    return float(first.elapsed_time(last)) / 1e3


def compete(
    works: Mapping[str, Work],
    device: torch.device,
    protocol: Protocol,
    lost: Optional[Dict[str, str]] = None,
    after: Optional[After[float]] = None,
) -> Dict[str, List[float]]:
    """Seconds of every round by contender; see `take_turns`."""
    runs = {name: functools.partial(seconds_of, work, device) for name, work in works.items()}
    return take_turns(runs, protocol, lost, after)


def take_turns(
    runs: Mapping[str, Callable[[], T]],
    protocol: Protocol,
    lost: Optional[Dict[str, str]] = None,
    after: Optional[After[T]] = None,
) -> Dict[str, List[T]]:
    """What every round returned, by contender: A, B, then B, A, ..., so that other load falls on all.

    lost: takes why a contender failed; the others go on without it.  Without `lost` the error is raised.
    after: told what there is so far after every round that counts.
    """
    found: Dict[str, List[T]] = {name: [] for name in runs}
    failed: Dict[str, str] = {} if lost is None else lost
    for _ in range(protocol.warm_up):
        _round(runs, list(found), {}, failed, lost is None)
    started_s = time.monotonic()
    for done in range(protocol.repeats):
        if done >= protocol.least and time.monotonic() - started_s > protocol.seconds:
            break
        _round(runs, list(found) if done % 2 == 0 else list(found)[::-1], found, failed, lost is None)
        if after is not None:
            after({name: values for name, values in found.items() if name not in failed})
    return {name: values for name, values in found.items() if name not in failed}


def _round(
    runs: Mapping[str, Callable[[], T]],
    names: Sequence[str],
    found: Dict[str, List[T]],
    failed: Dict[str, str],
    strict: bool,
) -> None:
    """One turn of each that has not failed; `found` keeps what they return for the names that it has."""
    for name in names:
        if name in failed:
            continue
        try:
            value = runs[name]()
        except Exception as error:  # told in `failed`: one contender is not the end of the others
            if strict:
                raise
            failed[name] = reason(error)
        else:
            found.get(name, []).append(value)
        if name in failed:  # only now does nothing hold the frames of what failed
            recover(name, failed[name])


class GpuLost(UserError):
    """An error of the GPU that stays, an illegal address for one: every later call of the process fails."""


def recover(who: str, why: str) -> None:
    """Give back what a contender that failed held.  Raises GpuLost where the GPU went with it: the others
    would fail in its place, and what is measured so far would be said to be theirs.
    """
    try:
        give_back()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except RuntimeError as error:
        raise GpuLost("%s broke the GPU for this process: %s" % (who, why)) from error


def reason(error: BaseException) -> str:
    """In one line, why a contender has no numbers."""
    if is_out_of_memory(error) or isinstance(error, OutOfMemory):
        return "out of memory"
    lines = str(error).strip().splitlines() or ["no words"]
    return "%s: %s" % (type(error).__name__, lines[0][:200])


def row(
    case: str, what: str, who: str, values: Sequence[float], unit: str = "s", **more: Any
) -> Dict[str, Any]:
    """One row of the schema; values in `unit`."""
    low, middle, high = quartiles(values)
    numbers = dict(median=middle, low=low, high=high, all=[_short(each) for each in values])
    return dict(dict(case=case, what=what, who=who, unit=unit), **numbers, **more)


def quartiles(values: Sequence[float]) -> List[float]:
    if len(values) < 2:
        return [_short(float(values[0]))] * 3
    return [_short(each) for each in statistics.quantiles(values, n=4, method="inclusive")]


def _short(value: float) -> float:
    """Five digits: more are noise."""
    return float("%.5g" % value)


def find(rows: Sequence[Mapping[str, Any]], case: str, what: str, who: str) -> Optional[Mapping[str, Any]]:
    for each in rows:
        if (each["case"], each["what"], each["who"]) == (case, what, who):
            return each
    return None


def ratio(
    rows: Sequence[Mapping[str, Any]],
    case: str,
    what: str,
    who: str,
    against: str,
    goal: Optional[float] = None,
) -> List[Dict[str, Any]]:
    """[one row of `ratios`], or [] where one of the two was not measured."""
    ours, theirs = (find(rows, case, what, name) for name in (who, against))
    if ours is None or theirs is None:
        return []
    times = theirs["median"] / ours["median"]
    if ours["unit"] in MORE_IS_BETTER:
        times = 1 / times
    made = dict(case=case, what=what, who=who, against=against, times=_short(times))
    return [made if goal is None else dict(made, goal=goal, met=times >= goal)]


def keep(result: Dict[str, Any], out: Optional[str]) -> None:
    """What there is so far, so that it stays where the rest is cut off."""
    if out:
        write_atomically(out, as_text(result))


def deliver(result: Dict[str, Any], out: Optional[str], talk: Talk) -> int:
    """The document to `out`, else to stdout; the exit code."""
    if out:
        keep(result, out)
        talk.note("Wrote %s" % out)
        talk.result(out=out, ratios=result.get("ratios", []))
    else:
        talk.result(**result)
    return 0


def as_text(result: Dict[str, Any]) -> str:
    """Indented JSON with every list of numbers on one line."""

    def joined(found: "re.Match[str]") -> str:
        return "[" + ", ".join(found.group(1).replace(",", " ").split()) + "]"

    return re.sub(r"\[\n([-+.\w\s,]*)\]", joined, json.dumps(result, indent=1)) + "\n"
