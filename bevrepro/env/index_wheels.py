"""Wheels of the package index that pip and uv are set up for, or only some members of a wheel there.

No index is named here: what pip's or uv's own configuration says is asked, and uv for its default.
"""

import io
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bevrepro.core import proc
from bevrepro.env import index
from bevrepro.env.cuda_recipe import Part
from bevrepro.env.fetch import NETWORK, NotFetched, Via, is_local, opened, plain, reason
from bevrepro.env.index_page import links
from bevrepro.env.unpack import BROKEN, Member, members, members_digest

BLOCK_B = 1 << 18  # of a remote wheel: its list of members and its headers lie close together


@dataclass(frozen=True)
class Indexes:
    """Simple indexes, in the order in which they are asked, and folders or pages with wheels themselves."""

    simple: tuple[str, ...]
    links: tuple[str, ...] = ()
    via: Via = Via()


@cache
def configured() -> Indexes:
    """What pip and uv are told by their files and variables; uv's default index where nothing is said."""
    own = index.configured()
    if own.no_index:
        return Indexes((), own.find_links)
    simple = [own.index_url] if own.index_url else _uv_indexes(own)
    return Indexes(tuple(dict.fromkeys([*simple, *own.extra])), own.find_links, own.via)


def addresses(part: Part, indexes: Indexes) -> list[str]:
    """Where the wheel lies, by its index pages. Raises NotFetched with what each said where none has it."""
    found: list[str] = []
    tried: list[str] = []
    pages: list[str] = []
    for place in indexes.links:
        local = Path(place.removeprefix("file://")) / part.file
        if place.startswith(("http://", "https://")):
            pages.append(place)
        elif local.is_file():
            found.append(local.absolute().as_uri())
    pages += [base.rstrip("/") + f"/{part.name}/" for base in indexes.simple]
    for page in pages if not found else ():
        try:
            found += _on_page(page, part, indexes.via)
        except (*NETWORK, OSError, ValueError) as error:
            tried.append(f"{plain(page)}: {reason(error)}")
        else:
            if found:
                break
            tried.append(f"{plain(page)}: it does not list {part.file}")
    if not found:
        raise NotFetched(tried or [f"{part.file}: no package index is set up"])
    return found


def members_of(part: Part, urls: list[str], via: Via) -> list[Member] | None:
    """The members a recipe wants of a remote wheel, read by ranges; None where no server allows that.

    Raises NotFetched where a server gave other members than those measured.
    """
    for url in urls:
        if is_local(url):
            continue
        try:
            with zipfile.ZipFile(io.BufferedReader(_Remote(url, part.size, via), BLOCK_B)) as archive:
                found = members(part, archive)
        except (*NETWORK, *BROKEN, OSError):
            continue  # fetched as a whole instead, which says what is wrong
        if members_digest(found) != part.members_sha256:
            raise NotFetched([f"{plain(url)}: its headers are not those that were measured"], altered=True)
        return found
    return None


def _on_page(page: str, part: Part, via: Via) -> list[str]:
    # A page that promises another hash offers another file under this name.
    right = ("", f"sha256={part.sha256}")
    return [each.address for each in links(page, via) if each.name == part.file and each.fragment in right]


class _Remote(io.RawIOBase):
    """A file on a server that answers for ranges, to be read from anywhere."""

    def __init__(self, url: str, size: int, via: Via) -> None:
        self._url, self._size, self._via, self._at = url, size, via, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        wish = {"Range": f"bytes={self._at}-{self._at + wanted - 1}"}
        with opened(self._url, wish, self._via) as response:
            if getattr(response, "status", None) != 206:
                raise ValueError("this server sends files as a whole")
            piece = response.read(wanted)
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _uv_indexes(own: index.Index) -> list[str]:
    """The indexes uv would use: its files, its variables, or the default it carries."""
    words = ["pip", "compile", "-", "--quiet", "--no-header", "--offline", "--emit-index-url"]
    done = proc.run([index.uv(), *words], env=own.environment(), input_text="", timeout_s=30)
    pairs = [line.split(None, 1) for line in done.stdout.splitlines() if "index-url" in line]
    return [pair[1].strip() for pair in pairs if len(pair) == 2]
