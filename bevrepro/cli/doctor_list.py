"""`bevrepro doctor --list` and `--explain ID`."""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bevrepro.cli.doctor_formats import print_json
from bevrepro.cli.doctor_options import Wanted, refuse_format
from bevrepro.cli.doctor_view import print_finding
from bevrepro.core.codec import to_json
from bevrepro.core.finding import Finding
from bevrepro.core.machine import Machine
from bevrepro.doctor import explain as explaining
from bevrepro.doctor.diagnose import diagnose
from bevrepro.doctor.explain import Entry, Explanation, Failure
from bevrepro.doctor.registry import CHECKS
from bevrepro.doctor.select import select


def print_list(wanted: Wanted) -> None:
    """Every check, or those that --only and --skip leave."""
    entries = explaining.catalogue(select(explaining.every_check(), wanted.only, wanted.skip))
    if wanted.as_json:
        print_json({"checks": entries})
    elif wanted.format == "markdown":
        print(explaining.as_markdown(entries), end="")
    else:
        refuse_format(wanted, "--list", "markdown")
        _print_entries(entries)


def _print_entries(entries: Sequence[Entry]) -> None:
    console = Console(highlight=False)
    for family in dict.fromkeys(entry.family for entry in entries):
        console.print(Text(family, "bold"))
        table = Table.grid(padding=(0, 2))
        table.add_column(min_width=22, no_wrap=True)
        table.add_column(overflow="fold")
        for entry in (each for each in entries if each.family == family):
            table.add_row(Text(f"  {entry.id}"), Text(entry.looks_at + (" (--fix)" if entry.fixable else "")))
        console.print(table)


def print_explanation(wanted: Wanted, id: str, machine: Callable[[], Machine]) -> None:
    """One check, and what it says about `machine`; a check of paths has no machine to look at."""
    refuse_format(wanted, "--explain")
    broken = explaining.failure(id)
    if broken is not None:
        _print_failure(wanted, broken)
        return
    told = explaining.explain(id)
    checks = [check for check in CHECKS if check.id == id]
    here = diagnose(machine(), checks) if checks else None
    if wanted.as_json:
        fires = {} if here is None else {"here": to_json(here)}
        print_json({**to_json(told), **fires})
    else:
        _print_explanation(told, here)


def _print_failure(wanted: Wanted, failure: Failure) -> None:
    if wanted.as_json:
        print_json(to_json(failure))
        return
    console = Console(highlight=False)
    console.print(Text(f"{failure.id} (in logs): {failure.title}", "bold"))
    for part in (failure.cause, failure.fix):
        console.print(Text(part))
    for command in failure.commands:
        console.print(Text(f"$ {command}", "cyan"), soft_wrap=True)
    for link in failure.links:
        console.print(Text(link, "dim"), soft_wrap=True)
    console.print(Text(f"rests on {failure.source}", "dim"))
    for command in failure.foresight:
        console.print(Text(f"$ {command}", "cyan"), soft_wrap=True)


def _print_explanation(told: Explanation, here: tuple[Finding, ...] | None) -> None:
    console, entry = Console(highlight=False), told.entry
    console.print(Text(f"{entry.id} ({entry.family}): {entry.looks_at}", "bold"))
    console.print(Text(entry.why))
    for fact in told.facts:
        console.print(Text(f"rests on {fact}", "dim"))
    if entry.failures:
        console.print(Text(f"foresees, in logs: {', '.join(entry.failures)}"))
    for link in entry.links:
        console.print(Text(link, "dim"), soft_wrap=True)
    if entry.fixable:
        console.print(Text("bevrepro doctor --fix --dry-run   shows what can be done about it", "cyan"))
    console.print(Text(f"$ {told.command}", "cyan"), soft_wrap=True)
    if here is not None:
        console.print(Text("Here: " + ("it fires." if here else "nothing to say."), "bold"))
        for finding in here:
            print_finding(console, finding)
