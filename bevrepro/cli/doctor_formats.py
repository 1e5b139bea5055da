"""Findings for other programs' eyes: JSON, annotations of a GitHub workflow, a list for an issue."""

import json
from collections.abc import Sequence
from typing import Any

from bevrepro.core.codec import to_json
from bevrepro.core.finding import Finding, Severity

LEVELS = {Severity.FAIL: "error", Severity.WARN: "warning", Severity.INFO: "notice"}


def print_json(data: dict[str, Any]) -> None:
    """To stdout; dataclasses inside become objects."""
    print(json.dumps(to_json(data), indent=1))


def print_findings(format: str, title: str, findings: Sequence[Finding]) -> None:
    """To stdout, as `github` or `markdown`."""
    print(github(findings) if format == "github" else markdown(title, findings))


def fails(findings: Sequence[Finding], strict: bool) -> bool:
    """Whether the exit code is 1."""
    bad = (Severity.FAIL, Severity.WARN) if strict else (Severity.FAIL,)
    return any(finding.severity in bad for finding in findings)


def github(findings: Sequence[Finding]) -> str:
    """One workflow command per finding; a sentence where there is none."""
    lines = [
        f"::{LEVELS[each.severity]} title={_property(f'bevrepro doctor {each.id}')}::{_message(each)}"
        for each in findings
    ]
    return "\n".join(lines) or "bevrepro doctor: nothing found"


def markdown(title: str, findings: Sequence[Finding]) -> str:
    """A heading and a list that can be pasted into an issue."""
    lines = [f"### bevrepro doctor: {title}", ""]
    if not findings:
        return "\n".join([*lines, "Nothing found."])
    for each in findings:
        lines.append(f"- **{each.severity.value}** `{each.id}` {_plain(each.seen)}  ")
        lines.append(f"  {_plain(each.why)} {_plain(each.remedy)}".rstrip())
        lines += [f"  `{command}`" for command in each.commands]
        lines += [f"  <{link}>" for link in each.links]
    return "\n".join(lines)


def _message(finding: Finding) -> str:
    parts = (f"{finding.seen}.", finding.why, finding.remedy, *(f"$ {each}" for each in finding.commands))
    return (
        "\n".join(part for part in parts if part)
        .replace("%", "%25")
        .replace("\r", "%0D")
        .replace("\n", "%0A")
    )


def _property(text: str) -> str:
    """Values of properties also end at a colon or a comma."""
    for character, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"), (":", "%3A"), (",", "%2C")):
        text = text.replace(character, code)
    return text


def _plain(text: str) -> str:
    """What was found on a machine is text, not markup."""
    for character in "\\`*_<>[]|":
        text = text.replace(character, "\\" + character)
    return text
