"""The report of `env verify` for a terminal."""

from rich.console import Console
from rich.text import Text

from bevrepro.cli.doctor_view import ORDER, print_finding
from bevrepro.core.units import size
from bevrepro.env.evidence import named_by
from bevrepro.env.verify import Report


def print_report(report: Report) -> None:
    """To stdout: what was looked at, each finding, one sentence at the end."""
    console = Console(highlight=False)
    target = named_by(report.target) if report.target else "no target"
    title = f"bevrepro env verify: {target}, Python {report.python or 'unknown'}"
    console.print(Text(title, style="bold"))
    console.print(Text(report.path), soft_wrap=True)
    count = f"{report.packages} packages, {report.files} files, {size(report.size_b)}"
    console.print(f"{count}, digest {report.digest[:16]}")
    for finding in sorted(report.findings, key=lambda each: ORDER.index(each.severity)):
        print_finding(console, finding)
    if report.clean:
        console.print(Text("Every file is as it was installed.", style="bold green"))
    else:
        console.print(Text("It is not what was built.", style="bold red"))
