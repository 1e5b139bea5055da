"""A launch file for an editor: the same program under its debugger, in one process."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bevrepro.core import paths
from bevrepro.core.errors import ConfigError
from bevrepro.drive.launch import target_python

EDITORS = ("vscode",)


def launch_file(
    editor: str, verb: str, argv: Sequence[str | Path], folder: Path, python: str | None = None
) -> str:
    """The text of `.vscode/launch.json` for a verb of the model plane, run in `folder`. ConfigError for
    another editor."""
    if editor not in EDITORS:
        raise ConfigError(f"--print-launch {editor}", do=f"There is one for: {', '.join(EDITORS)}")
    words = [str(word) for word in argv]
    chosen = {key: os.environ[key] for key in ("CUDA_VISIBLE_DEVICES",) if key in os.environ}
    entry: dict[str, Any] = {
        "name": f"bevformer {verb} {words[0]}" if words else f"bevformer {verb}",
        "type": "debugpy",
        "request": "launch",
        "module": "bevformer",
        "args": [verb, *words],
        "python": python or target_python(),
        "cwd": str(folder),
        "env": {"PYTHONPATH": str(paths.model_dir()), "BEVREPRO_DEBUG": "1", **chosen},
        "console": "integratedTerminal",
        "justMyCode": False,
    }
    return json.dumps({"version": "0.2.0", "configurations": [entry]}, indent=4) + "\n"
