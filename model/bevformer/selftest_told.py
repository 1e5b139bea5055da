"""What a check of the self-test says: what it found, that there is nothing to check, or what is wrong."""

from dataclasses import dataclass, field
from typing import Any, Dict, List


@dataclass(frozen=True)
class Told:
    """`said` in one line; `rows` for who wants the numbers, all with the same keys."""

    said: str
    rows: List[Dict[str, Any]] = field(default_factory=list)


class Wrong(Exception):
    """A check that ran and gave other than it should.  `rows` as in Told."""

    def __init__(self, said: str, rows: Any = ()) -> None:
        super().__init__(said)
        self.rows = list(rows)


class Absent(Exception):
    """What would be checked is not installed."""
