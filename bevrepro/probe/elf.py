"""Shared libraries read as files: what they need, what they define, which versions they ask for.

Nothing is loaded or run. A library may have gigabytes: it is mapped, and single symbols are looked up
through its hash table, as the dynamic linker does (elf(5), System V gABI, GNU hash of glibc's dl-lookup.c).
"""

import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType

from bevrepro.probe.files import open_plain

PT_LOAD, PT_DYNAMIC = 1, 2
DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_SONAME, DT_RPATH, DT_RUNPATH = 1, 4, 5, 6, 14, 15, 29
DT_GNU_HASH, DT_VERDEF, DT_VERNEED = 0x6FFFFEF5, 0x6FFFFFFC, 0x6FFFFFFE
SHN_UNDEF, STB_GLOBAL = 0, 1
MACHINES = {62: "x86_64", 183: "aarch64"}
MOST_ENTRIES = 4_000_000  # of any table: a broken file must not keep us busy


class NotElf(ValueError):
    """Not a 64-bit little-endian ELF file, or one that is cut or broken."""


@dataclass(frozen=True)
class Section:
    """A section by name, with its place in the file."""

    name: str
    offset: int
    size: int


class Elf:
    """One library, mapped. Use it in a `with`; every method raises NotElf where the file is broken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_plain(path) as file:
            try:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:  # an empty file
                raise NotElf(f"{path} is empty") from error
        try:
            self._read_header()
        except NotElf:
            self._map.close()
            raise

    def __enter__(self) -> "Elf":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._map.close()

    def _read_header(self) -> None:
        if self._map[:4] != b"\x7fELF" or self._map[4:6] != b"\x02\x01":
            raise NotElf(f"{self.path} is no 64-bit ELF file")
        head = self._unpack("<HHIQQQIHHHHHH", 16)
        self.arch = MACHINES.get(head[1], str(head[1]))
        self._sections_at, self._section_size, self._section_count, self._names_index = (
            head[5], head[10], head[11], head[12],
        )  # fmt: skip
        self._segments: list[tuple[int, int, int]] = []  # (address, offset, size in the file) of PT_LOAD
        self._dynamic: dict[int, list[int]] = {}
        table = None
        for index in range(head[9]):
            kind, _, offset, address, _, size, _, _ = self._unpack("<IIQQQQQQ", head[4] + index * head[8])
            if kind == PT_LOAD:
                self._segments.append((address, offset, size))
            elif kind == PT_DYNAMIC:
                table = (offset, size)
        for at in range(table[0], table[0] + min(table[1], 1 << 20), 16) if table else ():
            tag, value = self._unpack("<qQ", at)
            if tag == 0:
                break
            self._dynamic.setdefault(tag, []).append(value)

    def needed(self) -> tuple[str, ...]:
        """DT_NEEDED: `libc10.so`, `libcudart.so.11.0`."""
        return tuple(self._strings(DT_NEEDED))

    def soname(self) -> str | None:
        return next(self._strings(DT_SONAME), None)

    def search_path(self) -> tuple[str, ...]:
        """DT_RUNPATH, else DT_RPATH, with $ORIGIN put in."""
        origin = str(self.path.resolve().parent)
        tag = DT_RUNPATH if DT_RUNPATH in self._dynamic else DT_RPATH
        joined = ":".join(self._strings(tag))
        plain = joined.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)
        return tuple(folder for folder in plain.split(":") if folder)

    def undefined(self) -> Iterator[str]:
        """Names that another library has to define; weak ones may stay open and are left out."""
        for name_at, info, section in self._symbols():
            if section == SHN_UNDEF and name_at and info >> 4 == STB_GLOBAL:
                yield self._string(name_at)

    def defines(self, name: str) -> bool:
        """Whether the library exports this symbol: one look into its hash table."""
        if DT_GNU_HASH in self._dynamic:
            return self._in_gnu_hash(name.encode())
        return any(
            section != SHN_UNDEF and self._string(at) == name for at, _, section in self._symbols() if at
        )

    def version_needs(self) -> tuple[str, ...]:
        """What .gnu.version_r asks of other libraries: `GLIBC_2.17`, `GLIBCXX_3.4.21`, `CXXABI_1.3`."""
        return tuple(sorted(set(self._versions(DT_VERNEED, "<HHIII", 8, 12, "<IHHII", 16, 8))))

    def version_definitions(self) -> tuple[str, ...]:
        """What .gnu.version_d offers to others."""
        return tuple(sorted(set(self._versions(DT_VERDEF, "<HHHHIII", 12, 16, "<II", 8, 0))))

    def sections(self) -> tuple[Section, ...]:
        """All sections; none where the table was stripped off."""
        if not self._sections_at or not self._section_count:
            return ()
        entries = [
            self._unpack("<IIQQQQIIQQ", self._sections_at + index * self._section_size)
            for index in range(self._section_count)
        ]
        if self._names_index >= len(entries):
            raise NotElf(f"{self.path}: no table of section names")
        names_at = entries[self._names_index][4]
        return tuple(Section(self._text(names_at + each[0]), each[4], each[5]) for each in entries)

    def search(self, section: str, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """The first match in that section. It may have gigabytes: begin the pattern with fixed words."""
        for each in self.sections():
            if each.name == section:
                return pattern.search(self._map, each.offset, each.offset + each.size)
        return None

    def search_all(self, section: str, pattern: re.Pattern[bytes]) -> Iterator[re.Match[bytes]]:
        """Every match in that section, as `search`."""
        for each in self.sections():
            if each.name == section:
                yield from pattern.finditer(self._map, each.offset, each.offset + each.size)

    def bytes_at(self, offset: int, size: int) -> bytes:
        """A piece of the file."""
        piece = self._map[offset : offset + size]
        if len(piece) < size:
            raise NotElf(f"{self.path} ends before offset {offset + size}")
        return piece

    # -- tables

    def _symbols(self) -> Iterator[tuple[int, int, int]]:
        """(offset of the name, info, section index) of every dynamic symbol."""
        tables = self._dynamic.get(DT_SYMTAB)
        if not tables:
            return
        start, count = self._offset(tables[0]), self._symbol_count()
        piece = self.bytes_at(start, 24 * count)
        for name_at, info, _, section, _, _ in struct.iter_unpack("<IBBHQQ", piece):
            yield name_at, info, section

    def _symbol_count(self) -> int:
        if DT_HASH in self._dynamic:
            return self._limit(self._unpack("<II", self._offset(self._dynamic[DT_HASH][0]))[1])
        if DT_GNU_HASH not in self._dynamic:
            # The string table follows the symbols in what every linker writes.
            first, end = self._dynamic[DT_SYMTAB][0], self._dynamic[DT_STRTAB][0]
            return self._limit(max(end - first, 0) // 24)
        buckets_at, bucket_count, chains_at, first = self._gnu_hash()[:4]
        last = max(struct.unpack(f"<{bucket_count}I", self.bytes_at(buckets_at, 4 * bucket_count)), default=0)
        if last < first:
            return first  # nothing is exported: all symbols come before the hashed ones
        while not self._unpack("<I", chains_at + 4 * (last - first))[0] & 1:
            last += 1
        return self._limit(last + 1)

    def _gnu_hash(self) -> tuple[int, int, int, int, int, int, int]:
        """(buckets, their number, chains, first hashed symbol, bloom filter, its words, its shift)."""
        at = self._offset(self._dynamic[DT_GNU_HASH][0])
        bucket_count, first, words, shift = self._unpack("<IIII", at)
        bloom_at = at + 16
        buckets_at = bloom_at + 8 * self._limit(words)
        chains_at = buckets_at + 4 * self._limit(bucket_count)
        return buckets_at, bucket_count, chains_at, first, bloom_at, words, shift

    def _in_gnu_hash(self, name: bytes) -> bool:
        buckets_at, bucket_count, chains_at, first, bloom_at, words, shift = self._gnu_hash()
        if not bucket_count or not words:
            return False
        value = gnu_hash(name)
        word = self._unpack("<Q", bloom_at + 8 * (value // 64 % words))[0]
        if not (word >> value % 64 & 1 and word >> (value >> shift) % 64 & 1):
            return False
        index = self._unpack("<I", buckets_at + 4 * (value % bucket_count))[0]
        if index < first:
            return False
        symbols_at, strings_at = (self._offset(self._dynamic[tag][0]) for tag in (DT_SYMTAB, DT_STRTAB))
        for each in range(index, index + MOST_ENTRIES):
            chain = self._unpack("<I", chains_at + 4 * (each - first))[0]
            if chain | 1 == value | 1:
                name_at, _, _, section = self._unpack("<IBBH", symbols_at + 24 * each)
                where = strings_at + name_at
                if section != SHN_UNDEF and self._map[where : where + len(name) + 1] == name + b"\0":
                    return True
            if chain & 1:
                break
        return False

    def _versions(
        self, tag: int, form: str, aux_at: int, next_at: int, aux_form: str, aux_next: int, name_at: int
    ) -> Iterator[str]:
        """Names in a linked list of lists: .gnu.version_r and .gnu.version_d differ in their offsets."""
        at = self._offset(self._dynamic[tag][0]) if tag in self._dynamic else 0
        base = at
        while at and at - base < 1 << 20:
            self._unpack(form, at)
            aux = at + self._unpack("<I", at + aux_at)[0]
            first_is_file = tag == DT_VERDEF and self._unpack("<H", at + 2)[0] & 1  # VER_FLG_BASE: the soname
            count = self._unpack("<H", at + (6 if tag == DT_VERDEF else 2))[0]
            for _ in range(1 if tag == DT_VERDEF else count):
                self._unpack(aux_form, aux)
                if not first_is_file:
                    yield self._string(self._unpack("<I", aux + name_at)[0])
                step = self._unpack("<I", aux + (4 if tag == DT_VERDEF else 12))[0]
                if not step:
                    break
                aux += step
            step = self._unpack("<I", at + next_at)[0]
            at = at + step if step else 0

    # -- bytes

    def _strings(self, tag: int) -> Iterator[str]:
        for value in self._dynamic.get(tag, ()):
            yield self._string(value)

    def _string(self, offset: int) -> str:
        if DT_STRTAB not in self._dynamic:
            raise NotElf(f"{self.path} has no string table")
        return self._text(self._offset(self._dynamic[DT_STRTAB][0]) + offset)

    def _text(self, at: int) -> str:
        end = self._map.find(b"\0", at, at + 1 << 16) if 0 <= at < len(self._map) else -1
        if end < 0:
            raise NotElf(f"{self.path}: a name at {at} has no end")
        return self._map[at:end].decode("utf-8", "replace")

    def _offset(self, address: int) -> int:
        """Where in the file the byte lies that is loaded at `address`."""
        for start, offset, size in self._segments:
            if start <= address < start + size:
                return address - start + offset
        raise NotElf(f"{self.path}: nothing is loaded at {address:#x}")

    def _unpack(self, form: str, at: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(form, self._map, at)
        except struct.error as error:
            raise NotElf(f"{self.path} ends before offset {at}") from error

    def _limit(self, count: int) -> int:
        if count > MOST_ENTRIES:
            raise NotElf(f"{self.path}: a table of {count} entries")
        return count


@lru_cache(maxsize=4096)  # the same names are looked up in one library after another
def gnu_hash(name: bytes) -> int:
    """The hash of DT_GNU_HASH: djb2 in 32 bits."""
    value = 5381
    for byte in name:
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value


def newest(versions: tuple[str, ...], prefix: str) -> str | None:
    """`3.4.30` of `GLIBCXX_3.4.30` and older ones; names like `GLIBCXX_DEBUG` do not count."""
    numbers = [
        each[len(prefix) + 1 :] for each in versions if re.fullmatch(prefix + r"_\d{1,6}(\.\d{1,6})*", each)
    ]
    return max(numbers, key=lambda each: [int(part) for part in each.split(".")], default=None)


def plain_name(symbol: str) -> str:
    """`c10::impl::cow::f` of a mangled nested name; without arguments, for people; others stay."""
    match = re.match(r"_Z(?:T[IVST])?N[KVrRO]*", symbol)
    rest, parts = symbol[match.end() :] if match else "", []
    while True:
        number = re.match(r"(?:St|L)?(\d{1,6})", rest)
        if number is None or len(rest) < number.end() + int(number[1]):
            break
        end = number.end() + int(number[1])
        parts.append(rest[number.end() : end])
        rest = rest[end:]
    return "::".join(parts) if len(parts) > 1 else symbol
