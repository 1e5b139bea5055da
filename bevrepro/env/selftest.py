"""The self-test of an environment: its own interpreter runs the model plane's checks and tells of each.

A child, because a broken package may take its process with it: what died is told as well.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from bevrepro.core import proc
from bevrepro.core.errors import ChildError
from bevrepro.core.paths import model_dir

WITHOUT_TORCH = ("versions", "devkit")
NAMES = (
    "versions",
    "torch",
    "bundled-operators",
    "devkit",
    "openmmlab-imports",
    "mmcv-compiled",
    "mmcv-operators",
    "mmcv-parity",
    "training",
)
HINTS = {
    "SIGILL": "The CPU lacks an instruction that a library was built for: bevrepro doctor",
    "SIGSEGV": "A library crashed, most often one that was built for another version of torch or NumPy.",
    "SIGKILL": "Most often the system ran out of memory.",
}


@dataclass(frozen=True)
class Result:
    """One check: `said` what it measured, or why it failed."""

    name: str
    ok: bool
    seconds: float
    said: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class SelfTestFailed(ChildError):
    """An environment that is there and does not work."""


def command(python: Path, checks: Sequence[str]) -> list[str | Path]:
    """The child; the bytecode that it leaves is in no digest and saves the first user the wait."""
    return [python, "-m", "bevformer.selftest", *checks]


def variables(base: Mapping[str, str]) -> dict[str, str]:
    """The model plane on PYTHONPATH, and nothing of the user's."""
    env = {key: value for key, value in base.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    return {**env, "PYTHONPATH": str(model_dir()), "PYTHONNOUSERSITE": "1", "MPLBACKEND": "Agg"}


def judge(checks: Sequence[str], lines: Sequence[str], rc: int) -> tuple[Result, ...]:
    """The results of all checks from what the child printed; the one it died in failed. Pure."""
    found = {row.name: row for row in map(_parsed, lines) if row is not None}
    results = []
    how = _how(rc)
    for name in checks:
        results.append(found.get(name) or Result(name, False, 0.0, how))
        how = f"not run: {how}" if name not in found and not how.startswith("not run") else how
    return tuple(results)


def run(
    python: Path,
    checks: Sequence[str],
    base: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda line: None,
) -> tuple[Result, ...]:
    """Run the checks in an environment's interpreter, in order. MachineError where it does not start.

    Those that need no torch run in a child beside the others.
    """
    env = variables(os.environ if base is None else base)
    groups = [[name for name in checks if (name in WITHOUT_TORCH) == alone] for alone in (False, True)]
    with ThreadPoolExecutor(len(groups)) as pool:
        found = list(pool.map(lambda names: _run(python, names, env, on_line), filter(None, groups)))
    by_name = {each.name: each for each in chain(*found)}
    return tuple(by_name[name] for name in checks)


def _run(
    python: Path, checks: Sequence[str], env: Mapping[str, str], on_line: Callable[[str], None]
) -> tuple[Result, ...]:
    lines: list[str] = []
    with proc.stream(command(python, checks), env=env, on_stderr=on_line) as child:
        for line in child:
            if _parsed(line) is not None:  # what libraries print besides may have no end
                lines.append(line)
            on_line(line)
    return judge(checks, lines, child.rc if child.rc is not None else -9)


def refuse_failures(results: Sequence[Result], log: str) -> None:
    """SelfTestFailed with every check that failed."""
    failed = [each for each in results if not each.ok]
    if failed:
        raise SelfTestFailed(
            "the self-test failed: " + "; ".join(f"{each.name}: {each.said}" for each in failed),
            "The environment was installed as locked and does not work here. It was not put into use.",
            f"The whole log: {log}",
        )


def _parsed(line: str) -> Result | None:
    try:
        told = json.loads(line)
        return Result(str(told["name"]), bool(told["ok"]), float(told["seconds"]), str(told["said"]))
    except (ValueError, KeyError, TypeError):
        return None


def _how(rc: int) -> str:
    name = proc.signal_name(rc)
    if name is not None:
        return f"the interpreter was ended by {name}. {HINTS.get(name, '')}".strip()
    return f"the interpreter ended with exit code {rc} and without a word of it"
