"""`bevrepro doctor --from-log`: what broke, for a terminal or as JSON."""

import json
import sys
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
    from bevrepro.doctor.logs.explain import explain_file, explain_stream

    if path == "-":
        found = explain_stream(sys.stdin.buffer, machine)
    else:
        found = explain_file(Path(path), machine)
    if as_json:
        _print_json(path, found)
    else:
        _print(Console(highlight=False), path, found)
    return 1 if found else 0


def _print_json(path: str, found: "Sequence[Explanation]") -> None:
    from bevrepro.core.codec import to_json

    root = found[0].id if found else None
    print(json.dumps({"log": path, "root": root, "failures": to_json(tuple(found))}, indent=1))


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
    console.print(Text(f"  {_here(each)}", "dim"))
    for link in each.links:
        console.print(Text(f"    {link}", "dim"), soft_wrap=True)


def _lines(numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    return f"line {first}" if first == last else f"lines {first} to {last}"


def _here(each: "Explanation") -> str:
    if each.fires_here is None:
        return "No check of the doctor foresees this on a machine."
    checks = ", ".join(each.checks)
    return f"It would happen here too ({checks})." if each.fires_here else f"This machine passes: {checks}."
