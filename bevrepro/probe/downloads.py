"""What browsers and downloaders do to a file's name: unfinished downloads, second copies, split parts."""

import re
from dataclasses import dataclass

UNFINISHED = (
    "crdownload", "part", "partial", "download", "opdownload", "fdmdownload", "downloading", "filepart",
    "aria2", "xltd", "td", "tmp", "!qb", "!ut", "bc!", "dctmp",
)  # fmt: skip
ARCHIVE = re.compile(r"\.(tgz|tar\.gz|tar\.bz2|tar\.xz|tar|zip)$", re.IGNORECASE)
_ENDING = r"\.(?:tgz|tar\.gz|tar\.bz2|tar|zip)"
_SPLIT = re.compile(rf"^(.+{_ENDING})[._-]?(?:part[._-]?(\d+|[a-z]{{2,3}})|([a-z]{{2}}|\d{{2,4}}))$", re.I)
_NUMBERED = re.compile(rf"^(.+{_ENDING})\.\d$", re.I)  # wget's second copy
_COPY = re.compile(
    rf"^(.+?)(?: ?\(\d{{1,3}}\)| ?[-_ ] ?copy(?: ?\(?\d+\)?)?| 副本| - 副本)({_ENDING})$", re.I
)
_RANDOM = re.compile(rf"^(.+)\.[A-Za-z0-9_-]{{8}}({_ENDING})$")  # Firefox: NAME.x7Gh_2Kq.tgz.part


@dataclass(frozen=True)
class Name:
    """`plain` is the name as it was published, as far as it can be told. state: whole, unfinished, copy,
    split (then `piece` orders the pieces), query (a web address' parameters are still on it)."""

    plain: str
    state: str = "whole"
    piece: str = ""


def parse(name: str) -> Name:
    """By the name alone."""
    head, query, _ = name.partition("?")
    if query and ARCHIVE.search(head):
        return Name(head, "query")
    stem, _, ending = name.rpartition(".")
    if ending.lower() in UNFINISHED:
        inner = parse(stem).plain if stem else ""
        random = _RANDOM.match(inner)
        return Name(random[1] + random[2] if random else inner, "unfinished")
    if split := _SPLIT.match(name):
        return Name(split[1], "split", (split[2] or split[3]).lower())
    if numbered := _NUMBERED.match(name):
        return Name(numbered[1], "copy")
    if copy := _COPY.match(name):
        return Name(copy[1] + copy[2], "copy")
    return Name(name)


def stem(name: str) -> str:
    """Without the archive's ending, for comparison: a browser may have unpacked a .tgz to a .tar."""
    return ARCHIVE.sub("", name).lower()
