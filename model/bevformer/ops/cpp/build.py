"""Compile `attention.cpp`, once per machine: the result is kept in the cache.

A build is known by everything that it depends on: source, compiler and its version, flags, the CPU's
features, the C library and torch.  Nothing in the cache is believed: it has to be the user's own and its
SHA-256, which stands at its end, has to fit; else it is made again.  It appears there whole, by a rename.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch

from ...data.index_cache import cache_dir, keep, own_bytes
from ...errors import ConfigError

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "attention.cpp")
COMPILERS = ("g++", "c++", "clang++")
VERSION_LIMIT_S, COMPILE_LIMIT_S = 20.0, 300.0  # it takes 6 s of a CPU; a loaded machine is slow, not stuck
_DIGEST_BYTES = 32
# Exceptions and run-time types would need libstdc++, of which a process can have an older one than the
# compiler's.  Not -ffast-math: it loses NaN, and changes how the whole process rounds that loads the result.
_FLAGS = (
    "-std=c++17 -O3 -fno-math-errno -fno-trapping-math -fno-exceptions -fno-rtti -fvisibility=hidden -fPIC"
    " -shared -pthread -static-libgcc -Wl,--as-needed"
).split()
_CPU_FLAGS: Tuple[Tuple[str, ...], ...] = (("-march=native",), ())  # the second where the first is not known
_CPU_LINES = ("flags", "features", "vendor_id", "cpu family", "model", "model name", "cpu part")  # x86, ARM


class Compiler(NamedTuple):
    """command: with the arguments that $CXX may have."""

    command: Tuple[str, ...]
    version: str


class _Failed(Exception):
    """One sentence: why this compiler made nothing."""


def built() -> bytes:
    """The bytes of the library, from the cache or from the compiler.

    Raises ConfigError when there is no compiler or none can build it.  A cache that cannot be written is
    warned of: the library is then compiled in every process.
    """
    failures = []
    for command in _commands():
        try:
            return _built_by(_compiler(command))
        except _Failed as error:
            failures.append(str(error))
    raise ConfigError(
        "No C++ compiler here can build the attention operators: %s" % "; ".join(failures),
        "Without one, deformable attention on the CPU runs by grid_sample, several times slower.",
        "Install one (g++ 9 or newer, for example `apt-get install g++`), name one by CXX=..., or choose"
        " ops.attention=reference.",
    )


def _commands() -> List[Tuple[str, ...]]:
    """What $CXX says, and nothing else then; else whatever is there, once each."""
    if os.environ.get("CXX", "").strip():
        return [tuple(shlex.split(os.environ["CXX"]))]
    found = {os.path.realpath(shutil.which(name) or name): (name,) for name in reversed(COMPILERS)}
    return [found[path] for path in reversed(list(found))]


def _compiler(command: Tuple[str, ...]) -> Compiler:
    if shutil.which(command[0]) is None:
        raise _Failed("%s is not there" % command[0])
    return Compiler(command, _run([*command, "--version"], VERSION_LIMIT_S).splitlines()[0])


def _built_by(compiler: Compiler) -> bytes:
    failure: Optional[_Failed] = None
    for cpu in _CPU_FLAGS:
        where = place(compiler, cpu)
        try:
            return _kept(where) or _made(compiler, cpu, where)
        except _Failed as error:
            failure = error
    assert failure is not None
    raise failure


def place(compiler: Compiler, cpu_flags: Sequence[str]) -> str:
    """Where the build of this compiler, for this machine and torch, lies or would lie."""
    with open(SOURCE, "rb") as file:
        digest = hashlib.sha256(file.read())
    parts = (*compiler.command, compiler.version, *_FLAGS, *cpu_flags, torch.__version__, *_machine())
    digest.update("\0".join(parts).encode("utf-8", "surrogateescape"))
    folder = os.environ.get("BEVREPRO_BUILDS") or os.path.join(cache_dir(), "ops")
    return os.path.join(folder, "attention-%s.so" % digest.hexdigest()[:32])


@functools.lru_cache(maxsize=None)
def _machine() -> Tuple[str, ...]:
    """A home folder can be shared by machines with other CPUs or another C library."""
    return (platform.machine(), platform.processor(), "-".join(platform.libc_ver()), *cpu_of("/proc/cpuinfo"))


def cpu_of(path: str) -> Tuple[str, ...]:
    """The first CPU's lines that -march=native depends on; its name too, since a compiler asks the CPU and
    an old kernel does not list all that a new one can do.
    """
    found: Dict[str, str] = {}
    with contextlib.suppress(OSError), open(path, errors="replace") as file:
        for line in file:
            key = line.partition(":")[0].strip().lower()
            if key in _CPU_LINES:
                found.setdefault(key, line.strip())
    return tuple(found.values())


def _kept(where: str) -> Optional[bytes]:
    data = own_bytes(where)
    if data is None or len(data) <= _DIGEST_BYTES:
        return None
    library, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    return library if hashlib.sha256(library).digest() == digest else None


def _made(compiler: Compiler, cpu_flags: Sequence[str], where: str) -> bytes:
    """Compiled and, if possible, kept.  Other processes wait for the first instead of compiling as well."""
    with _alone(where + ".lock"):
        library = _kept(where)
        if library is not None:
            return library
        library = _compiled(compiler, cpu_flags)
        try:
            keep(where, functools.partial(_write, library))
        except OSError as error:
            warnings.warn(
                "The compiled attention operators cannot be kept in %s: %s. They are compiled again in every"
                " process; free some space there or set BEVREPRO_CACHE to another folder."
                % (os.path.dirname(where), error.strerror or error),
                stacklevel=2,
            )
        return library


def _compiled(compiler: Compiler, cpu_flags: Sequence[str]) -> bytes:
    try:
        with tempfile.TemporaryDirectory(prefix="bevformer-ops-") as work:
            out = os.path.join(work, "attention.so")
            _run([*compiler.command, *_FLAGS, *cpu_flags, "-o", out, SOURCE], COMPILE_LIMIT_S)
            with open(out, "rb") as file:
                return file.read()
    except OSError as error:  # no temporary folder, none with space, or a compiler that writes nothing
        raise _Failed("%s: %s" % (" ".join(compiler.command), error)) from error


def _write(library: bytes, out: str) -> None:
    with open(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(library)
        file.write(hashlib.sha256(library).digest())
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _alone(lock: str) -> Iterator[None]:
    """While no other process does the same.  A killed one lets go; one that is stuck is not waited for."""
    try:
        os.makedirs(os.path.dirname(lock), mode=0o700, exist_ok=True)
        file = open(lock, "w")
    except OSError:  # a cache that cannot be written is warned of when the result is to be kept
        yield
        return
    with file:
        deadline_s = time.monotonic() + COMPILE_LIMIT_S
        while time.monotonic() < deadline_s:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
            except OSError:  # a file system without locks
                break
        yield


def _run(command: Sequence[str], limit_s: float) -> str:
    """What it prints.  Raises _Failed; the compiler's own children are ended with it."""
    name = command[0]
    environ = dict(os.environ, LC_ALL="C")
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environ, start_new_session=True
        )
    except OSError as error:
        raise _Failed("%s does not start: %s" % (name, error.strerror or error)) from error
    with process:
        try:
            out, err = process.communicate(timeout=limit_s)
        except BaseException as error:  # Ctrl-C, too, does not reach a session of its own
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise _Failed("%s was still at work after %d s" % (name, limit_s)) from None
    if process.returncode:
        raise _Failed("%s: %s" % (name, _complaint(err) or "it ended with %d" % process.returncode))
    if "--version" in command and not out.strip():
        raise _Failed("%s --version prints nothing" % name)
    return out.decode("utf-8", "replace")


def _complaint(err: bytes) -> str:
    """The first line that names an error, else the last."""
    lines = [line.strip() for line in err.decode("utf-8", "replace").splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
