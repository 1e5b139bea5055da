"""Targets for a terminal: the table of all, and everything about one."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bevrepro.env import evidence
from bevrepro.env.target import Target

LEVEL_STYLES = {"ran-on-gpu": "bold green", "ran-on-cpu": "bold green", "compiled": "green", None: "yellow"}


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """One line per target. Not cut where stdout is no terminal: it may be searched."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    table = Table(box=None, pad_edge=False)
    for name in ("target", "hardware", "stack", "Python", "torch", "evidence"):
        table.add_column(name, overflow="fold", no_wrap=name in ("target", "evidence"))
    for row in rows:
        table.add_row(
            Text(row["name"], "bold"),
            ", ".join(row["hardware"]),
            row["stack"],
            ", ".join(row["python"]),
            Text(row["torch"] or "-"),
            Text(row["evidence"], LEVEL_STYLES.get(row["level"], "")),
        )
    console.print(table)


def print_target(target: Target) -> None:
    """Every key of the target that says something, then what gave way, then the evidence."""
    console = Console(highlight=False)
    console.print(Text(f"{evidence.named(target)}: {target.title}", "bold"))
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=14, no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for key, value in facts(target):
        table.add_row(key, Text(value))
    console.print(table)
    _print_gave_way(console, target)
    _print_evidence(console, target)


def facts(target: Target) -> Iterator[tuple[str, str]]:
    """(key, what the target says), in the order a reader asks."""
    hardware, cuda = target.hardware, target.cuda
    yield "hardware", ", ".join([hardware.kind, *hardware.gpus])
    if hardware.architectures:
        yield "architectures", ", ".join(hardware.architectures)
    if hardware.minimum_driver:
        yield "driver", f"{hardware.minimum_driver} or newer"
    yield "stack", target.stack
    yield "Python", ", ".join(target.python)
    yield "torch", target.torch_requirement or "-"
    if cuda:
        yield "CUDA compiler", f"{cuda.version}, TORCH_CUDA_ARCH_LIST={cuda.arch_list}"
    yield "requirements", "\n".join(target.requirements)
    if target.lock.cutoff:
        late = [f"{name} until {day}" for name, day in (target.lock.cutoff_of or {}).items()]
        yield "cutoff", ", ".join([target.lock.cutoff, *late])
    if target.lock.overrides:
        yield "overrides", "\n".join(target.lock.overrides)
    if target.build.sdists:
        yield "built here", ", ".join(target.build.sdists)
    if target.patches:
        yield "patches", ", ".join(target.patches)
    if target.environment:
        yield "environment", "\n".join(f"{key}={value}" for key, value in target.environment.items())
    yield "self-test", ", ".join(target.selftest)
    yield "disk", f"{target.disk_gib:g} GiB"
    yield "source", f"{target.source} ({target.checked})"


def _print_gave_way(console: Console, target: Target) -> None:
    if target.gave_way:
        console.print(Text("\nWhat gave way", "bold"))
    for each in target.gave_way:
        console.print(Text(f"  {each.pin} -> {each.instead}: {each.why}"))


def _print_evidence(console: Console, target: Target) -> None:
    console.print(Text("\nEvidence, weakest first", "bold"))
    for each in evidence.in_order(target):
        style = LEVEL_STYLES.get(each.level, "")
        console.print(Text(f"  {each.level}  ", style), Text(f"{each.date}, {each.on}\n    $ {each.command}"))
    for level in evidence.missing(target):
        console.print(Text(f"  not shown: {level} ({evidence.MEANING[level]})", "yellow"))
