"""Comparing versions as they are found: `1.9.1+cu111`, `450.80.02`, `3.8`. None where one is unreadable."""

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
