"""Words that people know from the scripts of BEVFormer and mmdetection3d: understood, or refused."""

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from typer.core import TyperCommand

from bevrepro import facts
from bevrepro.core.errors import ConfigError

SAME = {"--auto-resume": ["--resume", "auto"], "--gpu-id": ["--gpu-ids"]}
OLDER = {"train": {"--options": ["--cfg-options"]}}  # of one command
ALONE = {"--resume": "auto", "--amp": "fp16"}  # options that may stand without their value
AMP = ("bf16", "fp16", "fp64", "off")
NUMBERS = re.compile(r"\d+(,\d+)*")


class OldFlags(TyperCommand):
    """A command that takes the place of `tools/train.py` or `tools/test.py`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, translated(self.name or "", args))


def translated(verb: str, args: Sequence[str]) -> list[str]:
    """`args` in the words of this command line. ConfigError for what cannot be honoured.

    >>> translated("train", ["c.py", "--gpu-ids", "0", "2", "--resume"])
    ['c.py', '--gpu-ids', '0,2', '--resume', 'auto']
    """
    end = list(args).index("--") if "--" in args else len(args)
    rest, kept = list(args[:end]), []
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        own = SAME.get(name) or OLDER.get(verb, {}).get(name) or [name]
        old = _row(verb, own[0])
        if old is not None:
            _judge(old, word, [] if equals else list(_values(rest, old["values"])))
            continue
        kept += [*own[:-1], own[-1] + equals + value]
        if not equals and len(own) == 1:
            kept += _value_of(own[0], rest)
    return kept + list(args[end:])


def _value_of(name: str, rest: list[str]) -> list[str]:
    """The value of an option that people write without one, or with several."""
    if name == "--gpu-ids":
        found = []
        while rest and NUMBERS.fullmatch(rest[0]):
            found.append(rest.pop(0))
        return [",".join(found)] if found else []
    lacks = not rest or rest[0].startswith("-") or (name == "--amp" and rest[0] not in AMP)
    return [ALONE[name]] if name in ALONE and lacks else []


def _row(verb: str, name: str) -> dict[str, Any] | None:
    if not name.startswith("--"):
        return None
    rows = (row for row in facts.table("old_flags") if row["id"].split()[0] == verb)
    return next((row for row in rows if name in row["flags"]), None)


def _values(rest: list[str], count: int) -> Iterator[str]:
    """Takes the words that belong to a flag; below 0 all until the next option."""
    while rest and not rest[0].startswith("-") and count:
        yield rest.pop(0)
        count -= 1


def _judge(row: dict[str, Any], word: str, values: list[str]) -> None:
    if row["outcome"] == "refused":
        raise ConfigError(f"there is no {word.partition('=')[0]} here", row["why"], row["do"])
    print(f"{' '.join([word, *values])} changes nothing: {row['why']}.", file=sys.stderr)
