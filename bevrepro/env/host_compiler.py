"""The g++ that nvcc works with: one of the machine's that is old enough, else one unpacked without root."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bevrepro.core import proc
from bevrepro.env.cuda_recipe import CompilerRecipe

OLDEST_GCC = 7  # the headers of toolkits and of torch are C++17
# The programs' own libraries are found beside them, and only by them: not by what is compiled.
WRAPPER = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LD_LIBRARY_PATH="$here/../usr/lib/own${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export LD_LIBRARY_PATH
exec "$here/../usr/bin/%s" "$@"
"""


@dataclass(frozen=True)
class HostCompiler:
    """A pair of compilers of one version. `major` as nvcc's headers count it."""

    gcc: Path
    gxx: Path
    major: int


def found(newest: int) -> tuple[HostCompiler | None, str]:
    """The newest pair on PATH that nvcc takes, and a sentence about what was seen."""
    seen: list[str] = []
    for name in _names(newest):
        gxx = proc.which(name)
        gcc = proc.which(name.replace("g++", "gcc"))
        if gxx is None or gcc is None:
            continue
        major = version_of(gxx)
        if major is not None and OLDEST_GCC <= major <= newest:
            return HostCompiler(gcc, gxx, major), f"{gxx} is gcc {major}, which this nvcc takes"
        if major is not None:
            seen.append(f"{gxx} is gcc {major}")
    looked = f"looked for g++-{newest} down to g++-{OLDEST_GCC} and g++"
    return None, f"no g++ from {OLDEST_GCC} to {newest} is on PATH: " + "; ".join([*seen, looked])


def version_of(gxx: Path) -> int | None:
    """Its major version; None where it does not run, or is clang under that name."""
    done = proc.run([gxx, "-dM", "-E", "-x", "c++", "/dev/null"], timeout_s=30)
    macros = dict(re.findall(r"^#define (__GNUC__|__clang__) (\d+)$", done.stdout, re.MULTILINE))
    return int(macros["__GNUC__"]) if done.ok and "__GNUC__" in macros and "__clang__" not in macros else None


def install_links(host: Path, compiler: HostCompiler) -> None:
    """`bin/{gcc,g++}` in `host` as links to the machine's compilers; nvcc.profile makes nvcc look there."""
    (host / "bin").mkdir(parents=True)
    os.symlink(compiler.gcc, host / "bin" / "gcc")
    os.symlink(compiler.gxx, host / "bin" / "g++")


def completion(recipe: CompilerRecipe) -> Callable[[Path], None]:
    """What writes `bin/{gcc,g++}` of an unpacked compiler."""

    def complete(tree: Path) -> None:
        (tree / "bin").mkdir(parents=True, exist_ok=True)
        for name in ("gcc", "g++"):
            wrapper = tree / "bin" / name
            wrapper.write_text(WRAPPER % f"{recipe.triplet}-{name}-{recipe.major}", encoding="utf-8")
            wrapper.chmod(0o755)

    return complete


def _names(newest: int) -> Sequence[str]:
    conda = f"{os.uname().machine}-conda-linux-gnu-g++"
    return [*(f"g++-{major}" for major in range(newest, OLDEST_GCC - 1, -1)), "g++", conda]
