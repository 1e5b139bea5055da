"""Small shared libraries for tests, made by gcc from lines of C."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to make a library with")


def compile_library(path: Path, code: str, *options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(".c")
    source.write_text(code)
    command = ["gcc", "-shared", "-fPIC", "-nostdlib", "-o", str(path), str(source), *options]
    subprocess.run(command, check=True, capture_output=True)
    return path


def fatbin(*entries: tuple[int, int | str]) -> bytes:
    """One fat binary of (kind, architecture: 80, "90a") entries, each with 16 bytes of code."""
    body = b"".join(struct.pack("<HHIQQIIQQ16x", kind, 0x101, 64, 16, 0, 0, *named(arch)) + bytes(16)
                    for kind, arch in entries)  # fmt: skip
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def named(architecture: int | str) -> tuple[int, int, int]:
    """(number, a field nobody reads, flags), as nvcc 13.0 writes them."""
    number = str(architecture).rstrip("af")
    bits = {"": 0, "a": 1 << 20, "f": 1 << 21}[str(architecture)[len(number) :]]
    return int(number), 0, 0x11 | bits


def gpu_code(*architectures: int | str, ptx: tuple[int | str, ...] = ()) -> str:
    """C that puts a fat binary into .nv_fatbin."""
    data = fatbin(*((2, each) for each in architectures), *((1, each) for each in ptx))
    numbers = ",".join(map(str, data))
    return f'__attribute__((section(".nv_fatbin"), aligned(8))) const unsigned char code[] = {{{numbers}}};\n'
