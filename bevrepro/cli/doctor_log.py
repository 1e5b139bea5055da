"""`bevrepro doctor --from-log`: what broke, for a terminal or as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from bevrepro.core.machine import Machine
    from bevrepro.doctor.logs.explain import Explanation

QUOTED_AT_MOST = 4
WIDEST_QUOTE = 160


def explain_log(path: str, as_json: bool, machine: "Machine") -> int:
    """Print what the log (a file, or - for standard input) says broke. 1 where something did, else 0."""
    from bevrepro.doctor.logs.explain import explain_file, explain_piped

    found = explain_piped(machine) if path == "-" else explain_file(Path(path), machine)
    if as_json:
        _print_json(path, found)
    else:
        _print(Console(highlight=False), path, found)
    return 1 if found else 0


def _print_json(path: str, found: "Sequence[Explanation]") -> None:
    from bevrepro.core.codec import to_json

    root = found[0].id if found else None
    failures = [{**to_json(each), "fires_here": each.fires_here} for each in found]  # null is an answer, too
    print(json.dumps({"log": path, "root": root, "failures": failures}, indent=1))


def _print(console: Console, path: str, found: "Sequence[Explanation]") -> None:
    name = "standard input" if path == "-" else path
    if not found:
        console.print(Text(f"{name}: no known failure in it.", style="bold green"), soft_wrap=True)
        return
    console.print(Text(f"{name}: {found[0].title} [{found[0].id}]", style="bold"), soft_wrap=True)
    for index, each in enumerate(found):
        _print_one(console, each, root=index == 0)


def _print_one(console: Console, each: "Explanation", root: bool) -> None:
    console.print()
    head = Text("root cause: " if root else "also: ", style="bold red" if root else "dim")
    head.append(f"{each.title} ", "bold")
    head.append(f"[{each.id}], {_lines(each.lines)}; {each.because}", "dim")
    console.print(head, soft_wrap=True)
    for line in each.quoted[:QUOTED_AT_MOST]:
        console.print(Text(f"    | {line[:WIDEST_QUOTE]}", "yellow" if root else "dim"), soft_wrap=True)
    if not root and each.explained_by:
        return
    console.print(Text(f"  {each.cause}"))
    if each.fix:
        console.print(Text(f"  {each.fix}"))
    for command in each.commands:
        console.print(Text(f"    $ {command}", "cyan"), soft_wrap=True)
    for line in _here(each):
        console.print(Text(f"  {line}", "dim"), soft_wrap=True)
    for link in each.links:
        console.print(Text(f"    {link}", "dim"), soft_wrap=True)


def _lines(numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    return f"line {first}" if first == last else f"lines {first} to {last}"


def _here(each: "Explanation") -> list[str]:
    """Whether it would happen on this machine, and what foresees it elsewhere."""
    told = []
    if each.fires_here:
        told.append(f"It would happen here too ({', '.join(each.checks)}).")
    elif each.checks:
        told.append(f"This machine passes: {', '.join(each.checks)}.")
    if each.unknown and not each.fires_here:
        told.append(f"Not known of this machine: what {', '.join(each.unknown)} would look at.")
    told += [f"{command} foresees this: {', '.join(checks)}." for command, checks in each.foreseen.items()]
    return told or ["No check of the doctor foresees this."]
