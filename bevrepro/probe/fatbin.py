"""GPU architectures in a compiled library, from its .nv_fatbin sections: no CUDA tool, no GPU.

The section is a row of fat binaries: a header (magic, version, size of the header, size of what follows)
and in it entries (kind, version, size of the header, padded size, ..., architecture). Only headers are
read; the code between them is skipped, so gigabytes cost their headers. The layout is undocumented: it is
the one that cuobjdump reads: checked against files compiled by nvcc 13.0, and against cuobjdump 13.4 and
torch's own list for the wheels of torch 1.8.1 to 2.10.0 (compressed and not, split libtorch_cuda or one).

Code for sm_90a or sm_100f carries the number 90 or 100 and a bit of its flags (facts/torch.toml,
suffix-bits). An architecture is named as nvcc names it: "80", "90a".
"""

import re
import struct
from collections import Counter
from dataclasses import dataclass

from bevrepro.probe.elf import Elf

MAGIC = 0xBA55ED50
PTX, CUBIN = 1, 2
SECTIONS = (".nv_fatbin", "__nv_relfatbin")  # the second: relocatable device code
SHARE = 0.1  # an architecture that fewer parts have comes from a library linked in
SUFFIXES = ((1 << 20, "a"), (1 << 21, "f"))
FIRST_SUFFIXED = 90  # sm_90a is the oldest
# What torch.cuda.get_arch_list() returns, as libtorch_python.so holds it.
LIST = re.compile(rb"sm_\d{2,3}[af]?(?: (?:sm|compute)_\d{2,3}[af]?)*(?=\0)")


@dataclass(frozen=True)
class Fatbin:
    """What a library has for GPUs."""

    size_b: int  # of all sections
    cubins: dict[str, int]  # "80" -> number of parts compiled for sm_80
    ptx: dict[str, int]

    @property
    def architectures(self) -> tuple[str, ...]:
        """`("3.7", "8.0", "9.0a")`: those that the bulk of the code was compiled for."""
        return _bulk(self.cubins)

    @property
    def intermediate(self) -> tuple[str, ...]:
        """The same of PTX, which the driver can compile for newer GPUs."""
        return _bulk(self.ptx, max(self.cubins.values(), default=0))


def read_fatbin(elf: Elf) -> Fatbin | None:
    """None where the library holds no code for GPUs. Raises NotElf for a broken file."""
    cubins: Counter[str] = Counter()
    ptx: Counter[str] = Counter()
    sections = [section for section in elf.sections() if section.name in SECTIONS and section.size]
    for section in sections:
        _walk(elf, section.offset, section.offset + section.size, cubins, ptx)
    return Fatbin(sum(each.size for each in sections), dict(cubins), dict(ptx)) if sections else None


def listed_by_torch(elf: Elf) -> tuple[frozenset[str], frozenset[str]] | None:
    """(cubins, PTX) that torch was told to compile for, from libtorch_python.so; None where it has no list.

    What is linked in (NCCL, cuDNN, cuBLAS, magma) was compiled for others: half of the parts of torch 1.10's
    libtorch_cuda.so are for 7.5 and 3.5 too, and torch itself has no kernels for either.
    """
    found = max((match[0] for match in elf.search_all(".rodata", LIST)), key=len, default=b"").decode()
    names = re.findall(r"(sm|compute)_(\d+[af]?)", found)
    cubins, ptx = (frozenset(name for kind, name in names if kind == wanted) for wanted in ("sm", "compute"))
    return (cubins, ptx) if cubins else None


def only_listed(fatbin: Fatbin, listed: tuple[frozenset[str], frozenset[str]]) -> Fatbin:
    """Without what was linked in; as it was where the list fits nothing that is there."""
    cubins, ptx = ({n: count for n, count in counts.items() if n in names}
                   for counts, names in zip((fatbin.cubins, fatbin.ptx), listed, strict=True))  # fmt: skip
    return Fatbin(fatbin.size_b, cubins, ptx) if cubins else fatbin


def _walk(elf: Elf, at: int, end: int, cubins: Counter[str], ptx: Counter[str]) -> None:
    while at + 16 <= end:
        magic, _, head_b, body_b = struct.unpack("<IHHQ", elf.bytes_at(at, 16))
        if magic != MAGIC:
            at += 8  # padding between fat binaries
            continue
        stop = min(at + head_b + body_b, end)
        at += max(head_b, 16)
        while at + 32 <= stop:
            kind, _, entry_b, padded_b = struct.unpack("<HHIQ", elf.bytes_at(at, 16))
            (architecture,) = struct.unpack("<I", elf.bytes_at(at + 28, 4))
            if entry_b < 32:
                break  # not a layout we know
            if kind in (PTX, CUBIN):
                suffix = _suffix(elf, at) if architecture >= FIRST_SUFFIXED and entry_b >= 48 else ""
                (ptx if kind == PTX else cubins)[f"{architecture}{suffix}"] += 1
            at += entry_b + padded_b
        at = max(stop, at)


def _suffix(elf: Elf, entry: int) -> str:
    (flags,) = struct.unpack("<Q", elf.bytes_at(entry + 40, 8))
    return next((suffix for bit, suffix in SUFFIXES if flags & bit), "")


def _bulk(counts: dict[str, int], among: int = 0) -> tuple[str, ...]:
    most = max((*counts.values(), among), default=0)
    return tuple(map(_dotted, sorted((each for each in counts if counts[each] >= SHARE * most), key=_split)))


def _split(name: str) -> tuple[int, str]:
    number = name.rstrip("af")
    return int(number), name[len(number) :]


def _dotted(name: str) -> str:
    number, suffix = _split(name)
    return f"{number // 10}.{number % 10}{suffix}"
