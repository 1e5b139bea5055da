"""The doctor's report for a terminal: a line per family, its findings below, one sentence at the end."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bevrepro.core.finding import Finding, Severity
from bevrepro.doctor.summary import NOTHING_KNOWN

ORDER = (Severity.FAIL, Severity.WARN, Severity.INFO)
STYLES = {Severity.FAIL: "bold red", Severity.WARN: "bold yellow", Severity.INFO: "bold blue"}
MARKS = {Severity.FAIL: "✗", Severity.WARN: "!", Severity.INFO: "i"}
GOOD, UNKNOWN = ("✓", "bold green"), ("?", "dim")
ASCII = str.maketrans({"✓": "+", "✗": "x"})  # for terminals that are not UTF-8
INDENT = " " * 14  # where the findings' text begins


def print_report(lines: Mapping[str, str], findings: Sequence[Finding], title: str) -> None:
    """Print to stdout. `lines`: family -> what it is, in the report's order."""
    console = Console(highlight=False)
    console.print(Text(f"bevrepro doctor: {title}", style="bold"))
    for family, line in lines.items():
        _print_family(console, family, line, [each for each in findings if each.family == family])
    closing = closing_line(findings, _shown(console, MARKS[Severity.FAIL]))
    if lines and not findings and all(line == NOTHING_KNOWN for line in lines.values()):
        closing = Text(f"{closing.plain.rpartition(':')[0]}: nothing is known.", style="bold yellow")
    console.print(closing)


def closing_line(findings: Sequence[Finding], fail_mark: str = MARKS[Severity.FAIL]) -> Text:
    """`1 failure, 2 warnings and 1 note: ...`"""
    counts = {severity: sum(each.severity is severity for each in findings) for severity in ORDER}
    fails, warns, notes = (counts[severity] for severity in ORDER)
    told = f"{_count(fails, 'failure')}, {_count(warns, 'warning')}, {_count(notes, 'note')}"
    if fails:
        return Text(f"{told}: mend what is marked {fail_mark} first.", style="bold red")
    if warns:
        return Text(f"{told}: it will work, not everything equally well.", style="bold yellow")
    return Text(f"{told}: ready.", style="bold green")


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _print_family(console: Console, family: str, line: str, findings: Sequence[Finding]) -> None:
    row = _grid(1, 9)
    mark, style = _family_mark(line, findings)
    row.add_row(Text(_shown(console, mark), style), Text(family, "bold"), Text(line))
    console.print(row)
    for finding in sorted(findings, key=lambda each: ORDER.index(each.severity)):
        print_finding(console, finding)


def _shown(console: Console, mark: str) -> str:
    return mark.translate(ASCII) if console.options.ascii_only else mark


def _family_mark(line: str, findings: Sequence[Finding]) -> tuple[str, str]:
    """The worst severity; where nothing was found, whether anything is known at all."""
    for severity in ORDER:
        if any(each.severity is severity for each in findings):
            return MARKS[severity], STYLES[severity]
    return UNKNOWN if line == NOTHING_KNOWN else GOOD


def print_finding(console: Console, finding: Finding) -> None:
    """What was seen, why it matters, what to do; commands as they can be pasted."""
    row = _grid(11, 1)
    text = Text(f"{finding.seen} ")
    text.append(f"[{finding.id}]", "dim")
    row.add_row("", Text(_shown(console, MARKS[finding.severity]), STYLES[finding.severity]), text)
    row.add_row("", "", Text(finding.why, "dim"))
    if finding.remedy:
        row.add_row("", "", Text(finding.remedy))
    console.print(row)
    # Outside the grid and never wrapped: each can be pasted as it stands.
    for command in finding.commands:
        console.print(Text(f"{INDENT}$ {command}", "cyan"), soft_wrap=True)
    for link in finding.links:
        console.print(Text(f"{INDENT}{link}", "dim"), soft_wrap=True)


def _grid(*widths: int) -> Table:
    grid = Table.grid(padding=(0, 1))
    for width in widths:
        grid.add_column(width=width)
    grid.add_column(ratio=1, overflow="fold")
    return grid
