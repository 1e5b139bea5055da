"""`python -m bevformer.bench --plot FILE.png JSON...`: bars of every contender, a panel per number."""

import io
import math
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from .atomic import write_whole
from .bench_compare import amount
from .bench_read import read
from .errors import ConfigError, UserError
from .talk import Talk

BASELINES = ("grid_sample", "plain", "float", "none")  # grey: what the others are measured against
GREY, COLOURS = "#9a9a9a", ("#2a6fbb", "#d9772b", "#3f9b57", "#b5428a", "#7a5cc0", "#3aa6a6", "#8a6d3b")
PANEL_W, BAR_H, TITLE_H, SHEET_TITLE_H = 4.2, 0.24, 0.5, 0.6  # inches
ENDINGS = (".png", ".svg", ".pdf")
DPI, MOST_PIXELS = 110, 2**16  # a side of a picture, at most
Row = Mapping[str, Any]
Panel = Tuple[str, str, List[Row]]  # case, what, rows


def plot(out: str, paths: Sequence[str], talk: Talk) -> int:
    """Raises ConfigError for a file name that is no picture's or more rows than one holds, UserError where
    nothing can be drawn.
    """
    if not out.lower().endswith(ENDINGS):
        raise ConfigError(
            "--plot %s" % out, "The picture's name comes first.", "Let it end in " + " or ".join(ENDINGS)
        )
    if not paths:
        raise ConfigError("--plot %s names no file to draw" % out, do="Add files that `bench --out` wrote.")
    documents = [read(path) for path in paths]
    try:
        figure = draw(documents)
    except ImportError as error:
        raise UserError(
            "nothing can be drawn here: %s" % error,
            "Plots need matplotlib.",
            "Install it in this environment: pip install matplotlib",
        ) from error
    drawn = io.BytesIO()
    figure.savefig(drawn, format=out.rsplit(".", 1)[1].lower(), dpi=DPI)
    write_whole(out, lambda stream: stream.write(drawn.getvalue()))
    talk.note("Wrote %s" % out)
    talk.result(out=out, files=list(paths))
    return 0


def draw(documents: Sequence[Mapping[str, Any]]) -> Any:
    """A matplotlib figure; documents below each other, whats side by side.  ConfigError for too many rows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    blocks = [(each, bands(each["rows"])) for each in documents]
    columns = max((len(band) for _, found in blocks for band in found), default=1)
    height = sum(SHEET_TITLE_H + sum(map(band_height, found)) for _, found in blocks) + 0.2
    width = PANEL_W * columns + 0.3
    if DPI * max(width, height) >= MOST_PIXELS:
        raise ConfigError(
            "%d rows are too much for one picture" % sum(len(each["rows"]) for each in documents),
            do="Draw fewer files at once.",
        )
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    top = 0.1
    for document, found in blocks:
        title, below = heading(document)
        figure.text(0.15 / figure.get_figwidth(), 1 - (top + 0.2) / height, title, fontsize=11, weight="bold")
        figure.text(0.15 / figure.get_figwidth(), 1 - (top + 0.42) / height, below, fontsize=8, color="#555")
        top += SHEET_TITLE_H
        colours = colours_of(document["rows"])
        for band in found:
            for column, panel in enumerate(band):
                _panel(figure, panel, column, top, height, colours)
            top += band_height(band)
    return figure


def bands(rows: Sequence[Row]) -> List[List[Panel]]:
    """Per case one line of panels, one for every number of it."""
    found: Dict[str, Dict[str, List[Row]]] = {}
    for each in rows:
        found.setdefault(each["case"], {}).setdefault(each["what"], []).append(each)
    return [[(case, what, group) for what, group in whats.items()] for case, whats in found.items()]


def band_height(band: Sequence[Panel]) -> float:
    return TITLE_H + BAR_H * max(len(rows) for _, _, rows in band)


def heading(document: Mapping[str, Any]) -> Tuple[str, str]:
    """`bench ops on NVIDIA H200`, and date, torch and commit."""
    host, versions = document.get("host") or {}, document.get("versions") or {}
    machine = host.get("gpu") or "%s, threads: %s" % (host.get("cpu") or "CPU", host.get("threads"))
    words = [str(document.get("time", ""))[:10], "torch %s" % versions.get("torch")]
    if document.get("commit"):
        words.append(
            "commit %s%s" % (document["commit"][:9], " with changes" if document.get("dirty") else "")
        )
    return plain("bench %s on %s" % (document["kind"], machine)), plain(", ".join(words))


def plain(text: str) -> str:
    """For matplotlib, which takes what is between dollars for a formula and refuses halves of a character."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("$", r"\$")


def colours_of(rows: Sequence[Row]) -> Dict[str, str]:
    """The same contender has the same colour in all panels."""
    names = [name for name in dict.fromkeys(each["who"] for each in rows) if name not in BASELINES]
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}


def _panel(
    figure: Any, panel: Panel, column: int, top: float, height: float, colours: Dict[str, str]
) -> None:
    case, what, rows = panel
    width, own = figure.get_figwidth(), BAR_H * len(rows)
    left, right = (column * PANEL_W + 1.55) / width, 0.85 / width
    rectangle = (left, 1 - (top + 0.3 + own) / height, PANEL_W / width - 1.55 / width - right, own / height)
    axes = figure.add_axes(rectangle)
    values = [float(each["median"]) for each in rows]
    limit = 1.05 * max([value for value in values if math.isfinite(value)] + [1e-12])
    axes.set_xlim(0, limit)
    places = list(range(len(rows)))[::-1]
    axes.barh(places, values, height=0.72, color=[colours.get(each["who"], GREY) for each in rows])
    for place, each, value in zip(places, rows, values):
        low, high = (min(float(each.get(key, value)), limit) for key in ("low", "high"))
        axes.plot([low, high], [place, place], color="black", linewidth=0.9)
        wrong = "  wrong!" if each.get("right") is False else ""
        axes.text(
            max(value, high),
            place,
            plain("  %s%s" % (amount(value, each["unit"]), wrong)),
            va="center",
            fontsize=8,
        )
    axes.set_yticks(places)
    axes.set_yticklabels([plain(each["who"]) for each in rows], fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xticks([])
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_title(plain("%s: %s" % (case, what)), fontsize=9, loc="left")
