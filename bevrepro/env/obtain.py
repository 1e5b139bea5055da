"""The files of a toolkit's recipe: from folders at hand, the cache, or a source that can be reached."""

import json
from dataclasses import dataclass
from pathlib import Path

from bevrepro.env import debs, index_wheels, redist
from bevrepro.env.cuda_recipe import Part, Source
from bevrepro.env.fetch import NotFetched, OnEvent, fetch
from bevrepro.env.tree import sha256_of
from bevrepro.env.unpack import Member, members_digest


@dataclass(frozen=True)
class Sources:
    """Where a toolkit may come from.

    `kinds`: sources to try, in this order; the recipe's own order where None. `mirror` stands in for
    NVIDIA's server, `deb_mirror` for apt's mirrors of Debian. `folders` hold files by their names (an
    unpacked bundle). `offline`: nothing but `folders` and the cache.
    """

    kinds: tuple[str, ...] | None = None
    mirror: str | None = None
    deb_mirror: str | None = None
    folders: tuple[Path, ...] = ()
    offline: bool = False
    indexes: index_wheels.Indexes | None = None  # pip's and uv's own where None


@dataclass(frozen=True)
class Obtained:
    """A part at hand: as a whole file, or the few members that were wanted."""

    part: Part
    file: Path | None
    members: tuple[Member, ...] = ()


def obtain(part: Part, source: Source, sources: Sources, files: Path, on_event: OnEvent) -> Obtained:
    """The part, checked by sha256, in `files` or in one of the folders. Raises NotFetched."""
    target = files / f"{part.sha256[:16]}-{part.file}"
    for place in (*(folder / part.file for folder in sources.folders), target):
        if place.is_file() and sha256_of(place) == part.sha256:
            return Obtained(part, place)
    for folder in (files, *sources.folders) if part.members_sha256 else ():
        if kept := _kept(_kept_path(part, folder), part.members_sha256 or ""):
            return Obtained(part, None, kept)
    if sources.offline:
        raise NotFetched([f"{part.file}: neither in the cache nor in {_named(sources.folders)}"])
    if part.kind == "archive":
        urls = [redist.address(source, part, sources.mirror)]
        return Obtained(part, fetch(part.file, urls, part.sha256, part.size, target, on_event))
    if part.kind == "deb":
        return Obtained(
            part, debs.fetch_deb(part, debs.addresses(part, sources.deb_mirror), target, on_event)
        )
    return _wheel(part, sources, target, files, on_event)


def _wheel(part: Part, sources: Sources, target: Path, files: Path, on_event: OnEvent) -> Obtained:
    indexes = sources.indexes or index_wheels.configured()
    urls = index_wheels.addresses(part, indexes)
    if part.members_sha256 and not target.with_name(target.name + ".part").exists():
        found = index_wheels.members_of(part, urls, indexes.via)
        if found is not None:
            _keep(_kept_path(part, files), found)
            return Obtained(part, None, tuple(found))
    file = fetch(part.file, urls, part.sha256, part.size, target, on_event, indexes.via)
    return Obtained(part, file)


def _kept_path(part: Part, files: Path) -> Path:
    return files / members_file(part)


def members_file(part: Part) -> str:
    """The name under which the wanted members of a wheel are kept, in the cache and in a pack."""
    return f"{part.members_sha256 or '':.16}-{part.file}.members.json"


def _keep(path: Path, found: list[Member]) -> None:
    """Headers are text: a JSON file holds them, so that an interrupted command goes on from here."""
    rows = [[member.place, member.executable, member.link, member.content.hex()] for member in found]
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(rows), encoding="utf-8")
    beside.replace(path)


def _kept(path: Path, wanted: str) -> tuple[Member, ...] | None:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        found = tuple(Member(place, bool(run), link, bytes.fromhex(text)) for place, run, link, text in rows)
    except (OSError, ValueError, TypeError):
        return None
    return found if members_digest(found) == wanted else None


def _named(folders: tuple[Path, ...]) -> str:
    return ", ".join(map(str, folders)) or "a folder that was named"
