"""Which official archive a file is: by name, size and content together, so that a renamed one is known and a
wrong one is not believed."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from bevrepro import facts
from bevrepro.probe import downloads
from bevrepro.probe.downloads import Name
from bevrepro.probe.inside import Family, Inside, family

NOT_NEEDED = ("radar", "lidarseg", "panoptic")
FORMS = ("tgz", "tar", "zip", "bz2")
USABLE = (
    "published", "one-source", "renamed", "repacked", "older-unknown", "by-name", "by-content", "synthetic",
)  # fmt: skip
HOLES = 0.5  # a download that reserves its space first has less than this of its size on the disk


@dataclass(frozen=True)
class Entry:
    """A row of facts/archives.toml. Unknown sizes and md5s are None; `sure` is False for a single source."""

    name: str
    kind: str
    generation: str
    version: str = ""
    part: int | None = None
    size: int | None = None
    size_about: int | None = None
    md5: str | None = None
    sure: bool = True


@dataclass(frozen=True)
class Identity:
    """What a file was taken for. `status`:

    published, one-source (name, size and content agree), renamed (size and content), repacked (a .tar of a
    .tgz), older-unknown (a generation whose size nobody wrote down), by-name, by-content, synthetic: usable;
    unfinished, piece, cut, other-size, contradicts, broken: not as it is; foreign: not nuScenes.
    """

    status: str
    kind: str = ""
    entry: Entry | None = None
    version: str = ""
    part: int | None = None
    said: str = ""  # what is wrong, or worth knowing

    @property
    def usable(self) -> bool:
        return self.status in USABLE


@cache
def entries() -> tuple[Entry, ...]:
    """All that were ever published, as far as it is known."""
    return tuple(_entry(row) for row in facts.table("archives"))


def _entry(row: facts.Row) -> Entry:
    given: dict[str, Any] = {
        key: row[key] for key in ("version", "part", "size", "size_about", "md5") if key in row
    }
    sure = row.get("status") != "unverified"
    return Entry(row["name"], row["kind"], row["generation"], sure=sure, **given)


def identify(
    name: Name, inside: Inside, known: tuple[Entry, ...] | None = None, synthetic: bool = False
) -> Identity:
    """Pure. `synthetic`: the folder was made by `data synth`, where sizes mean nothing."""
    known = entries() if known is None else known
    named = [each for each in known if downloads.stem(each.name) == downloads.stem(name.plain)]
    content = family(inside.names)
    if name.state in ("unfinished", "split"):
        return _not_whole(name, inside, named, content)
    if inside.error or inside.form not in FORMS:
        return _unreadable(inside, named)
    if not synthetic:
        by_size = _by_size(inside, known, named, content)
        if by_size:
            return by_size
    if named:
        return _by_name(named, inside, content, synthetic)
    return _by_content(inside, content)


def _from(entry: Entry, status: str, said: str = "") -> Identity:
    return Identity(status, entry.kind, entry, entry.version, entry.part, said)


def _not_whole(name: Name, inside: Inside, named: list[Entry], content: Family) -> Identity:
    status = "piece" if name.state == "split" else "unfinished"
    entry = _closest(named, inside.size_b)
    if entry:
        return _from(entry, status, _progress(inside.size_b, entry) if status == "unfinished" else "")
    kind = kind_of(content)
    return Identity(status, kind) if kind else Identity("foreign")


def _closest(named: list[Entry], size_b: int) -> Entry | None:
    """Of two generations the one whose size is next above; the current one where none is known."""
    above = [each for each in named if each.size and each.size >= size_b]
    return min(above, key=lambda each: each.size or 0, default=named[0] if named else None)


def _progress(size_b: int, entry: Entry) -> str:
    if not entry.size:
        return "a download that was not finished"
    return f"a download that was not finished: {gb(size_b)} of {gb(entry.size)}"


def _unreadable(inside: Inside, named: list[Entry]) -> Identity:
    reasons = {
        "html": "it is a web page, most often the server's answer that a link has expired",
        "text": "it is a text, not an archive",
        "empty": "it is empty",
        "zeros": "it begins with zeros: space was reserved for a download that never came",
    }
    said = inside.error or reasons.get(inside.form or "", "it is no archive")
    return _from(named[0], "broken", said) if named else Identity("foreign", said=said)


def _by_size(
    inside: Inside, known: tuple[Entry, ...], named: list[Entry], content: Family
) -> Identity | None:
    """Every published size belongs to one archive, to the byte."""
    entry = next((each for each in known if each.size == inside.size_b), None)
    if entry is None:
        return None
    if contradicts(entry, content):
        return _from(entry, "contradicts", f"it has the size of {entry.name}, and holds {told(content)}")
    if inside.tail:
        return _from(entry, "broken", inside.tail)
    if inside.form == "tgz" and 0 < inside.allocated_b < HOLES * inside.size_b:
        said = f"space is reserved for {gb(inside.size_b)}, and {gb(inside.allocated_b)} of it are written"
        return _from(entry, "unfinished", said)
    if entry.name not in [each.name for each in named]:
        return _from(entry, "renamed", f"by its size and content this is {entry.name}")
    return _from(entry, "published" if entry.sure else "one-source")


def _by_name(named: list[Entry], inside: Inside, content: Family, synthetic: bool) -> Identity:
    entry, sizes = named[0], [each.size for each in named if each.size]
    if contradicts(entry, content):
        return _from(entry, "contradicts", f"its name says {entry.name}, and it holds {told(content)}")
    if synthetic:
        return _from(entry, "synthetic", "made by bevrepro data synth")
    if inside.form == "tar" and entry.name.endswith(".tgz"):
        if inside.tail:
            return _from(entry, "broken", inside.tail)
        return _from(entry, "repacked", f"{entry.name} without its compression")
    if inside.tail:
        return _from(entry, "cut", inside.tail)
    if inside.form == "zip" and content.is_known and sizes:  # its list of files lies at the end: it is whole
        said = f"packed anew: {gb(inside.size_b)}, where {gb(sizes[0])} were published"
        return _from(entry, "by-content", said)
    if not sizes:
        return _from(entry, "by-name", "its size was not published")
    without = next((each for each in named if each.size is None), None)
    smallest = min(sizes)
    if without and inside.size_b * 2 > smallest:
        said = "perhaps of the older generation, whose size nobody wrote down; its md5 tells"
        return _from(without, "older-unknown", said)
    said = f"{gb(inside.size_b)} ({inside.size_b} bytes), where {' or '.join(map(str, sizes))} were published"
    return _from(entry, "other-size", said)


def _by_content(inside: Inside, content: Family) -> Identity:
    """No name and no size that is known: what it holds says the kind, never the part."""
    kind = kind_of(content)
    if not kind:
        return Identity("foreign", said="it holds nothing of nuScenes" if inside.names else "")
    if inside.tail:
        return Identity("broken", kind, said=inside.tail)
    version = next(iter(sorted(content.versions)), "")
    unknown = "" if kind in ("meta", "can_bus") else ": which part of nuScenes is not known"
    said = f"no name or size that was published{unknown}"
    return Identity("by-content", kind, None, version, None, said)


def kind_of(content: Family) -> str:
    """`meta`, `blobs`, ... from the first names; "" where they are not nuScenes'."""
    sensors = content.samples | content.sweeps
    if sensors and content.versions:
        return "mini" if content.versions == {"v1.0-mini"} else "set"
    if sensors:
        if not content.samples:
            return "sweeps"
        return {frozenset({"LIDAR"}): "lidar", frozenset({"RADAR"}): "radar"}.get(sensors, "blobs")
    for name in ("lidarseg", "panoptic", "can_bus"):
        if name in content.others:
            return name
    if content.versions:
        return "meta"
    return "map" if "expansion" in content.others else "meta" if "maps" in content.others else ""


def contradicts(entry: Entry, content: Family) -> bool:
    """Whether the names that were seen cannot be this archive's. No names seen contradict nothing."""
    if not content.is_known:
        return False
    sensors = content.samples | content.sweeps
    if entry.kind in ("meta", "mini", "set"):
        wrong = bool(content.versions) and entry.version not in content.versions
        return wrong or (entry.kind == "meta" and bool(sensors)) or "can_bus" in content.others
    if entry.kind in ("blobs", "keyframes", "camera", "lidar", "radar"):
        only = {"camera": {"CAM"}, "lidar": {"LIDAR"}, "radar": {"RADAR"}}.get(entry.kind)
        swept = entry.kind == "keyframes" and bool(content.sweeps)
        return not sensors or swept or bool(only and sensors - only)
    if entry.kind == "map":
        return not content.others & {"expansion", "maps"}
    return entry.kind not in content.others


def told(content: Family) -> str:
    """The content in words."""
    parts = [f"tables of {version}" for version in sorted(content.versions)]
    sensors = {"CAM": "camera", "LIDAR": "lidar", "RADAR": "radar"}
    parts += [f"{sensors[each]} samples" for each in sorted(content.samples)]
    parts += [f"{sensors[each]} sweeps" for each in sorted(content.sweeps)]
    words = {"can_bus": "CAN data", "maps": "maps", "expansion": "vector maps"}
    parts += [words.get(each, each) for each in sorted(content.others)]
    return ", ".join(parts) or "nothing of nuScenes"


def gb(count_b: int) -> str:
    """As download pages and `ls` count: 46.1 GB, 780 MB."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count_b >= unit:
            number = count_b / unit
            return f"{number:.1f} {name}" if number < 100 and unit == 10**9 else f"{number:.0f} {name}"
    return f"{count_b} bytes"
