"""The target interpreter, asked in a child: its packages from their metadata, torch from its own files."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from bevrepro.core import proc
from bevrepro.core.codec import from_json
from bevrepro.core.errors import MachineError
from bevrepro.core.machine import Python, Torch
from bevrepro.probe.files import first_lines

CHILD = Path(__file__).with_name("_child.py")
ASK_S = 10.0
TORCH_S = 120.0  # a cold import from a slow disk


def probe_python(executable: Path | None = None, deep: bool = False) -> Python:
    """Describe `executable` (our own where None); `deep` imports torch there, which costs seconds."""
    target = Path(sys.executable) if executable is None else executable
    if os.path.isdir(target):
        return Python(executable=str(target), error=f"it is a folder; is {target / 'bin/python'} meant?")
    try:
        done = proc.run([target, CHILD], timeout_s=ASK_S)
    except MachineError as error:
        return Python(executable=str(target), error=error.seen)
    answer = _last_object(done.stdout)
    if not done.ok or answer is None:
        return Python(executable=str(target), error=_why(done))
    python = from_json(Python, answer)
    if deep and python.torch is not None:
        python = replace(python, torch=_try_torch(target, python.torch))
    return python


def _try_torch(target: Path, torch: Torch) -> Torch:
    done = proc.run([target, CHILD, "--torch"], timeout_s=TORCH_S)
    answer = _last_object(done.stdout) or {}
    error = answer.get("error") or (None if done.ok else _why(done))
    tried = {"tried": True, "child_rc": done.rc, **answer}
    return from_json(Torch, {"version": torch.version, "cuda": torch.cuda, **tried, "error": error})


def _last_object(text: str) -> dict[str, Any] | None:
    for line in reversed(text.splitlines()):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            return value
    return None


def _why(done: proc.Done) -> str:
    if done.timed_out:
        return "no answer in time"
    name = proc.signal_name(done.rc)
    if name:
        return f"died of {name}"
    last = first_lines("\n".join(done.stderr.strip().splitlines()[-1:]))
    if done.ok:
        return "it does not answer as a Python does"
    return f"exit status {done.rc}: {last}" if last else f"exit status {done.rc}"
