"""The text of `bevrepro plan`."""

import textwrap
from typing import Any

from bevrepro.drive.plan import Judgement

WIDTH = 100  # columns of the explaining sentences
SMALLEST_GIB = 0.0005  # smaller parts are not shown


def lines(result: dict[str, Any], judgement: Judgement) -> list[str]:
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
        "",
        *textwrap.wrap(f"{memory['measured']} {memory['not_included']}", WIDTH),
        "",
        *textwrap.wrap(_verdict(result, judgement), WIDTH),
        *_smaller(result),
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


def _verdict(result: dict[str, Any], judgement: Judgement) -> str:
    taken = f"With fragmentation and CUDA's own memory it takes about {judgement.taken_gib:.1f} GiB of a GPU"
    if judgement.limit is None:
        return f"{taken}. No GPU was seen here: name one's memory with --gpu-memory GB."
    room = f"{judgement.limit.gib:.1f} GiB ({judgement.limit.source})"
    ends = {
        "fits": f"{taken}: it fits in {room}.",
        "close": f"{taken}: in {room} the tensors fit, what comes with them may not.",
        "too small": f"{taken}: it does not fit in {room}.",
    }
    return ends[str(judgement.verdict)]


def _smaller(result: dict[str, Any]) -> list[str]:
    if not result["smaller"]:
        return []
    limit_gib = result["limit_gib"]
    rows = [
        f"  {choice['peak_gib']:>7.2f} GiB {'fits' if choice['peak_gib'] <= limit_gib else '    '}  "
        f"{'and ' * bool(at)}{choice['what']}: --cfg-options {' '.join(choice['cfg_options'])}"
        for at, choice in enumerate(result["smaller"])
    ]
    return [
        "",
        "Smaller models, each with the changes before it. Their results are not the published ones.",
        *rows,
    ]
