"""Runs `bevrepro` in forks of one process, so that what a command imports is imported once for many.

Reads one job per line, {"package": folder, "words": [...], "env": {...}, "out": path, "err": path}, and says
how it ended, as subprocess says it.  A job has its environment, its session and its place in `sys.argv` as a
program of its own has; only `bevrepro` itself and what it imports is here already.
"""

import importlib
import json
import os
import sys
from pathlib import Path

import typer._adapters  # noqa: F401  typer imports it, and pydantic with it, for the first value of an option

from bevrepro.cli import main
from bevrepro.core import paths

NEEDED = ("cli.env", "cli.env_build", "env.build", "env.bundled", "env.layout", "env.steps", "env.verify")
EARLY = "bevrepro.env.container_context"  # takes the package's folder when it is imported


def become(job):
    os.setsid()
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, job["out"], os.O_WRONLY | os.O_APPEND),
        (2, job["err"], os.O_WRONLY | os.O_APPEND),
    ):
        os.dup2(os.open(path, flags), number)
    os.environ.clear()
    os.environ.update(job["env"])
    sys.argv = ["bevrepro", *job["words"]]
    paths.PACKAGE_DIR = Path(job["package"])


if __name__ == "__main__":
    for name in NEEDED:
        importlib.import_module("bevrepro." + name)
    assert EARLY not in sys.modules
    for line in sys.stdin:
        child = os.fork()
        if not child:
            become(json.loads(line))
            sys.exit(main())
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
