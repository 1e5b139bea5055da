"""Builds a wheel in the target interpreter: `python _build_child.py OUT BACKEND [BACKEND_PATH ...]`.

Runs in the source's folder; standard library only, Python 3.8 syntax. What the backend needs is on
PYTHONPATH (PEP 517 without isolation).
"""
# ruff: noqa: UP006, UP035

import importlib
import os
import sys
from typing import Any, List


def main(argv: List[str]) -> int:
    """Build and print where the wheel lies in OUT."""
    out, name, paths = argv[0], argv[1], argv[2:]
    # setup.py of that time imports its own package and its neighbours.
    sys.path[:1] = [os.path.abspath(path) for path in paths] or [os.getcwd()]
    module, _, attribute = name.partition(":")
    backend: Any = importlib.import_module(module)
    for part in attribute.split(".") if attribute else ():
        backend = getattr(backend, part)
    sys.argv = ["setup.py"]
    print("bevrepro-wheel: " + backend.build_wheel(out, None))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
