"""The compiled `attention.cpp` in this process, on the threads that torch has."""

import contextlib
import ctypes
import functools
import os
import tempfile
from typing import Any, Optional

import torch

from ...errors import ConfigError
from .attention import Call
from .build import built

_FORKED = 0x40  # PF_FORKNOEXEC of Linux


@functools.lru_cache(maxsize=None)
def library() -> Any:
    """Raises ConfigError when it cannot be built or loaded."""
    loaded = _loaded(built())
    for function in (loaded.bevformer_forward, loaded.bevformer_backward):
        function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_int
    loaded.bevformer_size_of_call.restype = ctypes.c_int64
    if loaded.bevformer_size_of_call() != ctypes.sizeof(Call):
        raise ConfigError(
            "attention.cpp and attention.py disagree about a call", do="Install bevrepro again."
        )
    loaded.bevformer_start.argtypes, loaded.bevformer_start.restype = [ctypes.c_void_p, ctypes.c_int], None
    loaded.bevformer_start(parallel(), int(_is_forked()))
    return loaded


def parallel() -> Optional[int]:
    """The address of `GOMP_parallel` in the OpenMP library that torch runs on; None for a torch without.

    Looked up in the order in which torch's own calls were bound: what is global (LD_PRELOAD, torch's
    libgomp), then what libtorch_cpu depends on.  A second OpenMP library would start a second set of threads,
    and each set waits busily for a while after its work.  Intel's and LLVM's have this function as well.
    """
    torch_cpu = os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so")
    for name in (None, torch_cpu):
        with contextlib.suppress(OSError, AttributeError):
            return ctypes.cast(ctypes.CDLL(name).GOMP_parallel, ctypes.c_void_p).value
    return None


def _loaded(code: bytes) -> Any:
    """From memory, where the kernel can: a cache may lie on a file system that executes nothing, and a file
    that is cut while it is mapped would end the process."""
    with contextlib.suppress(AttributeError, OSError):  # of systems without memfd_create: a file will do
        return ctypes.CDLL(_in_memory(code))
    try:
        with tempfile.NamedTemporaryFile(prefix="bevformer-ops-", suffix=".so") as file:
            file.write(code)
            file.flush()
            return ctypes.CDLL(file.name)
    except OSError as error:
        raise ConfigError(
            "The compiled attention operators cannot be loaded: %s" % error,
            "The temporary folder may forbid execution, or the compiler made them for another system.",
            "Set TMPDIR to a folder that allows it, name another compiler by CXX=..., or choose"
            " ops.attention=reference.",
        ) from error


def _in_memory(code: bytes) -> str:
    fd = os.memfd_create("bevformer-attention.so")
    with open(fd, "wb", closefd=False) as file:
        file.write(code)
    return (
        "/proc/self/fd/%d" % fd
    )  # stays open: another library loaded from the same name would be taken for it


def _is_forked() -> bool:
    """Whether this process was forked and has not started a program since: see `run` in attention.cpp."""
    try:
        with open("/proc/self/stat") as file:
            return bool(int(file.read().rpartition(")")[2].split()[6]) & _FORKED)
    except (OSError, ValueError, IndexError):
        return False
