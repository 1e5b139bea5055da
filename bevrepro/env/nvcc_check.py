"""Whether a toolkit works: a kernel compiled for one architecture, and a shared library linked with it.

No GPU is needed, and none is used: this shows that operators can be built, not that they run.
"""

import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bevrepro.core import proc
from bevrepro.core.errors import UserError

TIMEOUT_S = 300.0
# As torch links: with the shared runtime, and without launches from kernels, whose library no wheel holds.
RUNTIME = ("-cudart", "shared", "-cudadevrt", "none")
# Templates, a library header and a launch: what operators use, small enough to compile in seconds.
SOURCE = """#include <cuda_runtime.h>
#include <cuda_fp16.h>
#include <vector>
template <typename T> __global__ void scale(const T* from, T* to, T factor, int count) {
  int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at < count) to[at] = from[at] * factor;
}
extern "C" int bevrepro_scale(const float* from, float* to, float factor, int count) {
  std::vector<int> blocks(1, (count + 255) / 256);
  scale<float><<<blocks[0], 256>>>(from, to, factor, count);
  scale<__half><<<1, 1>>>((const __half*)nullptr, (__half*)nullptr, __float2half(factor), 0);
  return (int)cudaGetLastError();
}
"""
NEEDED = (
    "bin/nvcc", "bin/nvcc.profile", "bin/cudafe++", "bin/fatbinary", "bin/ptxas", "nvvm/bin/cicc",
    "nvvm/libdevice/libdevice.10.bc", "include/cuda_runtime.h", "include/crt/host_config.h", "lib64",
)  # fmt: skip


class ToolkitError(UserError):
    """A toolkit that cannot compile or link."""

    exit_code = 3


@dataclass(frozen=True)
class Check:
    """What was done: nvcc's version, the architecture, bytes of the cubin and of the library, seconds."""

    nvcc: str
    arch: str
    cubin_b: int
    library_b: int
    seconds: float


def check(home: Path, arch: str, scratch: Path | None = None) -> Check:
    """Compile and link with the toolkit in `home`. ToolkitError with a sentence for what went wrong.

    `scratch` is a folder to work in; a temporary one, removed afterwards, where None.
    """
    _whole(home)
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="bevrepro-nvcc-", dir=scratch))
    try:
        source = folder / "scale.cu"
        source.write_text(SOURCE, encoding="utf-8")
        version = _version(home)
        cubin, library = folder / "scale.cubin", folder / "libscale.so"
        _nvcc(home, ["-cubin", f"-arch={arch}", "-o", cubin, source], folder)
        _nvcc(
            home, ["-shared", *RUNTIME, "-Xcompiler", "-fPIC", f"-arch={arch}", "-o", library, source], folder
        )
        _is_elf(cubin)
        _is_elf(library)
        seconds = time.monotonic() - started
        return Check(version, arch, cubin.stat().st_size, library.stat().st_size, round(seconds, 2))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def explain(text: str, home: Path, arch: str) -> ToolkitError:
    """nvcc's errors as a sentence: what was seen, why, what to do."""
    for pattern, seen, why, do in _KNOWN:
        if re.search(pattern, text):
            return ToolkitError(seen.format(home=home, arch=arch), why, do.format(home=home, arch=arch))
    last = [line for line in text.strip().splitlines() if line.strip()][-6:]
    return ToolkitError(
        f"nvcc of {home} failed for {arch}",
        "\n".join(last) or "It printed nothing.",
        "bevrepro doctor cuda looks at compilers and toolkits.",
    )


_REMAKE = "Make it again: remove {home}, then bevrepro env cuda VERSION --into {home}"
_KNOWN = (
    (
        r"unsupported GNU version",
        "gcc is too new for the nvcc of {home}",
        "nvcc reads gcc's own headers, and those of a later gcc hold what it does not know.",
        "Install the g++ that `bevrepro env cuda` names, or let it fetch one: bevrepro env cuda VERSION",
    ),
    (
        r"(gcc|g\+\+|cc1plus|collect2)['‘’]?:? (not found|No such file|command not found)"
        r"|Failed to preprocess host compiler|cannot execute .?cc1plus|host compiler.*not found",
        "nvcc of {home} found no usable g++",
        "nvcc compiles the host's half of each file with it.",
        "Install g++ (Debian and Ubuntu: g++; Fedora: gcc-c++), or: bevrepro env cuda VERSION",
    ),
    (
        r"cannot find ['‘]?ld\b|\bld['‘’]?: (not found|No such file)"
        r"|cannot execute .?(as|ld)\b|(as|ld): command not found",
        "no linker or assembler was found",
        "g++ starts ld and as, which are no part of a CUDA toolkit.",
        "Install binutils (Debian and Ubuntu: apt install binutils libc6-dev).",
    ),
    (
        r"cannot find (S?crt[1in]\.o|-lc\b|-lm\b)|(stdlib|stdio|math|limits|features)\.h: No such file",
        "the C library's development files are missing",
        "g++ needs its headers and start files to compile and link.",
        "Install them (Debian and Ubuntu: apt install libc6-dev; Fedora: glibc-devel).",
    ),
    (
        r"cannot find -lcuda(rt|devrt|rt_static)",
        "the toolkit in {home} has no CUDA runtime to link with",
        "It is half a toolkit.",
        _REMAKE,
    ),
    (
        r"(Unsupported|unsupported|is not a (valid|defined)|not defined for option).*"
        r"(gpu architecture|gpu-architecture|sm_\w+|compute_\w+)|nvcc fatal.*sm_\w+",
        "the nvcc of {home} does not know {arch}",
        "Each toolkit compiles for the architectures of its years.",
        "bevrepro env cuda lists the toolkits with theirs.",
    ),
    (
        r"(cicc|ptxas|cudafe\+\+|fatbinary|nvlink)['‘’]?: (not found|No such file|Permission denied)"
        r"|libdevice|cuda\w*\.\w+: No such file|crt/\w+\.\w+: No such file",
        "the toolkit in {home} lacks a part of its own",
        "It is half a toolkit.",
        _REMAKE,
    ),
    (
        r"No space left on device|Disk quota exceeded|Could not open output file",
        "nvcc could not write its temporary files",
        "It writes some megabytes for each file to the folder for temporary files.",
        "Free some space, or set TMPDIR to a folder that has it.",
    ),
)  # fmt: skip


def _whole(home: Path) -> None:
    missing = [name for name in NEEDED if not (home / name).exists()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ToolkitError(
            f"{home} is half a toolkit: it lacks {missing[0]}{more}",
            "nvcc would fail at the first file.",
            _REMAKE.format(home=home),
        )


def _version(home: Path) -> str:
    done = proc.run([home / "bin" / "nvcc", "--version"], timeout_s=60)
    version = re.search(r"\bV(\d+\.\d+\.\d+)", done.stdout)
    if not done.ok or version is None:
        raise explain(done.stderr or done.stdout, home, "any architecture")
    return version.group(1)


def _nvcc(home: Path, words: list[str | Path], folder: Path) -> None:
    arch = next(str(word).partition("=")[2] for word in words if str(word).startswith("-arch="))
    done = proc.run([home / "bin" / "nvcc", *words], cwd=folder, timeout_s=TIMEOUT_S)
    if done.timed_out:
        raise ToolkitError(f"nvcc of {home} did not finish in {TIMEOUT_S:.0f} s", "It was stopped.")
    if not done.ok:
        raise explain(done.stderr + done.stdout, home, arch)


def _is_elf(path: Path) -> None:
    if not path.is_file() or path.read_bytes()[:4] != b"\x7fELF":
        raise ToolkitError(
            f"nvcc ended well and left no {path.suffix[1:]} behind", "It is no nvcc that can be used."
        )
