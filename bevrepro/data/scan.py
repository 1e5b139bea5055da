"""What of nuScenes lies in a folder, what it is enough for, what is missing. Reads little, writes nothing."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bevrepro import facts
from bevrepro.data import needs
from bevrepro.data.catalogue import NOT_NEEDED, Entry, Identity, gb, identify
from bevrepro.data.needs import Piece, State
from bevrepro.data.walk import walk
from bevrepro.probe import downloads
from bevrepro.probe.extracted import Extracted, probe_extracted
from bevrepro.probe.inside import Inside, peek

THREADS = 8  # a glance at an archive waits for the disk, twice
BAD = ("unfinished", "cut", "other-size", "contradicts", "broken")


@dataclass(frozen=True)
class Item:
    """One archive file. `use`: used, spare (another one holds the same), not-needed, join, bad, foreign."""

    path: Path
    name: downloads.Name
    inside: Inside
    identity: Identity
    use: str = ""

    def to_json(self) -> dict[str, Any]:
        entry = self.identity.entry
        return {
            "path": str(self.path),
            "size_b": self.inside.size_b,
            "form": self.inside.form,
            "is": entry.name if entry else None,
            "generation": entry.generation if entry else None,
            "kind": self.identity.kind or None,
            "version": self.identity.version or None,
            "part": self.identity.part,
            "status": self.identity.status,
            "use": self.use,
            "said": self.identity.said,
        }


@dataclass(frozen=True)
class Scan:
    """Everything below some places."""

    items: tuple[Item, ...]
    folders: tuple[Extracted, ...]
    states: tuple[State, ...]
    notes: tuple[str, ...]
    synthetic: bool = False  # made by `data synth`

    @property
    def bad(self) -> list[Item]:
        return [item for item in self.items if item.use in ("bad", "join")]

    def state(self, task: str) -> State:
        return next(each for each in self.states if each.task.id == task)

    def to_json(self) -> dict[str, Any]:
        return {
            "archives": [item.to_json() for item in self.items],
            "folders": [asdict(folder) for folder in self.folders],
            "tasks": [_state_json(state) for state in self.states],
            "notes": list(self.notes),
        }


def _state_json(state: State) -> dict[str, Any]:
    return {
        "id": state.task.id,
        "title": state.task.title,
        "version": state.task.version,
        "complete": state.complete,
        "pieces": {"have": state.have, "of": state.of},
        "missing": [asdict(piece) for piece in state.missing],
        "fetch": [asdict(each) for each in state.fetch],
        "fetch_b": state.fetch_b,
    }


def scan(places: Sequence[Path], known: tuple[Entry, ...] | None = None) -> Scan:
    """`known`: the catalogue, for tests. DataError for a place that is not there."""
    found = walk(places)
    with ThreadPoolExecutor(THREADS) as pool:
        glances = pool.map(lambda path: glance(path, known, path in found.synthetic), found.archives)
        items = [item for item in glances if item.identity.status != "foreign" or item.name.state == "whole"]
    items, notes = _joined(items), [*found.notes]
    folders = tuple(probe_extracted(root) for root in found.roots)
    items = list(_with_uses(items))
    notes += _generations(items)
    here = pieces_here(items, folders)
    states = tuple(needs.judge(task, here) for task in needs.tasks())
    return Scan(tuple(items), folders, states, tuple(notes), found.made_by_synth)


def glance(path: Path, known: tuple[Entry, ...] | None = None, synthetic: bool = False) -> Item:
    """One file; a few hundred KiB are read at most."""
    name, inside = downloads.parse(path.name), peek(path)
    identity = identify(name, inside, known, synthetic)
    if identity.entry and os.path.exists(f"{path}.aria2"):
        identity = replace(
            identity, status="unfinished", said="aria2 has not finished it (NAME.aria2 is there)"
        )
    return Item(path, name, inside, identity)


def _joined(items: list[Item]) -> list[Item]:
    """The pieces of a split archive as one item, named after the first."""
    groups: dict[tuple[Path, str], list[Item]] = {}
    for item in items:
        if item.identity.status == "piece":
            groups.setdefault((item.path.parent, item.name.plain), []).append(item)
    whole = [item for item in items if item.identity.status != "piece"]
    return whole + [_join(group) for group in groups.values()]


def _join(group: list[Item]) -> Item:
    group = sorted(group, key=lambda item: (len(item.name.piece), item.name.piece))
    total_b = sum(item.inside.size_b for item in group)
    entry = group[0].identity.entry
    names = f"{group[0].name.plain}, in {len(group)} pieces of {gb(total_b)} together"
    if entry and entry.size:
        left = entry.size - total_b
        words = (
            "all of it" if not left else f"{gb(left)} are missing" if left > 0 else f"{gb(-left)} too much"
        )
        names += f": {words}"
    if not entry or not entry.size or entry.size == total_b:
        plain, first = group[0].name.plain, group[0].path.name
        ending = first[len(plain) : len(first) - len(group[0].name.piece)]
        names += f". Join them: cat {plain}{ending}* > {plain}"
    inside = replace(group[0].inside, size_b=total_b, allocated_b=0, tail=None)
    return replace(group[0], inside=inside, identity=replace(group[0].identity, said=names))


def _with_uses(items: Iterable[Item]) -> Iterable[Item]:
    """Bigger archives first, so that keyframes beside a part's blobs are the spare ones."""
    items = sorted(items, key=lambda item: (item.path.name, str(item.path)))
    order = sorted(items, key=lambda item: (_rank(item), -item.inside.size_b))
    taken: set[Piece] = set()
    uses: dict[Path, str] = {}
    for item in order:
        uses[item.path] = _use(item, taken)
        if uses[item.path] == "used":
            taken |= _pieces(item)
    return [replace(item, use=uses[item.path]) for item in items]


def _rank(item: Item) -> int:
    """A name as published before a copy."""
    return (item.identity.status not in ("published", "one-source")) + (item.name.state != "whole")


def _use(item: Item, taken: set[Piece]) -> str:
    status = item.identity.status
    if status == "foreign":
        return "foreign"
    if status == "piece":
        return "join"
    if status in BAD:
        return "bad"
    if item.identity.kind in NOT_NEEDED:
        return "not-needed"
    pieces = _pieces(item)
    return "spare" if pieces and pieces <= taken else "used"


def _pieces(item: Item) -> frozenset[Piece]:
    one = item.identity
    return needs.pieces_of(one.kind, one.version, one.part)


def pieces_here(items: Iterable[Item], folders: Iterable[Extracted]) -> frozenset[Piece]:
    """What usable archives and extracted folders bring together."""
    here = frozenset(piece for item in items if item.identity.usable for piece in _pieces(item))
    of_archives = {piece.version for piece in here if piece.what == "tables"}
    samples = {version: needs.official_samples(version) for version in of_archives}
    for folder in folders:
        known = {version: count for version, count in folder.sample_rows.items() if count is not None}
        here |= _pieces_of_folder(folder) | needs.by_counts(folder.fewest(), {**samples, **known})
    return here


def _pieces_of_folder(folder: Extracted) -> frozenset[Piece]:
    found = {Piece("tables", version) for version, lacking in folder.tables.items() if not lacking}
    if folder.can_scenes:
        found.add(Piece("can_bus"))
    if folder.expansion:
        found.add(Piece("map"))
    return frozenset(found)


def _generations(items: Iterable[Item]) -> list[str]:
    used = {
        item.identity.entry.generation: item.identity.entry.name
        for item in items
        if item.use == "used" and item.identity.entry and item.identity.entry.version == "v1.0-trainval"
    }
    if {"current", "older"} <= set(used):
        return [
            f"Archives of both generations are here ({used['older']} is of the older one). Each was whole by "
            "itself; `bevrepro data verify` says whether the tables' files are all there."
        ]
    return []


def download_page() -> str:
    """Where to get what is missing."""
    return str(facts.row("downloads", "page")["url"])


def download_command(name: str) -> str:
    """A resumable download from the public bucket."""
    return f"curl -fL -C - -O {facts.row('downloads', 'bucket')['url']}{name}"
