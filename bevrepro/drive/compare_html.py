"""A comparison as a section of the report, and as a page of its own: curves laid over each other."""

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from bevrepro.core.paths import atomic_write_text
from bevrepro.drive.axes import log_ticks, round_ticks
from bevrepro.drive.compare import Comparison, Row, thinned

TITLES = {"loss": "Loss", "lr": "Learning rate", "grad_norm": "Gradient norm"}
COLOURS = ("#1f6feb", "#d1570b")
MAX_POINTS = 600
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 10, 30


def write_page(found: Comparison, path: Path) -> None:
    """The section on a page that needs nothing else."""
    from bevrepro.drive.report_html import page

    atomic_write_text(path, page("Comparison", f"<h1>Comparison</h1>{section(found)}"))


def section(found: Comparison) -> str:
    """Which is which, where they part, the curves, a table, and what the records say differently."""
    names = "".join(
        f'<p><span style="color:{colour}">&#9632;</span> {side}: {escape(series.path)} '
        f'<span class="dim">({escape(series.kind)}, {len(series.points)} logged lines)</span></p>'
        for side, colour, series in zip("AB", COLOURS, (found.left, found.right))
    )
    parts = {each.quantity: each.at for each in found.partings}
    curves = "".join(
        f"<h3>{title}</h3>{curve}"
        for name, title in TITLES.items()
        if (curve := overlay(found.rows, name, parts.get(name, "")))
    )
    return (
        f"<h2>Compared step by step</h2>{names}{_partings(found)}{curves}{_table(found)}{_different(found)}"
    )


def _partings(found: Comparison) -> str:
    if found.equal:
        words = f"No quantity parts at {found.common} common places (tolerance {found.tolerance:g})."
        return f"<p><b>{words}</b></p>"
    lines = [
        f"<b>{escape(TITLES[each.quantity])}</b> parts first at <b>{escape(each.at)}</b>: "
        f"{each.left:.6g} and {each.right:.6g}"
        for each in found.partings
    ]
    lines += [escape(note) for note in found.notes]
    return "<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"


def overlay(rows: Sequence[Row], name: str, parts_at: str = "", width: int = 900, height: int = 220) -> str:
    """Both sides' curve of one quantity, with a mark where it parts; "" where not both logged it.
    Logarithmic where it spans much."""
    known = [row for row in rows if _plain(row.left.get(name)) and _plain(row.right.get(name))]
    known = thinned(known, MAX_POINTS, [parts_at])
    if len(known) < 2:
        return ""
    sides = [[row.left[name] for row in known], [row.right[name] for row in known]]
    low, high = min(map(min, sides)), max(map(max, sides))
    logarithmic = low > 0 and high > 20 * low
    ticks = log_ticks(low, high) if logarithmic else round_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def x(at: int) -> float:
        return LEFT + at * (width - LEFT - RIGHT) / (len(known) - 1)

    def y(value: float) -> float:
        return height - BOTTOM - _share(value, low, high, logarithmic) * (height - TOP - BOTTOM)

    def line(values: Sequence[float], colour: str, dashes: str) -> str:
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in enumerate(values))
        return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dashes}/>'

    grid = "".join(
        f'<line x1="{LEFT}" x2="{width - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#e6eaef"/>'
        f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in ticks
    )
    places = [row.at for row in known]
    mark = _mark(x(places.index(parts_at)), height, width) if parts_at in places else ""
    lines = line(sides[0], COLOURS[0], "") + line(sides[1], COLOURS[1], ' stroke-dasharray="5 3"')
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(TITLES[name])} of both" '
        f'font-family="system-ui,sans-serif" font-size="12" fill="#5d6878">{grid}'
        f"{_labels(places, x, height)}{mark}{lines}</svg>"
    )


def _labels(places: Sequence[str], x: Callable[[int], float], height: int) -> str:
    """The first, some between, the last."""
    last = len(places) - 1
    shown = dict.fromkeys(round(last * share / 4) for share in range(5))
    anchors = {0: "start", last: "end"}
    return "".join(
        f'<text x="{x(at):.1f}" y="{height - 8}" text-anchor="{anchors.get(at, "middle")}">'
        f"{escape(places[at])}</text>"
        for at in shown
    )


def _mark(x: float, height: int, width: int) -> str:
    """A line with a word on the side where there is room."""
    side, anchor = (-6, "end") if x > width / 2 else (6, "start")
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}" stroke="#b42318" '
        f'stroke-dasharray="2 2"/><text x="{x + side:.1f}" y="{height - BOTTOM - 6}" text-anchor="{anchor}" '
        'fill="#b42318">parts here</text>'
    )


def _plain(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _share(value: float, low: float, high: float, logarithmic: bool) -> float:
    if high <= low:
        return 0.5
    if logarithmic:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _table(found: Comparison) -> str:
    names = [name for name in TITLES if any(name in row.left or name in row.right for row in found.rows)]
    head = "".join(f"<th>{TITLES[name]} {side}</th>" for name in names for side in "AB")
    parted = {each.at for each in found.partings}
    body = "".join(
        f"<tr><td>{escape(row.at)}{' &larr; parts' if row.at in parted else ''}</td>"
        + "".join(f"<td>{_cell(side.get(name))}</td>" for name in names for side in (row.left, row.right))
        + "</tr>"
        for row in thinned(found.rows, 12, list(parted))
    )
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.5g}"


def _different(found: Comparison) -> str:
    if not found.differences:
        return "" if found.equal else '<p class="dim">The records say nothing different.</p>'
    items = "".join(f"<li>{escape(each)}</li>" for each in found.differences)
    return f"<h3>What is different (A | B)</h3><ul>{items}</ul>"
