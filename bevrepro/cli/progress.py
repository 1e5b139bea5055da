"""Show a child's events: a progress bar on a terminal, plain lines elsewhere. All of it is talk: stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from bevrepro.drive.launch import Event, OnEvent, debugging

PLAIN_EVERY_S = 10.0


@contextmanager
def shown(title: str = "") -> Iterator[OnEvent]:
    """Give `run_model` an `on_event` that draws; everything is finished when the block is left.

    >>> with shown("synth") as on_event:
    ...     run_model("synth", ["OUT"], on_event=on_event)
    """
    if sys.stderr.isatty() and not debugging():  # a bar would overwrite the debugger's prompt
        with _rich_bars(title) as on_event:
            yield on_event
    else:
        yield _PlainLines(title)


@contextmanager
def _rich_bars(title: str) -> Iterator[OnEvent]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def on_event(event: Event) -> None:
            if event["event"] == "progress":
                name = str(event["task"])
                if name not in tasks:
                    tasks[name] = bars.add_task(escape(name), total=event["total"], text="")
                bars.update(
                    tasks[name],
                    completed=event["done"],
                    total=event["total"],
                    text=escape(str(event.get("text", ""))),
                )
            elif event["event"] == "note":
                bars.console.print(str(event["text"]), markup=False, highlight=False)

        yield on_event


class _PlainLines:
    """A line at the start and the end of a task and every ten seconds between, with the time left."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._last_s: dict[str, float] = {}
        self._first: dict[str, tuple[float, int]] = {}

    def __call__(self, event: Event) -> None:
        if event["event"] == "note":
            print(event["text"], file=sys.stderr)
        elif event["event"] == "progress" and self._due(event):
            text = f"{event['task']} {event['done']}/{event['total']} {event.get('text', '')}".rstrip()
            text += self._eta(event)
            print(text, file=sys.stderr, flush=True)

    def _due(self, event: Event) -> bool:
        name, now_s = str(event["task"]), time.monotonic()
        last_s = self._last_s.get(name)
        if last_s is None or now_s - last_s >= PLAIN_EVERY_S or event["done"] == event["total"]:
            self._last_s[name] = now_s
            return True
        return False

    def _eta(self, event: Event) -> str:
        """`  eta 1:02:03` from the pace since the task's first event; nothing at its ends."""
        name, now_s, done, total = (
            str(event["task"]),
            time.monotonic(),
            int(event["done"]),
            int(event["total"]),
        )
        start_s, first = self._first.setdefault(name, (now_s, done))
        if done <= first or done >= total:
            return ""
        return f"  eta {timedelta(seconds=round((now_s - start_s) / (done - first) * (total - done)))}"
