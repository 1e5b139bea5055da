"""Symbolic links of an environment: which of them leave it, or lead nowhere."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from bevrepro.core.finding import Finding, Severity
from bevrepro.env.tree import Entry

# To the interpreter beneath, and to the machine's own g++ that nvcc was given.
TOOLKIT = "cuda/"  # Debian's gcc has links to packages that are not needed
OUTWARD = ("bin/python", "cuda/host/")


def judge_links(entries: Mapping[str, Entry], root: Path) -> Iterator[Finding]:
    """Findings about links; the interpreter's and the host compiler's may lead outside."""
    for path, entry in entries.items():
        if entry.link is None:
            continue
        where = os.path.realpath(root / path)
        if where != str(root) and not where.startswith(f"{root}/"):
            if not path.startswith(OUTWARD):
                yield _fail("outside", f"{path} is a link out of the environment, to {entry.link}",
                            "What lies there can change without a trace.")  # fmt: skip
        if not os.path.exists(where) and not path.startswith(TOOLKIT):
            yield _fail("dangling", f"{path} is a link to {entry.link}, which is not there",
                        "Whatever it stood for is gone.")  # fmt: skip


def _fail(kind: str, seen: str, why: str) -> Finding:
    return Finding(f"verify-link-{kind}", "verify", Severity.FAIL, seen, why, "Build the environment again.")
