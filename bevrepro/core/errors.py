"""One error class per cause, each with its exit code.

0 is success, 1 findings or a failed verdict, 2 wrong usage (typer's own), 130 interrupted by Ctrl-C.
`model/bevformer/errors.py` uses the same numbers; a test compares the two.
"""


class UserError(Exception):
    """Something the user can mend: what was seen, why it matters, what to do."""

    exit_code = 3

    def __init__(self, seen: str, why: str = "", do: str = "") -> None:
        super().__init__(seen)
        self.seen = seen
        self.why = why
        self.do = do


class MachineError(UserError):
    """This machine lacks a program or interpreter that the command needs."""

    exit_code = 3


class DataError(UserError):
    """An archive, table, image or infos file is missing, broken, or of another data set."""

    exit_code = 4


class MountError(UserError):
    """A mount could not be made, verified or removed."""

    exit_code = 5


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
    """A child process died in a way it could not explain itself (a signal, a traceback)."""

    exit_code = 9
