"""A report as one HTML page: no script, nothing from outside, pictures inside; it prints well."""

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bevrepro.drive import verdict_html
from bevrepro.drive.axes import log_ticks, step_ticks
from bevrepro.drive.compare_html import section
from bevrepro.drive.report import CLASS_ERRORS, CLASSES, MEAN_ERRORS, Picture, Report, Score

EFFECTS = ("changes the result", "same statistics", "equal up to rounding", "identical")
CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
UNSEEN = (
    "The number on unseen scenes is printed beside the others for completeness. It is not the demo's claim: "
    "eight small training scenes teach the model to detect what it was shown, not to generalise."
)
CSS = """
:root{--ink:#1c2330;--dim:#5d6878;--line:#dfe4ea;--soft:#f5f7f9;--accent:#1f6feb}
*{box-sizing:border-box}
body{margin:0;background:#fff;color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:70rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .25rem}
h2{font-size:1.2rem;margin:2.5rem 0 .75rem;padding-bottom:.3rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1rem 0 .4rem}
p{margin:.4rem 0}.dim{color:var(--dim)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem;margin:1.25rem 0}
.card{border:1px solid var(--line);border-radius:.6rem;padding:.7rem .9rem;background:var(--soft)}
.card b{display:block;font-size:1.6rem;line-height:1.25;font-variant-numeric:tabular-nums}
.card span{color:var(--dim);font-size:.85rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left;white-space:normal}
thead th{color:var(--dim);font-weight:600}
table.facts td{text-align:left;white-space:normal;overflow-wrap:anywhere}
table.facts td:first-child{color:var(--dim);width:11rem}
pre{margin:0;padding:.8rem 1rem;background:var(--soft);border:1px solid var(--line);border-radius:.6rem;
white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.6 ui-monospace,Menlo,Consolas,monospace}
pre i{color:var(--dim);font-style:normal}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr));gap:0 2rem}
.pair th,.pair td{padding:.25rem .4rem;font-size:.88rem}
svg{width:100%;height:auto;display:block}
figure{margin:0 0 1.5rem}figure img{width:100%;height:auto;display:block;border:1px solid var(--line);
border-radius:.4rem}figcaption{color:var(--dim);font-size:.9rem;margin-top:.35rem;overflow-wrap:anywhere}
@media print{body{font-size:10.5pt}main{max-width:none;padding:0}h2{break-after:avoid}
figure,table,.card,svg,pre{break-inside:avoid}.card,pre{background:#fff}@page{margin:16mm}}
"""


def render(report: Report) -> str:
    """The whole page."""
    known = (report.run or {}).get("config_name") or (report.verdict or {}).get("recipe")
    name = str(known or report.work_dir.name)
    sections = (
        _header(name, report),
        _cards(report),
        verdict_html.section(report.verdict),
        _scores(report.scores),
        _loss(report.losses),
        section(report.comparison) if report.comparison is not None else "",
        _pictures(report.pictures),
        _classes(report.scores),
        _commands(report),
        _training(report.run),
        _machine(report),
        _gaps(report.gaps),
    )
    return page(f"{name}: bevrepro report", "\n".join(part for part in sections if part))


def page(title: str, body: str) -> str:
    """A whole page around `body`, which is HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{CSP}">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _header(name: str, report: Report) -> str:
    line = f"{escape(str(report.work_dir))} · {escape(report.made)} · bevrepro {escape(report.bevrepro)}"
    return f'<h1>{escape(name)}</h1><p class="dim">{line}</p>'


def _cards(report: Report) -> str:
    """The few numbers one looks for first."""
    run = report.run or {}
    scores = [score for score in report.scores if (score.name, score.subset) != ("before", "between")]
    shown = [(f"{score.mean_ap:.3f}", f"mAP, {score.title.lower()}") for score in scores[:4]]
    if isinstance(run.get("seconds_per_step"), float):
        shown.append((f"{run['seconds_per_step']:.3f} s", f"per step, {run.get('steps', '?')} steps"))
    if isinstance(run.get("peak_rss_gib"), float):
        shown.append((f"{run['peak_rss_gib']:.2f} GiB", "peak memory of the training"))
    cards = (
        f'<div class="card"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in shown
    )
    return f'<div class="cards">{"".join(cards)}</div>' if shown else ""


def _scores(scores: Sequence[Score]) -> str:
    if not scores:
        return ""
    head = ("frames", "mAP", "NDS", *MEAN_ERRORS, "frames scored")
    rows = [
        (
            score.title,
            _fixed(score.mean_ap),
            _fixed(score.nds),
            *(_fixed(score.errors.get(key)) for key in MEAN_ERRORS),
            f"{score.num_samples if score.num_samples is not None else '?'}"
            + (f" of {score.split}" if score.split else ""),
        )
        for score in scores
    ]
    note = f'<p class="dim">{UNSEEN}</p>' if any(score.name == "unseen" for score in scores) else ""
    by = '<p class="dim">Scored by nuscenes-devkit\'s own DetectionEval.</p>'
    return f"<h2>Scores</h2>{_table(head, rows)}{by}{note}"


def _classes(scores: Sequence[Score]) -> str:
    """The devkit's table per class, one for each set of frames (all zeros before training: left out)."""
    head = ("class", "AP", "ATE", "ASE", "AOE", "AVE", "AAE")
    tables = []
    for score in scores:
        rows = [
            (
                kind,
                _fixed(score.class_ap.get(kind)),
                *(_fixed(score.class_errors.get(kind, {}).get(key)) for key in CLASS_ERRORS),
            )
            for kind in CLASSES
            if kind in score.class_ap
        ]
        if rows and score.name != "before":
            tables.append(f"<div><h3>{escape(score.title)}</h3>{_table(head, rows)}</div>")
    return f'<h2>Per class</h2><div class="pair">{"".join(tables)}</div>' if tables else ""


def _loss(losses: Sequence[tuple[int, float]]) -> str:
    return f"<h2>Loss</h2>{loss_svg(losses)}" if len(losses) > 1 else ""


def loss_svg(losses: Sequence[tuple[int, float]], width: int = 900, height: int = 280) -> str:
    """Every logged value thin, their running mean thick; a logarithmic axis."""
    left, right, top, bottom = 52, 12, 10, 34
    steps, values = [step for step, _ in losses], [max(loss, 1e-9) for _, loss in losses]
    ticks = log_ticks(min(values), max(values))
    low, high = math.log(min(*values, *ticks)), math.log(max(*values, *ticks))
    first, last = steps[0], max(steps[-1], steps[0] + 1)

    def x(step: float) -> float:
        return left + (step - first) / (last - first) * (width - left - right)

    def y(loss: float) -> float:
        return height - bottom - (math.log(loss) - low) / ((high - low) or 1.0) * (height - top - bottom)

    def line(points: Sequence[float], style: str) -> str:
        path = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in zip(steps, points))
        return f'<polyline points="{path}" fill="none" {style}/>'

    grid = "".join(
        f'<line x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#e6eaef"/>'
        f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in ticks
    )
    marks = "".join(
        f'<text x="{x(step):.1f}" y="{height - 12}" text-anchor="middle">{step}</text>'
        for step in step_ticks(first, last)
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="training loss by step" '
        f'font-family="system-ui,sans-serif" font-size="12" fill="#5d6878">{grid}{marks}'
        + line(values, 'stroke="#a9c7f7" stroke-width="1"')
        + line(running_mean(values), 'stroke="#1f6feb" stroke-width="2"')
        + f'<text x="{width - right}" y="{height - 12}" text-anchor="end">step</text></svg>'
    )


def running_mean(values: Sequence[float], window: int = 9) -> list[float]:
    """The mean over up to `window` values centred on each."""
    half = window // 2
    parts = [values[max(0, at - half) : at + half + 1] for at in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def _pictures(pictures: Sequence[Picture]) -> str:
    figures = (
        f'<figure><img width="{picture.width}" height="{picture.height}" alt="{escape(picture.caption)}" '
        f'src="data:image/png;base64,{base64.b64encode(picture.png).decode()}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        for picture in pictures
    )
    return f"<h2>Pictures</h2>{''.join(figures)}" if pictures else ""


def _commands(report: Report) -> str:
    lines = (
        escape(command.text) + (f"  <i># {command.seconds:.0f} s</i>" if command.seconds is not None else "")
        for command in report.commands
    )
    return f"<h2>What ran</h2><pre>{chr(10).join(lines)}</pre>" if report.commands else ""


def _training(run: dict[str, Any] | None) -> str:
    if run is None:
        return ""
    code = run.get("code") or {}
    rows = [
        ("Configuration", run.get("config_name")),
        ("Status", run.get("status")),
        ("Seed", run.get("seed")),
        ("Steps", f"{run.get('steps', '?')} of {run.get('total_steps', '?')}"),
        ("Frames trained on", run.get("frames")),
        ("Code", f"{code['commit']}{' with local changes' if code.get('dirty') else ''}" if code else None),
        ("Frames' digest", run.get("infos_digest")),
        ("Weights' digest", run.get("weights_digest")),
        ("Sessions", len(run.get("sessions") or [])),
    ]
    return f"<h2>Training</h2>{_facts(rows)}{_ledger(run.get('ledger') or [])}"


def _ledger(entries: Sequence[Mapping[str, Any]]) -> str:
    """Every departure from the recipe, the gravest first."""
    rank = {effect: place for place, effect in enumerate(EFFECTS)}
    ordered = sorted(entries, key=lambda entry: rank.get(str(entry.get("effect")), -1))
    rows = [(str(entry.get("what")), f"{entry.get('effect')}: {entry.get('why')}") for entry in ordered]
    return "<h3>Departures from the recipe</h3>" + (_facts(rows) if rows else "<p>None.</p>")


def _machine(report: Report) -> str:
    rows: list[tuple[str, Any]] = [(family, line) for family, line in report.machine.items()]
    if report.environment is not None:
        count, digest = report.environment.count, report.environment.digest
        rows.append(("environment", f"{count} packages, sha256 {digest}"))
    return f"<h2>Machine</h2>{_facts(rows)}" if rows else ""


def _gaps(gaps: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(gap)}</li>" for gap in gaps)
    return f"<h2>Not in this report</h2><ul>{items}</ul>" if gaps else ""


def _facts(rows: Sequence[tuple[str, Any]]) -> str:
    cells = (
        f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>"
        for name, value in rows
        if value not in (None, "")
    )
    return f'<table class="facts"><tbody>{"".join(cells)}</tbody></table>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _fixed(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
