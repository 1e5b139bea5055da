"""Errors a person can act on.  A traceback never reaches a user: `__main__` turns these into a sentence.

The exit codes are those of the command line (`bevrepro/core/errors.py` lists the same numbers; a test
compares the two).
"""


class UserError(Exception):
    """Something the user can mend: what was seen, why it matters, what to do."""

    exit_code = 3

    def __init__(self, seen: str, why: str = "", do: str = "") -> None:
        super().__init__(seen)
        self.seen = seen
        self.why = why
        self.do = do

    def __str__(self) -> str:
        return "\n".join(part for part in (self.seen, self.why, self.do) if part)


class DataError(UserError):
    """An archive, table, image or infos file is missing, broken, or of another data set."""

    exit_code = 4


class ConfigError(UserError):
    """A preset, option or value that does not exist or cannot be honoured."""

    exit_code = 6


class CheckpointError(UserError):
    """A checkpoint that is missing, broken, or of another model."""

    exit_code = 7


class DiskError(UserError):
    """No space left, or a folder that cannot be written."""

    exit_code = 8


class ChildError(UserError):
    """Another process that this one works with ended or cannot be reached."""

    exit_code = 9
