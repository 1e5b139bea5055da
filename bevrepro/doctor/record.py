"""A machine as a file: `--record` writes it without names of people and folders, `--replay` reads it back."""

import getpass
import json
import os
import re
import socket
from pathlib import Path
from typing import Any

from bevrepro.core.codec import from_json, to_json
from bevrepro.core.errors import DataError
from bevrepro.core.machine import SCHEMA, Machine
from bevrepro.core.paths import atomic_write_text
from bevrepro.core.units import MIB, size

LARGEST_B = 8 * MIB  # a record has some ten KiB
# A stranger's record is no terminal's master; nor does it turn the direction of writing.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
SHORTEST_NAME = 3  # replacing a user called "u" would spoil every word


def save(machine: Machine, path: Path) -> None:
    """Write the record, scrubbed; DiskError when it cannot be written."""
    atomic_write_text(path, json.dumps(scrub(to_json(machine)), indent=1) + "\n")


def load(path: Path) -> Machine:
    """Read a record; DataError when it is none."""
    remedy = "Make one with: bevrepro doctor --record host.json"
    try:
        data = json.loads(_read(path, remedy), parse_constant=_no_number)
    except OSError as error:
        raise DataError(f"could not read {path}: {error.strerror}", do=remedy) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}", do=remedy) from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else None
        raise DataError(
            f"{path} is no record of a machine that this bevrepro can read (schema {found}, not {SCHEMA})",
            do=remedy,
        )
    try:
        return from_json(Machine, _scrub(data, [(CONTROL, "\ufffd")]))
    except ValueError as error:
        raise DataError(f"{path} does not describe a machine: {error}", do=remedy) from error


def _read(path: Path, remedy: str) -> str:
    """The text, at most `LARGEST_B` of it: what is larger, or endless, is no record."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        what = "a folder" if path.is_dir() else "no ordinary file"
        raise DataError(f"{path} is {what}, not a record of a machine", do=remedy)
    with path.open("rb") as file:
        content = file.read(LARGEST_B + 1)
    if len(content) > LARGEST_B:
        raise DataError(f"{path} is larger than {size(LARGEST_B)}: no record of a machine", do=remedy)
    return content.decode("utf-8-sig")  # editors of Windows put a mark in front


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def scrub(data: Any) -> Any:
    """Every string without this user's home, name and host name."""
    return _scrub(data, _replacements())


def _replacements() -> list[tuple[re.Pattern[str], str]]:
    pairs = []
    home = str(Path.home())
    if home not in ("/", "/root"):
        pairs.append((re.compile(re.escape(home) + r"(?![\w.-])"), "/home/user"))
    for name, general in ((_user_name(), "user"), (socket.gethostname(), "host")):
        if len(name) >= SHORTEST_NAME and name not in ("root", "user", "host", "localhost"):
            pairs.append((re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])"), general))
    # Other people's homes; a Windows name may hold blanks.
    pairs.append((re.compile(r"(/mnt/[a-z]/Users/)[^/:]+(?=/)"), r"\1user"))
    pairs.append((re.compile(r"(/home/|/Users/)[^/:\s]+"), r"\1user"))
    return pairs


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry in /etc/passwd
        return os.environ.get("USER", "")


def _scrub(data: Any, replacements: list[tuple[re.Pattern[str], str]]) -> Any:
    if isinstance(data, dict):
        return {name: _scrub(value, replacements) for name, value in data.items()}
    if isinstance(data, list):
        return [_scrub(value, replacements) for value in data]
    if isinstance(data, str):
        for pattern, general in replacements:
            data = pattern.sub(general, data)
    return data
