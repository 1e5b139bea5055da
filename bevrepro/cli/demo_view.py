"""What the demo says: each command before it runs, and the numbers at the end."""

import sys

from bevrepro.drive.demo import Summary
from bevrepro.drive.steps import Step

CLAIM = "not the demo's claim: it shows that the model learns, not that it generalises"


class Narrator:
    """Headings are talk (stderr); the closing summary is the product (stdout)."""

    def step(self, number: int, total: int, step: Step) -> None:
        bold, dim, plain = ("\x1b[1m", "\x1b[36m", "\x1b[0m") if sys.stderr.isatty() else ("", "", "")
        print(f"\n{bold}[{number}/{total}] {step.title}{plain}", file=sys.stderr)
        print(f"{dim}$ {step.text}{plain}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self, summary: Summary) -> None:
        """The closing summary."""
        print()
        for line in summary_lines(summary):
            print(line)


def summary_lines(summary: Summary) -> list[str]:
    """Both mAP values first, the report last."""
    values = (
        ("before training", summary.before),
        ("on the trained frames", summary.labelled),
        ("on the unlabelled frames between them", summary.between),
        ("on unseen scenes", summary.unseen),
    )
    lines = [f"mAP {where:<38}{_fixed(value)}" for where, value in values]
    lines[-1] += f"  ({CLAIM})"
    if summary.seconds_per_step:
        lines.append(f"Training took {summary.seconds_per_step:.3f} s per step, {summary.steps} steps.")
    minutes, seconds = divmod(round(summary.seconds), 60)
    lines.append(f"The demo took {minutes} min {seconds} s.")
    lines.append(f"Report: {summary.report}")
    return lines


def _fixed(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
