"""Reads envs/targets/*.toml without tomllib, which only Python 3.11 and later have.

The subset: tables, arrays of tables, and values that are JSON once comments and trailing commas are
gone (strings in double quotes, numbers, true/false, arrays over several lines). tests/envs compares
the result with tomllib's for every target there is.
"""

import hashlib
import json
import os
import re

ENVS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(ENVS)

_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*")|#.*')
_TRAILING_COMMA = re.compile(r",(\s*\])")


def parse(text):
    """The target as nested dicts.  ValueError naming the line that is outside the subset."""
    top = {}
    table, key, value = top, None, ""
    for line in text.splitlines():
        line = _COMMENT.sub(lambda found: found.group(1) or "", line).strip()
        if key is None and not line:
            continue
        if key is None and line.startswith("["):
            table = _open_table(top, line)
            continue
        if key is None:
            key, equals, line = (part.strip() for part in line.partition("="))
            if not equals:
                raise ValueError("not a line of a target file: %r" % key)
        value += line + "\n"
        if value.count("[") == value.count("]"):
            table[key.strip('"')] = json.loads(_TRAILING_COMMA.sub(r"\1", value))
            key, value = None, ""
    if key is not None:
        raise ValueError("the value of %s does not end" % key)
    return top


def _open_table(top, line):
    many = line.startswith("[[")
    *parents, last = line.strip("[]").split(".")
    table = top
    for name in parents:
        table = table.setdefault(name, {})
    if many:
        table.setdefault(last, []).append({})
        return table[last][-1]
    return table.setdefault(last, {})


def read_target(name, envs=ENVS):
    """The target's table and the paths of its two locks."""
    with open(os.path.join(envs, "targets", name + ".toml"), encoding="utf-8") as stream:
        target = parse(stream.read())
    return target, lock_paths(name, envs)


def lock_paths(name, envs=ENVS):
    """(everything but torch, torch alone)."""
    return tuple(os.path.join(envs, "locks", name + ending) for ending in (".txt", ".torch.txt"))


def sha256_of(path):
    with open(path, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()
