"""A verdict as a section of the report: the word, the numbers on their band, causes and the next command."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bevrepro.drive.axes import round_ticks
from bevrepro.drive.recipes import recipes

COLOURS = {"pass": "#1a7f37", "not comparable": "#b35900"}
FAILED = "#b42318"
LEFT, RIGHT = 56, 16


def section(verdict: Mapping[str, Any] | None) -> str:
    """verdict.json as `reproduce` wrote it; "" without one."""
    if verdict is None:
        return ""
    word = str(verdict.get("word", "?"))
    colour = COLOURS.get(word, FAILED)
    head = (
        f'<p><b style="color:{colour};font-size:1.25rem">{escape(word.upper())}</b> '
        f"{escape(str(verdict.get('recipe')))}, {escape(str(verdict.get('kind')))}: "
        f"{escape(str(verdict.get('sentence')))}.</p>"
    )
    published = _published(verdict)
    bands = "".join(
        band_svg(name, value, verdict.get(f"wanted_{key}"), [pair[at] for pair in published], colour)
        for at, (name, key) in enumerate((("mAP", "map"), ("NDS", "nds")))
        if isinstance(value := verdict.get(key), float)
    )
    if bands and published:
        bands += '<p class="dim">Bar: what is wanted. Dots: what was published.</p>'
    causes = "".join(
        f"<li><b>{escape(str(cause.get('name')))}</b> "
        f'<span class="dim">({"recorded in" if cause.get("sure") else "looks like it from"} '
        f"{escape(str(cause.get('where')))})</span><br>{escape(str(cause.get('seen')))}</li>"
        for cause in verdict.get("causes") or ()
    )
    following = f"<p>Next:</p><pre>{escape(str(verdict['next']))}</pre>" if verdict.get("next") else ""
    return f"<h2>Verdict</h2>{head}{bands}{f'<ul>{causes}</ul>' if causes else ''}{following}"


def _published(verdict: Mapping[str, Any]) -> list[tuple[float, float]]:
    """(mAP, NDS) of what the band is made of."""
    known = next((each for each in recipes() if each.id == verdict.get("recipe")), None)
    if known is None:
        return []
    if str(verdict.get("kind", "")).startswith("train"):
        return list(known.trainings)
    return [(each.map, each.nds) for each in known.evaluations]


def band_svg(
    name: str, value: float, band: Sequence[float] | None, published: Sequence[float], colour: str
) -> str:
    """A line with the band, a dot for each published result and a mark for this one."""
    width, height, line = 900, 64, 34
    numbers = [value, *(band or ()), *published]
    spread = (max(numbers) - min(numbers)) or 0.01
    low, high = max(min(numbers) - 0.08 * spread, 0.0), max(numbers) + 0.08 * spread

    def x(number: float) -> float:
        return LEFT + (number - low) / (high - low) * (width - LEFT - RIGHT)

    ticks = "".join(
        f'<text x="{x(tick):.1f}" y="{height - 6}" text-anchor="middle">{tick:g}</text>'
        for tick in round_ticks(low, high)
        if low <= tick <= high
    )
    wanted = ""
    if band:
        wanted = (
            f'<rect x="{x(band[0]):.1f}" width="{max(x(band[1]) - x(band[0]), 2):.1f}" y="{line - 9}" '
            'height="18" rx="4" fill="#d6e6d9"/>'
        )
    dots = "".join(f'<circle cx="{x(one):.1f}" cy="{line}" r="3" fill="#5d6878"/>' for one in published)
    said = f"{value:.4f}" + (f", wanted {band[0]:.4f} to {band[1]:.4f}" if band else "")
    anchor = "start" if x(value) < width / 2 else "end"
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(name)} {escape(said)}" '
        'font-family="system-ui,sans-serif" font-size="12" fill="#5d6878">'
        f'<text x="0" y="{line + 4}" font-size="14" font-weight="600" fill="#1c2330">{escape(name)}</text>'
        f'{wanted}<line x1="{LEFT}" x2="{width - RIGHT}" y1="{line}" y2="{line}" stroke="#c8d0d9"/>{dots}'
        f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{line - 14}" y2="{line + 14}" '
        f'stroke="{colour}" stroke-width="3"/>'
        f'<text x="{x(value):.1f}" y="{line - 20}" text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="600">{escape(said)}</text>{ticks}</svg>'
    )
