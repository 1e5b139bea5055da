"""Leaving out operators of mmcv that a target does not use, before they are compiled.

mmcv binds all its operators in one file and asks for every name when it is imported. So what is left out
still has to be there: it is replaced by a function of the same type that says so when it is called.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bevrepro.env.operator_names import refuse_unknown

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
    folder, keep, known = source / FOLDER, set(wanted), names(source)
    refuse_unknown(keep, known, source.name)
    for path in _files(folder):
        if operator_of(path) not in keep | ALWAYS:
            path.unlink()
    left = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.c*")))
    done: set[tuple[str, str]] = set()
    for name in BINDINGS:
        path = folder / name
        if path.exists():
            _complete(path, left, done)
    return tuple(sorted(known - keep))


def names(source: Path) -> set[str]:
    """Every operator of an unpacked sdist."""
    return {operator_of(path) for path in _files(source / FOLDER)} - ALWAYS


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


def _files(folder: Path) -> list[Path]:
    return [path for part in PARTS for path in sorted((folder / part).glob("*.c*"))]


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
