"""torch and the extensions built for it, as files: nothing is imported.

What the dynamic linker would find missing, and what the CUDA runtime would (`no kernel image`), stands in
the libraries' own tables.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bevrepro.core.machine import Compiled, LibStdCxx, Python, Torch
from bevrepro.probe.elf import Elf, NotElf, newest
from bevrepro.probe.fatbin import Fatbin, listed_by_torch, only_listed, read_fatbin
from bevrepro.probe.files import globbed
from bevrepro.probe.libraries import FOLDERS, cached_names

# What importing torch loads: it and everything that it needs.
TORCH_STARTS = ("libtorch_global_deps.so", "libtorch_python.so")
# Part of the driver or the C library, not of an environment.
FOREIGN = re.compile(r"libcuda\.so|libnvidia|ld-linux|lib(c|m|dl|rt|pthread)\.so")
# Mangled names in the namespaces at::, c10::, torch:: and caffe2::, the functions of libtorch_python
# (THPVariable_Wrap took another argument in 1.10, 2.6 and 2.10), and pybind11's casters of torch's types.
TORCH_SYMBOL = re.compile(
    r"_Z(T[IVST])?N?[KVrRO]*(2at|3c10|5torch|6caffe2)|(_Z\d+)?THP[A-Z]"
    r"|_ZN8pybind116detail11type_casterIN(2at|3c10|5torch)"
)
EXTENSIONS = ("mmcv/_ext*.so", "mmdet3d/ops/*/*.so", "torchvision/_C.so", "torchvision/_C.*.so")
NCCL = re.compile(rb"NCCL version (\d+\.\d+\.\d+)")
NAMED = 4  # symbols told to people


def read_compiled(
    python: Python, root: Path = Path("/"), environment: Mapping[str, str] | None = None
) -> Python:
    """`python` with `torch.compiled` and `extensions`; as it was where it has no torch."""
    environment = os.environ if environment is None else environment
    package = python.package("torch")
    if python.torch is None or package is None:
        return python
    site = Path(package.location)
    linker = Linker(site, root, environment)
    torch = _torch(python.torch, site, package.version, linker)
    places = dict.fromkeys(each.location for each in python.packages or ())
    compiled = torch.compiled
    whole = not torch.deleted and compiled is not None and not compiled.missing and not compiled.error
    return replace(
        python,
        torch=torch,
        extensions=tuple(_extensions(map(Path, places), linker, whole)),
        libgomp=_libgomp(site) if os.uname().machine == "aarch64" else None,
    )


class Linker:
    """Finds libraries as the dynamic linker and torch's own loader do, well enough to say "nowhere"."""

    def __init__(self, site: Path, root: Path, environment: Mapping[str, str]) -> None:
        self.torch_lib = site / "torch/lib"
        self.folders = [Path(each) for each in environment.get("LD_LIBRARY_PATH", "").split(":") if each]
        self.folders += [self.torch_lib, *globbed(site, "nvidia/*/lib")]
        if len(site.parents) > 1:
            self.folders.append(site.parents[1])  # conda keeps CUDA in <prefix>/lib, beside python3.x
        self.folders += [root / each for each in FOLDERS]
        self.cache = cached_names(root)
        self.listed = _listed(self.torch_lib)
        # Wheels rename libraries (libcudart-80664282.so.10.2) and leave their SONAME as it was; once torch
        # has loaded them, others that need libcudart.so.10.2 are content.
        self.sonames = {_soname(path) for path in globbed(self.torch_lib, "lib*-*.so*")}

    def find(self, name: str, search: Sequence[str]) -> Path | None:
        places = (folder / name for folder in (*map(Path, search), *self.folders))
        return next((place for place in places if os.path.exists(place)), None)

    def known(self, name: str, search: Sequence[str]) -> bool:
        """Whether it would be found; `libcuda.so.1` and the like are the driver's affair."""
        in_cache = b"\0" + name.encode() + b"\0" in self.cache
        loaded = in_cache or name in self.sonames
        return bool(FOREIGN.match(name)) or loaded or self.find(name, search) is not None


def _listed(folder: Path) -> tuple[frozenset[str], frozenset[str]] | None:
    try:
        with Elf(folder / "libtorch_python.so") as elf:
            return listed_by_torch(elf)
    except (NotElf, OSError):  # told when it is described
        return None


def _soname(path: Path) -> str | None:
    try:
        with Elf(path) as elf:
            return elf.soname()
    except (NotElf, OSError):
        return None


def _torch(torch: Torch, site: Path, version: str, linker: Linker) -> Torch:
    compiled, closure = Compiled("torch"), []
    try:
        closure = list(_closure(linker.torch_lib, linker))
        compiled = _together([each for each, _ in closure], [path for _, path in closure])
    except OSError as error:
        compiled = Compiled("torch", error=_told(error))
    return replace(
        torch,
        compiled=compiled,
        deleted=_deleted(site, version),
        nccl=_nccl(site, linker.torch_lib),
    )


def _closure(folder: Path, linker: Linker) -> Iterator[tuple[Compiled, Path]]:
    """Every library of torch that its import loads."""
    waiting = [name for name in TORCH_STARTS if (folder / name).exists()]
    seen = set(waiting)
    while waiting:
        path = folder / waiting.pop()
        described, needed = describe(path, linker)
        yield described, path
        for name in needed:
            if name not in seen and (folder / name).exists():
                seen.add(name)
                waiting.append(name)


def describe(path: Path, linker: Linker, name: str | None = None) -> tuple[Compiled, tuple[str, ...]]:
    """One library, and what it needs."""
    try:
        with Elf(path) as elf:
            needed, search, versions = elf.needed(), elf.search_path(), elf.version_needs()
            fatbin = _of_torch(path, read_fatbin(elf), linker)
    except (NotElf, OSError) as error:
        return Compiled(name or path.name, error=_told(error)), ()
    return Compiled(
        name or path.name,
        architectures=fatbin.architectures if fatbin else (),
        ptx=fatbin.intermediate if fatbin else (),
        gpu_code_b=fatbin.size_b if fatbin else 0,
        missing=tuple(each for each in needed if not linker.known(each, search)),
        glibcxx=newest(versions, "GLIBCXX"),
        cxxabi=newest(versions, "CXXABI"),
        glibc=newest(versions, "GLIBC"),
    ), needed


def _of_torch(path: Path, fatbin: Fatbin | None, linker: Linker) -> Fatbin | None:
    if fatbin is None or linker.listed is None or path.parent != linker.torch_lib:
        return fatbin
    return only_listed(fatbin, linker.listed)


def _together(parts: Sequence[Compiled], paths: Sequence[Path]) -> Compiled:
    """The libraries of torch as one; code for GPUs lies in libtorch_cuda*.so, all else is linked in."""
    if not parts:
        return Compiled("torch", error="torch/lib holds no libtorch_python.so")
    kernels = [each for each in parts if each.name.startswith("libtorch_cuda")] or list(parts)
    biggest = max(kernels, key=lambda each: each.gpu_code_b or 0)
    return Compiled(
        "torch",
        architectures=biggest.architectures,
        ptx=biggest.ptx,
        gpu_code_b=sum(each.gpu_code_b or 0 for each in parts),
        missing=tuple(sorted({f"{name} (for {each.name})" for each in parts for name in each.missing or ()})),
        glibcxx=_latest(each.glibcxx for each in parts),
        cxxabi=_latest(each.cxxabi for each in parts),
        glibc=_latest(each.glibc for each in parts),
        error=next((each.error for each in parts if each.error), None),
    )


def _latest(versions: Iterable[str | None]) -> str | None:
    known = [each for each in versions if each]
    return max(known, key=lambda each: [int(part) for part in each.split(".")], default=None)


def _deleted(site: Path, version: str) -> tuple[str, ...] | None:
    """Libraries in torch/lib that pip wrote down and that are gone."""
    try:
        record = (site / f"torch-{version}.dist-info/RECORD").read_text(errors="replace")
    except OSError:
        return None
    names = re.findall(r"^(torch/lib/[^/,]+\.so[.\d]*),", record, re.M)
    return tuple(name for name in names if _gone(site / name))


def _gone(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:  # a forbidden folder says nothing of what is in it
        return False
    return False


def _told(error: OSError | NotElf) -> str:
    """`libc10.so: Permission denied`."""
    if isinstance(error, NotElf):
        return str(error)
    return f"{Path(str(error.filename)).name}: {error.strerror}"


def _nccl(site: Path, folder: Path) -> str | None:
    """`2.10.3`: NCCL prints this text itself, so it stands in whatever library holds it."""
    for path in (site / "nvidia/nccl/lib/libnccl.so.2", *globbed(folder, "libtorch_cuda*.so")):
        try:
            with Elf(path) as elf:
                match = elf.search(".rodata", NCCL)
                if match:
                    return match[1].decode()
        except (NotElf, OSError):
            continue
    return None


def _extensions(places: Iterable[Path], linker: Linker, whole: bool) -> Iterator[Compiled]:
    """The first package of a name counts, as in an import."""
    seen: set[str] = set()
    libraries = globbed(linker.torch_lib, "*.so") if whole else []
    for site in places:
        present = [path for pattern in EXTENSIONS for path in globbed(site, pattern)]
        if "mmcv" not in seen:
            yield from _forbidden(site)
        for path in present:
            if path.relative_to(site).parts[0] not in seen:
                yield _extension(path, str(path.relative_to(site)), linker, libraries)
        seen |= {path.relative_to(site).parts[0] for path in present}


def _forbidden(site: Path) -> Iterator[Compiled]:
    """A folder in which a glob finds nothing because nobody may look."""
    try:
        os.listdir(site / "mmcv")
    except PermissionError as error:
        yield Compiled("mmcv/_ext*.so", error=error.strerror)
    except OSError:
        return


def _extension(path: Path, name: str, linker: Linker, libraries: Sequence[Path]) -> Compiled:
    described, _ = describe(path, linker, name)
    if described.error or not libraries:
        return described
    try:
        lacking = _lacking(path, libraries)
    except (NotElf, OSError) as error:
        return replace(described, error=_told(error))
    return replace(described, undefined=tuple(lacking[:NAMED]), undefined_count=len(lacking))


def _lacking(path: Path, libraries: Sequence[Path]) -> list[str]:
    """Symbols of torch that `path` needs and that none of torch's libraries defines."""
    with Elf(path) as elf:
        wanted = sorted(name for name in elf.undefined() if TORCH_SYMBOL.match(name))
    for library in libraries:
        if not wanted:
            break
        with Elf(library) as elf:
            wanted = [name for name in wanted if not elf.defines(name)]
    return wanted


def probe_libstdcxx(
    prefix: str | None, root: Path = Path("/"), environment: Mapping[str, str] | None = None
) -> LibStdCxx | None:
    """The one that the interpreter at `prefix` would load: LD_LIBRARY_PATH, conda's own, the system's."""
    environment = os.environ if environment is None else environment
    folders = [Path(each) for each in environment.get("LD_LIBRARY_PATH", "").split(":") if each]
    if prefix and os.path.isdir(Path(prefix) / "conda-meta"):
        folders.append(Path(prefix) / "lib")  # conda's python carries this folder as its RPATH
    for folder in (*folders, *(root / each for each in FOLDERS)):
        path = folder / "libstdc++.so.6"
        try:
            with Elf(path) as elf:
                offered = elf.version_definitions()
        except (NotElf, OSError):
            continue
        return LibStdCxx(str(path), newest(offered, "GLIBCXX"), newest(offered, "CXXABI"))
    return None


def _libgomp(site: Path) -> tuple[str, ...]:
    return tuple(str(path.relative_to(site)) for path in globbed(site, "*.libs/libgomp*"))
