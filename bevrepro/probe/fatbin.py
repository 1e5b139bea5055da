"""GPU architectures in a compiled library, from its .nv_fatbin sections: no CUDA tool, no GPU.

The section is a row of fat binaries: a header (magic, version, size of the header, size of what follows)
and in it entries (kind, version, size of the header, padded size, ..., architecture). Only headers are
read; the code between them is skipped, so gigabytes cost their headers. The layout is undocumented: it is
the one that cuobjdump reads: checked against files compiled by nvcc 13.0, and against cuobjdump 13.4 and
torch's own list for the wheels of torch 1.8.1 to 2.10.0 (compressed and not, split libtorch_cuda or one).
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
# What torch.cuda.get_arch_list() returns, as libtorch_python.so holds it.
LIST = re.compile(rb"sm_\d{2,3}[af]?(?: (?:sm|compute)_\d{2,3}[af]?)*(?=\0)")


@dataclass(frozen=True)
class Fatbin:
    """What a library has for GPUs."""

    size_b: int  # of all sections
    cubins: dict[int, int]  # 80 -> number of parts compiled for sm_80
    ptx: dict[int, int]

    @property
    def architectures(self) -> tuple[str, ...]:
        """`("3.7", "8.0")`: those that the bulk of the code was compiled for."""
        return _bulk(self.cubins)

    @property
    def intermediate(self) -> tuple[str, ...]:
        """The same of PTX, which the driver can compile for newer GPUs."""
        return _bulk(self.ptx, max(self.cubins.values(), default=0))


def read_fatbin(elf: Elf) -> Fatbin | None:
    """None where the library holds no code for GPUs. Raises NotElf for a broken file."""
    cubins: Counter[int] = Counter()
    ptx: Counter[int] = Counter()
    sections = [section for section in elf.sections() if section.name in SECTIONS and section.size]
    for section in sections:
        _walk(elf, section.offset, section.offset + section.size, cubins, ptx)
    return Fatbin(sum(each.size for each in sections), dict(cubins), dict(ptx)) if sections else None


def listed_by_torch(elf: Elf) -> tuple[frozenset[int], frozenset[int]] | None:
    """(cubins, PTX) that torch was told to compile for, from libtorch_python.so; None where it has no list.

    What is linked in (NCCL, cuDNN, cuBLAS, magma) was compiled for others: half of the parts of torch 1.10's
    libtorch_cuda.so are for 7.5 and 3.5 too, and torch itself has no kernels for either.
    """
    found = max((match[0] for match in elf.search_all(".rodata", LIST)), key=len, default=b"").decode()
    numbers = [(kind, int(number)) for kind, number in re.findall(r"(sm|compute)_(\d+)", found)]
    cubins, ptx = (frozenset(n for kind, n in numbers if kind == wanted) for wanted in ("sm", "compute"))
    return (cubins, ptx) if cubins else None


def only_listed(fatbin: Fatbin, listed: tuple[frozenset[int], frozenset[int]]) -> Fatbin:
    """Without what was linked in; as it was where the list fits nothing that is there."""
    cubins, ptx = ({n: count for n, count in counts.items() if n in names}
                   for counts, names in zip((fatbin.cubins, fatbin.ptx), listed, strict=True))  # fmt: skip
    return Fatbin(fatbin.size_b, cubins, ptx) if cubins else fatbin


def _walk(elf: Elf, at: int, end: int, cubins: Counter[int], ptx: Counter[int]) -> None:
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
                (ptx if kind == PTX else cubins)[architecture] += 1
            at += entry_b + padded_b
        at = max(stop, at)


def _bulk(counts: dict[int, int], among: int = 0) -> tuple[str, ...]:
    most = max((*counts.values(), among), default=0)
    return tuple(f"{each // 10}.{each % 10}" for each in sorted(counts) if counts[each] >= SHARE * most)
