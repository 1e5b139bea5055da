"""Leaving out operators of mmcv that a target does not use, before they are compiled.

mmcv binds all its operators in one file and asks for every name when it is imported. So what is left out
still has to be there: it is replaced by a function of the same type that says so when it is called.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from bevrepro.core.errors import ConfigError

FOLDER = "mmcv/ops/csrc/pytorch"
PARTS = (".", "cpu", "cuda")
BINDINGS = ("pybind.cpp", "cuda/cudabind.cpp")  # what declares functions that other files define
ALWAYS = {"pybind", "cudabind", "info"}
ENDINGS = ("_cuda", "_kernel")
# A declaration at the beginning of a line: template and type, name, parameters.
DECLARED = re.compile(
    r"^((?:template\s*<[^;{}()]*?>\s*)?(?:const\s+)?[A-Za-z_][\w:]*(?:<[^;{}()]*>)?[\s&*]+)(\w+)\(([^;{}()]*)\)\s*;",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Declaration:
    """A function that a binding names: `kind` with its template, name, parameters without defaults."""

    kind: str
    name: str
    parameters: str

    def stub(self) -> str:
        """A definition that throws."""
        said = f"{self.name} was left out when mmcv was compiled (operators of the target)"
        head = f"{self.kind.strip()} {self.name}({self.parameters})"
        return f'{head} {{\n  throw std::runtime_error("{said}");\n}}\n'


def leave_out(source: Path, wanted: Iterable[str]) -> tuple[str, ...]:
    """Remove every operator but those from the unpacked sdist; the names of what is left out.

    ConfigError for a name that mmcv does not have.
    """
    folder = source / FOLDER
    files = {part: sorted((folder / part).glob("*.c*")) for part in PARTS}
    known = {operator_of(path) for paths in files.values() for path in paths} - ALWAYS
    keep = set(wanted)
    for name in sorted(keep - known):
        near = get_close_matches(name, known, n=1)
        raise ConfigError(
            f"mmcv has no operator {name!r}" + (f"; is {near[0]!r} meant?" if near else ""),
            f"It has: {', '.join(sorted(known))}",
            "Correct --operators, or `operators` in the target.",
        )
    for path in (path for paths in files.values() for path in paths):
        if operator_of(path) not in keep | ALWAYS:
            path.unlink()
    left = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.c*")))
    done: set[tuple[str, str]] = set()
    for name in BINDINGS:
        path = folder / name
        if path.exists():
            _complete(path, left, done)
    return tuple(sorted(known - keep))


def operator_of(path: Path) -> str:
    """nms_rotated for nms_rotated.cpp and nms_rotated_cuda.cu."""
    stem = path.stem
    for ending in ENDINGS:
        stem = stem.removesuffix(ending)
    return stem


def declarations(text: str) -> list[Declaration]:
    """The functions that a file declares at the top level. Pure."""
    return [
        Declaration(found[1], found[2], re.sub(r"\s*=\s*[^,]+", "", found[3]))
        for found in DECLARED.finditer(text)
        if found[1].split()[0] not in ("return", "typedef", "using")
    ]


def is_defined(name: str, text: str) -> bool:
    """Whether a function of that name has a body in it. Pure."""
    return re.search(rf"\b{name}\s*\([^;{{}}]*\)\s*{{", text) is not None


def _complete(path: Path, left: str, done: set[tuple[str, str]]) -> None:
    """Append a stub for everything that a binding declares and no file that is left defines."""
    stubs = []
    text = path.read_text(encoding="utf-8")
    for each in declarations(text):
        key = (each.name, re.sub(r"\s+", "", each.parameters))
        if key not in done and not is_defined(each.name, left):
            done.add(key)
            stubs.append(each.stub())
    if stubs:
        path.write_text(text + "\n#include <stdexcept>\n" + "".join(stubs), encoding="utf-8")
