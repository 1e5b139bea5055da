"""`doctor --fix` and `--undo`: look around, carry a plan out, take it back. doctor/fix.py makes the plan.

Before anything changes, what the files held goes into the undo file; taking back refuses a file that somebody
changed since.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bevrepro.core import paths, proc
from bevrepro.core.codec import from_json
from bevrepro.core.errors import DataError, DiskError
from bevrepro.core.machine import Machine
from bevrepro.data import status, unmount
from bevrepro.doctor.fix import Around, Fix

SCRIPT = "env.sh"
PROPOSAL = ".wslconfig.bevrepro-proposal"
UNDO = "doctor-undo.json"
WINDOWS_HOME = re.compile(r"(/mnt/[a-z]/Users/[^/:]+)/AppData/", re.IGNORECASE)
OLDEST_GCC, NEWEST_GCC = 5, 20  # names to look for on PATH, not a judgement


def look_around(machine: Machine) -> Around:
    """This machine's places, programs and files that a plan needs. Reads only."""
    script = paths.config_dir() / SCRIPT
    windows_home = _windows_home() if machine.host.wsl else None
    wslconfig = windows_home / ".wslconfig" if windows_home else None
    proposal = (windows_home or paths.config_dir()) / PROPOSAL
    compilers = [f"g++-{number}" for number in range(OLDEST_GCC, NEWEST_GCC)]
    return Around(
        script=str(script),
        script_text=_text(script),
        toolkits=tuple(_toolkits(machine)),
        compilers=tuple(name for name in compilers if proc.which(name)),
        wslconfig=str(wslconfig) if wslconfig else "",
        wslconfig_text=_text(wslconfig) if wslconfig else None,
        proposal=str(proposal) if machine.host.wsl else "",
        proposal_text=_text(proposal),
        dead_mounts=tuple(one.mountpoint for one in status.status() if one.state == "dead"),
    )


def carry_out(fixes: Sequence[Fix]) -> Path:
    """Do it; returns the undo file, which is complete before the first change. DiskError, MountError."""
    for fix in fixes:
        _require_own_place(fix)
        _require_unchanged(fix, fix.before, "since the plan was made")
    with _undo_file() as undo:
        runs = _load(undo)
        when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
        runs.append({"when": when, "fixes": [asdict(fix) for fix in fixes]})
        _save(undo, runs)
        for fix in fixes:
            _do(fix, fix.after)
    return undo


def take_back() -> tuple[Fix, ...]:
    """Undo the last `carry_out`; () where there is nothing to undo. DataError for a file changed since."""
    with _undo_file() as undo:
        runs = _load(undo)
        if not runs:
            return ()
        fixes = tuple(from_json(Fix, _with_tuples(fix)) for fix in runs[-1]["fixes"])
        written = [fix for fix in fixes if not fix.mount and _text(Path(fix.path)) != fix.before]
        for fix in written:
            _require_own_place(fix)
            _require_unchanged(fix, fix.after, "since it was written")
        for fix in reversed(written):
            _do(fix, fix.before)
        _save(undo, runs[:-1])
    return fixes


def _do(fix: Fix, text: str | None) -> None:
    """Detaching loses nothing: the mount's program is gone, its archives stay remembered."""
    if fix.mount:
        unmount.detach(Path(fix.path), dead=True)
    elif text is None:
        Path(fix.path).unlink(missing_ok=True)
    else:
        paths.atomic_write_bytes(Path(os.path.realpath(fix.path)), text.encode("utf-8", "surrogateescape"))


def _require_own_place(fix: Fix) -> None:
    """Links are followed before we look: a script that is a link into /etc is not the user's own."""
    real = Path(os.path.realpath(fix.path))
    own = [Path.home(), paths.config_dir(), paths.state_dir(), *filter(None, [_windows_home()])]
    if not fix.mount and not any(real.is_relative_to(os.path.realpath(folder)) for folder in own):
        raise DiskError(
            f"{fix.path} lies outside your home: {real}",
            "--fix changes nothing but your own files.",
            f"Move it, or make the change yourself: {fix.what}",
        )


def _require_unchanged(fix: Fix, expected: str | None, since: str) -> None:
    if not fix.mount and _text(Path(fix.path)) != expected:
        raise DataError(
            f"{fix.path} was changed {since}",
            "Somebody's changes would be lost; nothing was touched.",
            f"Look at it: cat {fix.path}",
        )


def _toolkits(machine: Machine) -> Iterator[tuple[str, str | None]]:
    """Folders with an nvcc: those a list in CUDA_HOME names, then /usr/local/cuda*; no program is started."""
    named = machine.cuda.toolkit.home.split(":") if machine.cuda.toolkit else []
    found = sorted(str(path) for path in Path("/usr/local").glob("cuda*"))
    for home in dict.fromkeys(part for part in (*named, *found) if part):
        if (Path(home) / "bin/nvcc").is_file():
            match = re.search(r"cuda-(\d+\.\d+)", os.path.realpath(home))
            yield home, match[1] if match else None


def _windows_home() -> Path | None:
    """The user's Windows profile as WSL shows it: WSL appends Windows' PATH to ours."""
    match = WINDOWS_HOME.search(os.environ.get("PATH", ""))
    home = Path(match[1]) if match else None
    return home if home and home.is_dir() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DiskError(
            f"could not read {path}: {error.strerror}",
            "--fix keeps what a file held before it changes it.",
            "Move it out of the way, or make it a file that you can read.",
        ) from error


@contextmanager
def _undo_file() -> Iterator[Path]:
    """The undo file's path, while no other command may use it."""
    folder = paths.state_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DiskError(
            f"could not use {folder}: {error.strerror}",
            "The undo file is written there first; nothing was changed.",
            "Set BEVREPRO_STATE to a folder that can be written.",
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder / UNDO
    finally:
        os.close(handle)


def _load(undo: Path) -> list[dict[str, Any]]:
    text = _text(undo)
    if text is None:
        return []
    try:
        runs: list[dict[str, Any]] = json.loads(text)["runs"]
        for run in runs:
            for fix in run["fixes"]:
                from_json(Fix, _with_tuples(fix))
        return runs
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read the undo file {undo}: {error}",
            "bevrepro writes it whole or not at all, so something else changed it.",
            f"Remove it: rm {undo}   (what was fixed stays as it is)",
        ) from error


def _with_tuples(fix: dict[str, Any]) -> dict[str, Any]:
    return {**fix, "findings": list(fix["findings"])}


def _save(undo: Path, runs: list[dict[str, Any]]) -> None:
    if runs:
        paths.atomic_write_text(undo, json.dumps({"format": 1, "runs": runs}, indent=1) + "\n")
    else:
        undo.unlink(missing_ok=True)
