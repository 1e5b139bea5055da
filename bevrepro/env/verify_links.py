"""Symbolic links of an environment: which of them leave it, or lead nowhere."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from bevrepro.core.finding import Finding, Severity
from bevrepro.env.tree import Entry

PYTHON = "bin/python"


def judge_links(entries: Mapping[str, Entry], root: Path, allowed: Mapping[str, str]) -> Iterator[Finding]:
    """`allowed`: where a link may lead outside, by its path; the interpreter's own links always may."""
    for path, entry in entries.items():
        if entry.link is None:
            continue
        where = os.path.realpath(root / path)
        if where != str(root) and not where.startswith(f"{root}/"):
            if not path.startswith(PYTHON) and os.path.realpath(allowed.get(path, "/nowhere")) != where:
                yield _fail("outside", f"{path} is a link out of the environment, to {entry.link}",
                            "What lies there can change without a trace.")  # fmt: skip
        if not os.path.exists(where):
            yield _fail("dangling", f"{path} is a link to {entry.link}, which is not there",
                        "Whatever it stood for is gone.")  # fmt: skip


def _fail(kind: str, seen: str, why: str) -> Finding:
    return Finding(f"verify-link-{kind}", "verify", Severity.FAIL, seen, why, "Build the environment again.")
