"""What a task reads of nuScenes, which pieces are here, and the smallest download for the rest. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bevrepro import facts
from bevrepro.data.catalogue import Entry, entries

PARTS = {"v1.0-trainval": tuple(range(1, 11)), "v1.0-mini": (0,), "v1.0-test": (0,)}
TABLES = ("tables", "map_pictures")
KEYFRAMES = ("cameras", "lidar", "radar")
SWEEPS = ("camera_sweeps", "lidar_sweeps", "radar_sweeps")
PROVIDES: Mapping[str, tuple[str, ...]] = {
    "meta": TABLES,
    "mini": (*TABLES, *KEYFRAMES, *SWEEPS),
    "set": (*TABLES, *KEYFRAMES, *SWEEPS),
    "blobs": (*KEYFRAMES, *SWEEPS),
    "keyframes": KEYFRAMES,
    "camera": ("cameras", "camera_sweeps"),
    "lidar": ("lidar", "lidar_sweeps"),
    "radar": ("radar", "radar_sweeps"),
    "can_bus": ("can_bus",),
    "map": ("map",),
}
PER_SAMPLE = {"camera_sweeps": 4, "lidar_sweeps": 8}  # at least: 12 and 20 Hz between keyframes at 2 Hz
WHOLE = ("tables", "map_pictures", "can_bus", "map")  # not cut into parts


@dataclass(frozen=True, order=True)
class Piece:
    """`cameras` of part 3 of v1.0-trainval. CAN data and vector maps are of no version."""

    what: str
    version: str = ""
    part: int = 0


@dataclass(frozen=True)
class Task:
    """A row of facts/tasks.toml."""

    id: str
    title: str
    version: str
    needs: tuple[str, ...]
    may_use: tuple[str, ...]


@dataclass(frozen=True)
class Fetch:
    """One archive to download. `size_b` may be a bound (`about`) or not known."""

    name: str
    size_b: int | None
    about: bool = False


@dataclass(frozen=True)
class State:
    """Of one task: what is missing and the archives that hold it."""

    task: Task
    missing: tuple[Piece, ...]
    fetch: tuple[Fetch, ...]
    have: int  # pieces that are here
    of: int

    @property
    def complete(self) -> bool:
        return not self.missing

    @property
    def fetch_b(self) -> int:
        """Bytes to download, as far as they are known."""
        return sum(each.size_b or 0 for each in self.fetch)


def tasks() -> tuple[Task, ...]:
    """In the order in which they are told."""
    return tuple(
        Task(row["id"], row["title"], row["version"], tuple(row["needs"]), tuple(row["may_use"]))
        for row in facts.table("tasks")
    )


def pieces_of(kind: str, version: str, part: int | None) -> frozenset[Piece]:
    """What an archive of this kind brings. A part that is not known brings nothing but tables."""
    found = set()
    for what in PROVIDES.get(kind, ()):
        if what in ("can_bus", "map"):
            found.add(Piece(what))
        elif what in WHOLE and version:
            found.add(Piece(what, version))
        elif version in PARTS and (part in PARTS[version] or PARTS[version] == (0,)):
            found.add(Piece(what, version, part or 0))
    return frozenset(found)


def wanted(task: Task) -> tuple[Piece, ...]:
    """All pieces of a task, in order."""
    found: list[Piece] = []
    for what in task.needs:
        if what in ("can_bus", "map"):
            found.append(Piece(what))
        elif what in WHOLE:
            found.append(Piece(what, task.version))
        else:
            found += [Piece(what, task.version, part) for part in PARTS[task.version]]
    return tuple(found)


def judge(task: Task, here: Iterable[Piece]) -> State:
    """What is missing, and the cheapest archives to get it."""
    there = frozenset(here)
    all_of_it = wanted(task)
    missing = tuple(piece for piece in all_of_it if piece not in there)
    return State(task, missing, tuple(_cheapest(missing)), len(all_of_it) - len(missing), len(all_of_it))


def _cheapest(missing: tuple[Piece, ...]) -> list[Fetch]:
    """Part by part: the one archive, or two of them, that hold all that is missing for fewest bytes."""
    groups: dict[tuple[str, int], set[Piece]] = {}
    for piece in missing:
        groups.setdefault((piece.version if piece.what not in WHOLE else piece.what, piece.part), set()).add(
            piece
        )
    chosen: dict[str, Fetch] = {}
    for group in groups.values():
        for entry in _cover(frozenset(group)):
            chosen[entry.name] = Fetch(entry.name, entry.size or entry.size_about, entry.size is None)
    return list(chosen.values())


def _cover(group: frozenset[Piece]) -> list[Entry]:
    newest = {each.name: each for each in reversed(entries())}.values()  # the current generation comes first
    useful = [each for each in newest if pieces_of(each.kind, each.version, each.part) & group]
    choices = [[one] for one in useful] + [
        [one, two] for one in useful for two in useful if one.name < two.name
    ]
    whole = [choice for choice in choices if group <= frozenset().union(*map(_pieces, choice))]
    return min(whole, key=_cost, default=[])


def _pieces(entry: Entry) -> frozenset[Piece]:
    return pieces_of(entry.kind, entry.version, entry.part)


def _cost(choice: list[Entry]) -> tuple[int, int, str]:
    """Unknown sizes count as the biggest; the newest map wins among equals."""
    known = [each.size or each.size_about for each in choice]
    bytes_ = sum(size or 10**12 for size in known)
    return bytes_, len(choice), choice[0].name


def surplus(kind: str, version: str, part: int | None, others: Iterable[Piece]) -> bool:
    """Whether the other archives hold everything that this one brings."""
    mine = pieces_of(kind, version, part)
    return bool(mine) and mine <= frozenset(others)


def official_samples(version: str) -> int | None:
    """Keyframes of a version, as published."""
    return next((row.get("samples") for row in facts.table("nuscenes") if row["id"] == version), None)


def by_counts(counts: Mapping[str, int | None], samples: Mapping[str, int | None]) -> frozenset[Piece]:
    """Pieces of an extracted folder. `counts`: what -> the fewest files of a channel, None where nobody
    counted; `samples`: version -> keyframes in its tables. Parts cannot be told apart: all or none."""
    sizes = {version: count for version, count in samples.items() if version in PARTS and count}
    mini = sizes.pop("v1.0-mini", None)
    together = sum(sizes.values())  # trainval and test lie in the same folders; mini is part of trainval
    least = {**dict.fromkeys(sizes, together), **({"v1.0-mini": mini} if mini else {})}
    return frozenset(
        Piece(what, version, part)
        for what, count in counts.items()
        for version, wanted_ in least.items()
        if count is not None and count >= (wanted_ or 0) * PER_SAMPLE.get(what, 1)
        for part in PARTS[version]
    )
