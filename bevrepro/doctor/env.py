"""An installed environment against the lock of its target."""

from collections.abc import Iterator
from pathlib import Path

from bevrepro.core.finding import Finding
from bevrepro.doctor.check import Check, Verdict, fail, info, warn
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.readable import readable_check
from bevrepro.probe.environment import Environment, probe_env

TOLD = 5
DECIDES = frozenset(
    ("torch", "numpy", "mmcv-full", "mmcv", "mmdet", "mmdet3d", "mmsegmentation", "nuscenes-devkit")
)


def _some(names: list[str]) -> str:
    return ", ".join(names[:TOLD]) + (f" and {len(names) - TOLD} more" if len(names) > TOLD else "")


def _nothing(env: Environment) -> Iterator[Verdict]:
    if env.place.kind == "file" or (env.place.kind == "folder" and env.installed is None):
        yield fail(f"{env.place.path} is no environment (no lib/python3*/site-packages)",
                   "Name the folder of a venv or of a conda environment.")  # fmt: skip


def _no_lock(env: Environment) -> Iterator[Verdict]:
    if env.installed is not None and env.locked is None:
        yield warn(f"there is no lock for target {env.target!r}", "It was not compared with anything.")


def _versions(env: Environment) -> Iterator[Verdict]:
    if env.installed is None or env.locked is None:
        return
    other = {
        name: f"{name} {env.installed[name]} (locked {version})"
        for name, version in sorted(env.locked.items())
        if name in env.installed and env.installed[name] != version
    }
    if other:
        weighty = env.noted and DECIDES & set(other)
        judge = fail if weighty else warn
        yield judge(
            f"{len(other)} package(s) are not as in the lock of {env.target}: {_some(list(other.values()))}",
            "Install from the lock again.",
        )


def _missing(env: Environment) -> Iterator[Verdict]:
    if env.installed is None or env.locked is None:
        return
    missing = sorted(set(env.locked) - set(env.installed))
    if missing:
        judge = fail if env.noted and DECIDES & set(missing) else warn
        yield judge(f"{len(missing)} of {len(env.locked)} locked packages are missing: {_some(missing)}",
                    "Install from the lock again.")  # fmt: skip


def _more(env: Environment) -> Iterator[Verdict]:
    if env.noted and env.installed is not None and env.locked is not None:
        extra = sorted(set(env.installed) - set(env.locked) - {"pip", "setuptools", "wheel", "bevrepro"})
        if extra:
            yield info(f"{len(extra)} package(s) beside the lock: {_some(extra)}",
                       "A result made with them is not the lock's.")  # fmt: skip


def _twice(env: Environment) -> Iterator[Verdict]:
    if env.twice:
        yield warn(f"two versions are recorded of {_some(list(env.twice))}",
                   "An interrupted update: install them again.",
                   f"python -m pip install --force-reinstall {' '.join(env.twice[:TOLD])}")  # fmt: skip


def _edited(env: Environment) -> Iterator[Verdict]:
    ours = set(env.patched or ())
    edited = [name for name in env.edited or () if name not in ours]
    if edited:
        yield warn(
            f"{len(edited)} installed file(s) were edited: {_some(edited)}",
            "Nobody else has these changes: put them back, or keep them as a patch that is recorded.",
        )
    elif ours:
        yield info(f"{len(ours)} file(s) were patched by bevrepro: {_some(sorted(ours))}")


def _gone(env: Environment) -> Iterator[Verdict]:
    if env.gone:
        yield fail(f"{len(env.gone)} installed file(s) are gone: {_some(list(env.gone))}",
                   "Install their packages again.")  # fmt: skip


CHECKS = (
    readable_check("env", "the environment"),
    Check("env-nothing", "env", "whether it is an environment", "There is nothing to compare.", _nothing),
    Check("env-no-lock", "env", "whether its target has a lock", "Only a lock says what should be there.",
          _no_lock),
    Check("env-versions", "env", "installed versions against the lock",
          "A result of other versions is another result.", _versions),
    Check("env-missing", "env", "locked packages that are not there", "An import will fail.", _missing),
    Check("env-more", "env", "packages beside the lock", "They may shadow or change what is locked.", _more),
    Check("env-twice", "env", "packages with two records", "Which files are there is chance.", _twice),
    Check("env-edited", "env", "installed files against their RECORD (--deep)",
          "pip and uv do not notice edits; upgrading or moving loses them.", _edited),
    Check("env-gone", "env", "installed files that were deleted (--deep)", "Imports stop at the gap.", _gone),
)  # fmt: skip


def examine_env(path: Path, deep: bool = False) -> tuple[Finding, ...]:
    """All findings about `path`; `deep` hashes every installed file."""
    return judge_all(probe_env(path, deep), CHECKS)
