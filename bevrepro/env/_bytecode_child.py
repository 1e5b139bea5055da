"""Runs in the target's interpreter (3.8 and later, `-I -S`): which .pyc differ from what their source gives.

stdin: a JSON list of [pyc, source] paths; stdout: a JSON list of those that differ, with why. Nothing of
what it reads is executed: code objects are compared, never run.
"""

from __future__ import annotations

import json
import marshal
import re
import sys
import warnings


def judge(pyc: str, source: str) -> str | None:
    """Why the two differ, or None."""
    with open(pyc, "rb") as stream:
        content = stream.read()
    try:
        code = marshal.loads(content[16:])
    except (ValueError, EOFError, TypeError):
        return "it cannot be read as bytecode"
    if not hasattr(code, "co_filename"):
        return "it holds no code"
    level = re.search(r"\.opt-([12])\.pyc$", pyc)
    try:
        with open(source, "rb") as stream:
            text = stream.read()
        # The name may be another one in an environment that was copied; comparing leaves it out anyway.
        fresh = compile(text, code.co_filename, "exec", 0, True, int(level.group(1)) if level else 0)
    except (SyntaxError, ValueError, OSError) as error:
        return f"its source does not compile: {error}"
    return None if code == fresh else "it is not what its source compiles to"


def main() -> None:
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(100000)
    pairs = json.load(sys.stdin)
    judged = ((pyc, judge(pyc, source)) for pyc, source in pairs)
    json.dump([[pyc, why] for pyc, why in judged if why], sys.stdout)


if __name__ == "__main__":
    main()
