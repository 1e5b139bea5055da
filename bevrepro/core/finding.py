"""What a check says: a value that is judged, printed and written to JSON elsewhere."""

from dataclasses import dataclass
from enum import Enum


class Severity(str, Enum):
    """`fail`: the commands of bevrepro will break here. `warn`: something will. `info`: good to know."""

    FAIL = "fail"
    WARN = "warn"
    INFO = "info"


@dataclass(frozen=True)
class Finding:
    """One thing that a check has to say about a machine."""

    id: str  # stable: scripts and issues refer to it
    family: str
    severity: Severity
    seen: str  # values and paths
    why: str  # what it leads to
    remedy: str
    commands: tuple[str, ...] = ()  # can be pasted one by one
    links: tuple[str, ...] = ()
    fixable: bool = False  # `doctor --fix` may do it: reversible, in the user's own files
