"""Two runs side by side: learning rate, loss and gradient norm step by step, and the first that parts."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bevrepro.drive.series import QUANTITIES, Point, Series

TOLERANCE = 1e-3  # of the larger value
DIGITS = 1e-6  # our logs' last; a text log has four after the point
TEXT_DIGITS = 6e-5
LR_DIGITS = 6e-4  # of its value: mmcv prints four digits of the rate


@dataclass(frozen=True)
class Parting:
    """Where a quantity of the two is first different. `at`: a step, or epoch and place in it."""

    quantity: str
    at: str
    left: float
    right: float
    share: float  # of the larger one


@dataclass(frozen=True)
class Row:
    """Both at one place. None: not logged there."""

    at: str
    left: Mapping[str, float]
    right: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """`common` places were logged by both. `partings`: one per quantity that parts, the earliest first."""

    left: Series
    right: Series
    common: int
    rows: tuple[Row, ...]
    partings: tuple[Parting, ...]
    differences: tuple[str, ...]  # of configuration, data, code, machine
    notes: tuple[str, ...]
    tolerance: float

    @property
    def equal(self) -> bool:
        """Whether nothing parts in what both logged."""
        return self.common > 0 and not self.partings


def compare(left: Series, right: Series, tolerance: float = TOLERANCE) -> Comparison:
    """Aligned by epoch and place where both count so, else by step."""
    pairs = list(_aligned(left, right))
    rows = tuple(Row(at, one.values, other.values) for at, one, other in pairs)
    found = [each for name in QUANTITIES if (each := _first(name, rows, tolerance, left, right))]
    order = [row.at for row in rows]
    found.sort(key=lambda each: order.index(each.at))
    return Comparison(
        left,
        right,
        len(rows),
        rows,
        tuple(found),
        tuple(differences(left, right, rows)),
        tuple(_notes(left, right, rows)),
        tolerance,
    )


def _aligned(left: Series, right: Series) -> Iterator[tuple[str, Point, Point]]:
    if left.by_epoch and right.by_epoch and _epochs_agree(left, right):
        ours, theirs = left.places(), right.places()
        for place in sorted(set(ours) & set(theirs)):
            yield f"epoch {place[0]} iteration {place[1]}", ours[place], theirs[place]
        return
    steps, others = left.steps(), right.steps()
    for step in sorted(set(steps) & set(others)):
        yield f"step {step}", steps[step], others[step]


def _epochs_agree(left: Series, right: Series) -> bool:
    """Of equal length, or one of them does not say."""
    return None in (left.per_epoch, right.per_epoch) or left.per_epoch == right.per_epoch


def _first(name: str, rows: Sequence[Row], tolerance: float, left: Series, right: Series) -> Parting | None:
    """The first row where `name` is further apart than the tolerance and the logs' digits."""
    text = any(series.kind.endswith(".log") for series in (left, right))
    for row in rows:
        if name not in row.left or name not in row.right:
            continue
        one, other = row.left[name], row.right[name]
        largest = max(abs(one), abs(other))
        share = LR_DIGITS if name == "lr" else 0.0
        allowed = max(tolerance, share) * largest + (0.0 if name == "lr" else TEXT_DIGITS if text else DIGITS)
        if one != one or other != other:
            if (one != one) != (other != other):
                return Parting(name, row.at, one, other, float("inf"))
        elif abs(one - other) > allowed:
            return Parting(name, row.at, one, other, abs(one - other) / largest)
    return None


def differences(left: Series, right: Series, rows: Sequence[Row]) -> Iterator[str]:
    """Why they may part: what the records say differently, then what the numbers themselves show."""
    if left.run is not None and right.run is not None:
        yield from _of_records(left.run, right.run)
    else:
        yield from _of_headers(left, right)
    yield from _of_rates(rows)
    if left.per_epoch and right.per_epoch and left.per_epoch != right.per_epoch:
        yield (
            f"{left.per_epoch} steps per epoch against {right.per_epoch}: "
            "another batch in total, or other data"
        )


def _of_records(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """Two run.json: what changes the result first."""
    yield from leaves(one.get("config"), other.get("config"), "config")
    for key, what in (
        ("seed", "seed"),
        ("infos_digest", "data (digest of the frames)"),
        ("frames", "frames"),
        ("effective_batch", "effective batch"),
        ("ranks", "ranks"),
        ("init_from", "initial weights"),
        ("random_scheme", "random scheme"),
    ):
        yield from _leaf(what, one.get(key), other.get(key))
    codes = [(each.get("code") or {}) for each in (one, other)]
    yield from _leaf("code", *(_commit(code) for code in codes))
    sessions = [(each.get("sessions") or [{}])[0] for each in (one, other)]
    for group in ("versions", "host"):
        yield from leaves(sessions[0].get(group) or {}, sessions[1].get(group) or {}, group)


def _commit(code: Mapping[str, Any]) -> str | None:
    commit = code.get("commit")
    return (
        None if commit is None else f"{str(commit)[:12]}{' with local changes' if code.get('dirty') else ''}"
    )


def leaves(one: Any, other: Any, path: str) -> Iterator[str]:
    """`config.schedule.lr: 0.001 | 0.002` for every leaf that differs."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            yield from leaves(one.get(key), other.get(key), f"{path}.{key}")
        return
    yield from _leaf(path, one, other)


def _leaf(what: str, one: Any, other: Any) -> Iterator[str]:
    if one != other:
        yield f"{what}: {_short(one)} | {_short(other)}"


def _short(value: Any) -> str:
    text = "unknown" if value is None else str(value)
    if re.fullmatch("[0-9a-f]{40,}", text):  # a digest
        return f"{text[:12]}..."
    return text if len(text) <= 60 else f"{text[:57]}..."


def _of_headers(left: Series, right: Series) -> Iterator[str]:
    """A run against a log: what the log's header tells, in run.json's words."""
    ours, theirs = _told(left), _told(right)
    for key in ours:
        if ours[key] is not None and theirs.get(key) is not None and str(ours[key]) != str(theirs[key]):
            yield f"{key}: {_short(ours[key])} | {_short(theirs[key])}"


def _told(series: Series) -> dict[str, Any]:
    run, about = series.run, series.about
    if run is None:
        samples, gpus = about.get("samples_per_gpu"), about.get("gpus")
        batch = samples * gpus if isinstance(samples, int) and isinstance(gpus, int) and gpus > 1 else None
        return {"learning rate": about.get("lr"), "queue": about.get("queue_length"), "batch": batch,
                "seed": about.get("seed"), "torch": about.get("torch")}  # fmt: skip
    config = run.get("config") or {}
    versions = ((run.get("sessions") or [{}])[0]).get("versions") or {}
    return {"learning rate": (config.get("schedule") or {}).get("lr"),
            "queue": (config.get("data") or {}).get("queue_length"), "batch": run.get("effective_batch"),
            "seed": run.get("seed"), "torch": versions.get("torch")}  # fmt: skip


def _of_rates(rows: Sequence[Row]) -> Iterator[str]:
    """A rate that is the same multiple of the other's everywhere is another base rate."""
    ratios = [row.left["lr"] / row.right["lr"] for row in rows if row.left.get("lr") and row.right.get("lr")]
    if len(ratios) > 2 and max(ratios) - min(ratios) < 2 * LR_DIGITS * max(ratios) < abs(ratios[0] - 1):
        yield f"the learning rate is {ratios[0]:.3g} times the other's at every step: another base rate"


def _notes(left: Series, right: Series, rows: Sequence[Row]) -> Iterator[str]:
    for side, series in (("A", left), ("B", right)):
        if series.dropped:
            runs = f"{series.dropped + 1} runs one after another"
            yield f"{side} holds {runs}: the last one is compared"
    if not rows:
        yield "no step was logged by both: nothing could be compared"
    gaps = [_every(series) for series in (left, right)]
    if rows and None not in gaps and gaps[0] != gaps[1]:
        yield (
            f"every line is a mean over {gaps[0]} steps in A and over {gaps[1]} in B: "
            "losses differ a little for that alone"
        )


def _every(series: Series) -> int | None:
    """Steps between logged lines."""
    places = [point.place for point in series.points[:2]]
    return places[1] - places[0] if len(places) == 2 and places[1] > places[0] else None


def thinned(rows: Sequence[Row], count: int, keep: Sequence[str] = ()) -> list[Row]:
    """About `count` rows, evenly, with the first, the last and those named in `keep`."""
    if len(rows) <= count:
        return list(rows)
    picked = {round(at * (len(rows) - 1) / (count - 1)) for at in range(count)}
    return [row for at, row in enumerate(rows) if at in picked or row.at in keep]
