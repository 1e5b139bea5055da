"""The text of `bevrepro plan`."""

import textwrap
from typing import Any

from bevrepro.drive.pace import Pace, rows_of, samples_of
from bevrepro.drive.plan import Judgement

WIDTH = 100  # columns of the explaining sentences
SMALLEST_GIB = 0.0005  # smaller parts are not shown
MANY = 8  # devices of the published recipes


def lines(result: dict[str, Any], judgement: Judgement, pace: Pace | None = None) -> list[str]:
    """The model plane's `plan` and what was judged of it, for a terminal."""
    memory = result["memory"]
    return [
        f"{result['config']}: a training step takes {memory['peak_gib']:.2f} GiB at its worst moment, "
        f"in the {memory['worst_phase']}",
        *_phases(memory),
        "",
        f"What that moment is made of, in GiB, with {_samples(memory)} per device:",
        *(f"  {part:<44}{gib:>9.3f}" for part, gib in _by_size(memory["parts_gib"])),
        *([f"DCNv2 operator: {memory['dcn_backend']}"] if memory["dcn_backend"] else []),
        *([f"Attention: {memory['attention_backend']}"] if memory.get("attention_backend") else []),
        "",
        *_ladder(result),
        *_others(result),
        "",
        *textwrap.wrap(f"{memory['measured']} {memory['not_included']}", WIDTH),
        "",
        *textwrap.wrap(_verdict(result, judgement), WIDTH, break_on_hyphens=False),
        *(["", *_time(result, pace)] if pace else []),
    ]


def _phases(memory: dict[str, Any]) -> list[str]:
    history = memory["queue_length"] - 1
    names = {"history": f"history ({history} frame{'s' * (history != 1)}, one by one)"}
    return [f"  {names.get(name, name):<44}{gib:>9.3f}" for name, gib in memory["phases_gib"].items()]


def _samples(memory: dict[str, Any]) -> str:
    return f"{memory['samples']} sample{'s' * (memory['samples'] != 1)}"


def _by_size(parts: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(
        ((part, gib) for part, gib in parts.items() if gib >= SMALLEST_GIB), key=lambda pair: -pair[1]
    )


def _ladder(result: dict[str, Any]) -> list[str]:
    """Every rung that leaves the result as it is; a star where it is chosen."""
    chosen = result["chosen"] or []
    rows = [
        f"{'*' if row['name'] in chosen else ' '} {row['name']:<16}{row['peak_gib']:>7.2f} GiB  "
        f"{row['effect']}: {row['what']}"
        for row in result["rungs"]
    ]
    plain = f"  {'(none)':<16}{result['memory']['peak_gib']:>7.2f} GiB"
    return ["What would take less, each with those above it (* chosen):", plain, *rows]


def _others(result: dict[str, Any]) -> list[str]:
    if not result["others"]:
        return []
    rows = [
        f"  {row['name']:<16}{row['peak_gib']:>7.2f} GiB  {row['effect']}: {row['what']} ({row['ask']})"
        for row in result["others"]
    ]
    return [
        "",
        "With all of these and what changes the result, never chosen, each with those above it:",
        *rows,
    ]


def _verdict(result: dict[str, Any], judgement: Judgement) -> str:
    taken = f"With fragmentation and what kernels and CUDA take it is about {judgement.taken_gib:.1f} GiB"
    if judgement.limit is None:
        return f"{taken}. No GPU was seen here: name one's memory with --gpu-memory GB."
    room = f"{judgement.limit.gib:.1f} GiB ({judgement.limit.source})"
    names = ",".join(result["chosen"] or [])
    effects = {row["effect"] for row in result["rungs"] if row["name"] in (result["chosen"] or [])}
    same = "to the bit" if effects == {"identical"} else "up to rounding"
    ends = {
        "fits": f"{taken}: it fits in {room}.",
        "rungs": f"It fits in {room} with --memory {names}, which leaves the result as it is, {same}. "
        f"{taken}. --memory auto, the default, takes them one by one when memory runs out.",
        "close": f"With all rungs that leave the result as it is the tensors fit in {room}; what comes with "
        f"them may not: about {judgement.taken_gib:.1f} GiB together.",
        "too small": f"It does not fit in {room}: with all rungs that leave the result as it is, it takes "
        f"about {judgement.taken_gib:.1f} GiB.",
    }
    return ends[str(judgement.verdict)]


def _time(result: dict[str, Any], pace: Pace) -> list[str]:
    """Samples per second and days; `unknown` where nobody knows."""
    samples = samples_of(result["schedule"])
    speed, one, many = pace.samples_per_s(), pace.days(samples), pace.days(samples, MANY)
    if speed is None or one is None or many is None:
        said = f"Time on {pace.device or 'that GPU'}: unknown; {pace.evidence}."
        rest = [
            f"  known of the reference's code: {row['gpu']} {row['low_s']:g}-{row['high_s']:g} s per sample"
            for row in rows_of(result["config"])
            if result["as_published"]
        ]
        return [*textwrap.wrap(said, WIDTH), *rest]
    said = f"Time on {pace.device}: {_span(speed)} samples per second, {_days(one)}"
    said += f" for the recipe's {samples} samples"
    if "CPU" not in pace.device:
        said += f" on one, {_days(many)} on {MANY} (if loading keeps up)"
    if result["chosen"] and not result.get("pace"):
        said += "; without the chosen rungs, which run parts of a step again"
    return textwrap.wrap(f"{said}. Evidence: {pace.evidence}.", WIDTH)


def _span(pair: tuple[float, float]) -> str:
    low, high = (f"{value:.2g}" for value in pair)
    return low if low == high else f"{low}-{high}"


def _days(pair: tuple[float, float]) -> str:
    if max(pair) < 1:
        hours = _span((pair[0] * 24, pair[1] * 24))
        return f"{hours} hours"
    return f"{_span(pair)} days"
