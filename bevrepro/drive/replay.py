"""`replay`: repeat the first steps of a recorded run here, and say whether they come out the same.

The real `train` runs in a scratch folder from what run.json holds - configuration, seed, ranks, paths - and
is stopped after the wanted step; its log is compared with the recorded one, line by line. On the same
processor, threads and libraries every logged digit has to be the same. Elsewhere sums are rounded in another
order: each value of a line may differ by a share that grows with the steps (facts/replay.toml).
"""

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bevrepro import facts
from bevrepro.core.errors import ConfigError, DataError
from bevrepro.drive.inside import Inside, enter
from bevrepro.drive.launch import Event, OnEvent, run_model, target_python
from bevrepro.env.layout import resolve
from bevrepro.env.target import names
from bevrepro.probe.environment import probe_env

TINY = 1e-6  # the logs' last digit
SAME = {
    "host": ("cpu", "cpu_capability", "threads", "device", "gpu"),
    "versions": ("torch", "numpy", "cuda"),
    "operators": ("attention", "dcn"),
    "levers": ("channels_last", "folded_norms", "adamw"),
}
EQUAL, WITHIN, PARTS = "equal", "within tolerance", "parts"
NOT_COMPARED = ("epoch", "iter", "step", "time", "data_time", "memory")
# Of the recorded command: with a value, flags; the rest comes from run.json or is this machine's.
KEPT = ("--init-from", "--amp", "--memory", "--allow")
KEPT_FLAGS = ("--deterministic", "--allow-partial-init", "--amp")
NEWER = "Replay it with that version: its settings are not all known to this one."
Line = Mapping[str, Any]


@dataclass(frozen=True)
class Replayed:
    """`word`: EQUAL, WITHIN or PARTS. `first` to `step`: the steps of the first line that parts.
    `differs`: what the bits depend on and is not as it was; () makes the promise bitwise."""

    word: str
    compared_lines: int
    steps: int
    worst_share: float
    differs: tuple[str, ...]
    precision: str = "fp32"
    step: int | None = None
    first: int | None = None
    quantity: str | None = None
    then: float | None = None
    now: float | None = None

    @property
    def promise(self) -> str:
        if not self.differs:
            return "to every logged digit"
        row = _tolerances(self.precision)
        told = [f"{share:g} up to step {step}" for step, share in row["up_to_step"]]
        return f"within {', '.join(told)}, {row['beyond']:g} beyond"


def _tolerances(precision: str) -> facts.Row:
    return facts.row("replay", "elsewhere-fp64" if precision == "fp64" else "elsewhere")


def allowed(step: int, name: str, precision: str = "fp32") -> float:
    """The share by which a value of the line that ends with `step` may differ elsewhere."""
    row = _tolerances(precision)
    if name == "lr":
        return float(row["rate"])
    return float(next((share for last, share in row["up_to_step"] if step <= last), row["beyond"]))


class _Enough(Exception):
    """The wanted step is done."""


def replay(
    path: Path,
    steps: int = 20,
    data_root: Sequence[str] = (),
    infos: Path | None = None,
    gpus: int | None = None,
    tell: OnEvent = lambda event: None,
    target: str | None = None,
) -> Replayed:
    """Of a run.json or its folder, in the environment of `target`, or in that of the run where it is still
    here. DataError where it lacks what a replay needs."""
    file = path / "run.json" if path.is_dir() else path
    run, lines = _recorded(file), train_lines(file.parent)
    if not lines:
        raise DataError(
            f"there is no log with a step beside {file}",
            "The losses of the run are in <time>.log.json there.",
            "Copy the whole work folder; checkpoints are not needed.",
        )
    steps = reach(lines, steps)
    gpus = _gpus(run, gpus)
    inside = enter(target, gpus) if target else as_then(run, gpus, tell)
    if inside is not None:
        tell({"event": "note", "text": f"In {inside.title}"})
        gpus = inside.gpus
    with tempfile.TemporaryDirectory(prefix="bevrepro-replay-") as folder:
        scratch = Path(folder)
        (scratch / "config.json").write_text(json.dumps(run["config"]), encoding="utf-8")
        argv = train_argv(run, scratch, data_root, infos, gpus)
        try:
            _train(argv, steps, tell, inside)
        except DataError as error:
            if data_root and infos:
                raise
            do = "Name where they are on this machine with --data-root and --infos."
            raise DataError(error.seen, "run.json has the paths as they were typed then.", do) from error
        except ConfigError as error:
            raise ConfigError(error.seen, _written_by(run), error.do or NEWER) from error
        again = _object(scratch / "work" / "run.json")
        _require_same_data(run, again)
        kind = str((run.get("precision") or {}).get("kind") or "fp32")
        return judge(lines, train_lines(scratch / "work"), differing(run, again), steps, kind)


def as_then(run: Mapping[str, Any], gpus: int | None, tell: OnEvent) -> Inside | None:
    """The environment that the run names, where there is one of that target here; None where it is the one
    that is taken anyway, or $BEVREPRO_PYTHON names another."""
    told = ((run.get("sessions") or [{}])[0].get("environment")) or {}
    name, place = str(told.get("target") or ""), Path(str(told.get("prefix") or "/")).parent
    ours = probe_env(Path(target_python()).parent.parent).target
    if not name or name == ours or os.environ.get("BEVREPRO_PYTHON"):
        return None
    builds = place.name.endswith(".builds")
    for prefix in ([place.with_name(place.name.removesuffix(".builds"))] if builds else []) + [None]:
        if name in names() and resolve(prefix, name).link is not None:
            return enter(name, gpus, prefix)
    here = f"It ran in {name}, which is not here; this is {ours}."
    tell({"event": "note", "text": f"{here} To have it: bevrepro env build --target {name}"})
    return None


def _written_by(run: Mapping[str, Any]) -> str:
    """Which version wrote run.json, as far as it says."""
    session = next(iter(run.get("sessions") or ()), None) or {}
    version = (session.get("versions") or {}).get("bevformer")
    commit = (run.get("code") or {}).get("commit")
    told = [f"bevformer {version}"] if version else []
    told += [f"commit {str(commit)[:12]}"] if commit else []
    return f"run.json was written by {' at '.join(told)}." if told else "run.json does not say what wrote it."


def _recorded(file: Path) -> dict[str, Any]:
    run = _object(file)
    if "config" not in run or not _command(run):
        raise DataError(
            f"{file} is no run.json of a training",
            "A replay needs its configuration and the command that started it.",
            "Give the run.json in a work folder, or the folder.",
        )
    return run


def _object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _command(run: Mapping[str, Any]) -> list[str]:
    """What followed `train` when the run began."""
    first = next(iter(run.get("sessions") or ()), None) or {}
    words = [str(word) for word in first.get("command") or ()]
    return words[words.index("train") + 1 :] if "train" in words else []


def train_lines(folder: Path) -> list[Line]:
    """The logged training lines by step, later sessions winning."""
    by_step: dict[int, Line] = {}
    for path in sorted(folder.glob("*.log.json")):
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # the half line of a killed process
                continue
            if isinstance(line, dict) and line.get("mode") == "train" and isinstance(line.get("step"), int):
                by_step[line["step"]] = line
    return [by_step[step] for step in sorted(by_step)]


def reach(lines: Sequence[Line], wanted: int) -> int:
    """The first logged step from `wanted` on; the last one where the run was shorter."""
    steps = [int(line["step"]) for line in lines]
    return next((step for step in steps if step >= wanted), steps[-1])


def train_argv(
    run: Mapping[str, Any], scratch: Path, data_root: Sequence[str], infos: Path | None, gpus: int | None
) -> list[str]:
    """The recorded command with this machine's paths, all settings from run.json, in a scratch folder."""
    words = _command(run)
    roots = list(data_root) or _values(words, "--data-root")
    argv = [str(scratch / "config.json")]
    argv += [part for root in roots for part in ("--data-root", root)]
    argv += ["--infos", str(infos) if infos else (_values(words, "--infos") or [""])[-1]]
    argv += ["--work-dir", str(scratch / "work"), "--seed", str(run.get("seed") or 0), "--no-validate"]
    devices = _gpus(run, gpus)
    argv += ["--gpus", str(min(devices, 1))] if devices is not None else []
    world = (run.get("ranks") or {}).get("world")
    argv += ["--emulate-gpus", str(world)] if world else []
    for option in KEPT:
        argv += [part for value in _values(words, option)[-1:] for part in (option, value)]
    return argv + [flag for flag in KEPT_FLAGS if flag in words and flag not in argv]


def _gpus(run: Mapping[str, Any], asked: int | None) -> int | None:
    """As asked for, or as then; None where neither says."""
    then = _values(_command(run), "--gpus")[-1:]
    return asked if asked is not None else int(then[0]) if then else None


def _values(words: Sequence[str], option: str) -> list[str]:
    """What was given with an option, each time; not the next option."""
    found = [words[at + 1] for at, word in enumerate(words[:-1]) if word == option]
    found += [word.partition("=")[2] for word in words if word.startswith(option + "=")]
    return [value for value in found if not value.startswith("--")]


def _train(argv: Sequence[str], steps: int, tell: OnEvent, inside: Inside | None = None) -> None:
    """Until the step is done: leaving the stream ends the child."""

    def watch(event: Event) -> None:
        if event["event"] == "progress" and event.get("task") == "train":
            tell({**event, "task": "replay", "total": steps})
            if int(event["done"]) >= steps:
                raise _Enough
        else:
            tell(event)

    try:
        run_model("train", argv, on_event=watch, inside=inside)
    except _Enough:
        return


def _require_same_data(run: Mapping[str, Any], again: Mapping[str, Any]) -> None:
    then, now = (str(each.get("infos_digest") or "") for each in (run, again))
    if then != now:
        raise DataError(
            "the frames differ from those of the run",
            f"Digest {then[:12]}... then, {now[:12]}... now.",
            "Give the same data with --data-root and --infos.",
        )


def differing(run: Mapping[str, Any], again: Mapping[str, Any]) -> tuple[str, ...]:
    """`cpu: that one then, this one now` for whatever the bits depend on."""
    return tuple(_differing(run, again))


def _differing(run: Mapping[str, Any], again: Mapping[str, Any]) -> Iterator[str]:
    first, now = ((each.get("sessions") or [{}])[0] for each in (run, again))
    for group, keys in SAME.items():
        for key in keys:
            old, new = ((session.get(group) or {}).get(key) for session in (first, now))
            unsaid = old is None and key not in (first.get(group) or {})  # by an older version
            if old != new and not unsaid:
                yield f"{key}: {old} then, {new} now"
    workers = [(each.get("ranks") or {}).get("processes") or 1 for each in (run, again)]
    if workers[0] != workers[1]:
        yield f"processes: {workers[0]} then, {workers[1]} now"
    told, tells = (_ledger(each) for each in (run, again))
    yield from (f"{what}: then, not now" for what in told if what not in tells)
    yield from (f"{what}: now, not then" for what in tells if what not in told)


def _ledger(run: Mapping[str, Any]) -> list[str]:
    """Departures: another way to save memory rounds otherwise. Operators and levers are compared as such."""
    entries = (entry for entry in run.get("ledger") or () if isinstance(entry, dict))
    told = (entry for entry in entries if "lever" not in entry)
    return [str(entry.get("what")) for entry in told if entry.get("effect") != "identical"]


def judge(
    then: Sequence[Line], now: Sequence[Line], differs: Sequence[str], steps: int, precision: str = "fp32"
) -> Replayed:
    """Line by line until `steps`; the first that parts ends it."""
    ours = {int(line["step"]): line for line in now}
    word, worst, compared, start = EQUAL, 0.0, 0, 0
    for line in then:
        end = int(line["step"])
        if end > steps or end not in ours:
            break
        compared += 1
        name, share, excess = _furthest(line, ours[end], precision)
        worst = max(worst, share)
        if share and (not differs or excess > 1):
            values = (line.get(name), ours[end].get(name))
            parted = (end, start + 1, name, *values)
            return Replayed(PARTS, compared, steps, worst, tuple(differs), precision, *parted)
        word, start = WITHIN if share else word, end
    if not compared:
        raise DataError(
            f"the run and its replay have no logged step in common up to {steps}",
            "They were logged at other steps.",
            "Give more --steps.",
        )
    return Replayed(word, compared, steps, worst, tuple(differs), precision)


def _furthest(line: Line, other: Line, precision: str = "fp32") -> tuple[str, float, float]:
    """(the quantity that is furthest out, the share by which it differs, that in units of what is allowed
    elsewhere); 0: all are the same to the last digit."""
    worst, step = ("loss", 0.0, 0.0), int(line["step"])
    for key in [*line, *(key for key in other if key not in line)]:
        one, two = line.get(key), other.get(key)
        if key in NOT_COMPARED or one == two or not isinstance(one if one is not None else two, (int, float)):
            continue
        found = (key, 1.0, math.inf)  # one of them lacks it, or is no number
        if isinstance(one, (int, float)) and isinstance(two, (int, float)) and math.isfinite(one - two):
            share = abs(one - two) / max(abs(one), abs(two), TINY)
            found = (key, share, share / allowed(step, key, precision))
        worst = max(worst, found, key=lambda each: each[2])
    return worst
