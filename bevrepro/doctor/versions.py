"""Comparing versions as they are found: `1.9.1+cu111`, `450.80.02`, `3.8`. None where one is unreadable."""

import re

from packaging.version import InvalidVersion, Version


def older(found: str | None, limit: str) -> bool | None:
    """Whether `found` comes before `limit`; a local part (`+cu111`) does not count."""
    if found is None:
        return None
    try:
        return Version(found.split("+")[0]) < Version(limit)
    except InvalidVersion:
        return None


def major(version: str | None) -> int | None:
    """`12` of `12.4`."""
    head = (version or "").split(".")[0]
    return int(head) if head.isdigit() else None


def kernel_older(release: str | None, limit: str) -> bool | None:
    """The same of a kernel's release: `5.15.167.4-microsoft-standard-WSL2`, `4.18.0-553.el8_10.x86_64`."""
    numbers = re.match(r"\d+(\.\d+)+", release or "")
    return older(numbers[0], limit) if numbers else None
