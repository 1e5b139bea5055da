"""`python -m bevformer verify REQUEST.json`: read archives through, and compare tables with what is there.

The request and the result belong to `bevrepro data verify` (bevrepro/data/verify.py).  What was read is kept
archive by archive where the request says, so that an interrupted run goes on with the next one.
"""

import argparse
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Dict, Iterator, List, Optional

from bevformer.atomic import write_atomically
from bevformer.errors import ConfigError, DataError
from bevformer.talk import Talk

from . import gzip_tar
from .archive_pass import CHUNK, Passed, Wanted, pass_through
from .presence import (
    Presence,
    Sized,
    folder_names,
    folders_of,
    indexed_names,
    save_names,
    saved_names,
    what_is_wrong_inside,
)
from .table_census import NAME, Census, Censuses, Want

TOLD = 5  # names of missing files
LONG_BYTES = 64 << 20  # a table that takes a second or more
Json = Dict[str, Any]


def main(argv: List[str], talk: Talk) -> int:
    parser = argparse.ArgumentParser(prog="bevformer verify", description=__doc__)
    parser.add_argument("request", metavar="REQUEST.json")
    request = _load(parser.parse_args(argv).request)
    want = Want(tuple(request["keyframes"]), tuple(request["sweeps"]), bool(request["whole"]))
    passes = _pass_archives(request, want, talk)
    censuses = _merge(request, want, passes, talk)
    versions = {version: _compare(request, census, passes, talk) for version, census in censuses.items()}
    talk.result(
        verb="verify", archives={path: each.to_json() for path, each in passes.items()}, tables=versions
    )
    return 0


def _load(path: str) -> Json:
    try:
        with open(path) as file:
            request = json.load(file)
        if not isinstance(request["archives"], list):
            raise KeyError("archives")
        return dict(request)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError("cannot read the request %s: %s" % (path, error)) from error


class _Pass:
    """What became of one archive."""

    def __init__(self, spec: Json) -> None:
        self.spec = spec
        self.found: Optional[Passed] = None
        self.error: Optional[DataError] = None
        self.censuses: Dict[str, Census] = {}
        self.names = (
            ""  # where its list of names came from: read, index, reader, kept; "" where there is none
        )

    def to_json(self) -> Json:
        found = self.found
        return {
            "read": found is not None,
            "names": self.names or None,
            "md5": found.md5 if found else None,
            "files": len(found.names) if found else None,
            "others": found.others if found else None,
            "unpacked_b": found.unpacked_bytes if found else None,
            "error": None if self.error is None else [self.error.seen, self.error.why, self.error.do],
        }


def _pass_archives(request: Json, want: Want, talk: Talk) -> Dict[str, _Pass]:
    """Reads what has to be read, a few at a time; zlib and md5 leave Python's lock alone."""
    passes = {spec["path"]: _Pass(spec) for spec in request["archives"]}
    to_read = [each for each in passes.values() if each.spec["read"]]
    size = sum(os.path.getsize(each.spec["path"]) for each in to_read)
    progress = _Progress("read (MB)", size, talk, 10**6)
    pool = ThreadPoolExecutor(max(1, int(request["jobs"])))
    try:
        tasks = [pool.submit(_read_one, each, want, progress) for each in to_read]
        for task in as_completed(tasks):
            task.result()
    except BaseException:
        progress.stop.set()  # the others end at their next megabyte
        raise
    finally:
        pool.shutdown()
    return passes


class _Progress:
    """Bytes of several threads as one bar; raises in them when the program is to end."""

    def __init__(self, task: str, total: int, talk: Talk, unit: int = 1) -> None:
        self.task, self.total, self.talk, self.unit = task, total, talk, unit
        self.done = 0
        self.stop = threading.Event()
        self._lock = threading.Lock()

    def add(self, count: int, text: str = "") -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt
        with self._lock:
            before = self.done // self.unit
            self.done = min(self.done + count, self.total)
            if self.done // self.unit > before:
                self.talk.progress(self.task, self.done // self.unit, -(-self.total // self.unit), text)


def _read_one(each: _Pass, want: Want, progress: _Progress) -> None:
    path, form = each.spec["path"], each.spec["form"]
    censuses = Censuses(want)
    wanted = Wanted(censuses.matches, censuses.take)
    try:
        each.found = pass_through(
            path,
            form,
            wanted,
            bool(each.spec["whole"]),
            lambda count: progress.add(count, os.path.basename(path)),
        )
    except DataError as error:
        each.error = error
        return
    each.censuses = censuses.by_version
    each.names = "read"
    stem = each.spec.get("state")
    if stem:
        os.makedirs(os.path.dirname(stem), exist_ok=True)
        save_names(stem + ".names.gz", each.found.names)
        write_atomically(stem + ".json", json.dumps(_kept(each)))


def _kept(each: _Pass) -> Json:
    """Says of the archive what a later run believes while size, time and ends stay the same."""
    has_tables = any(NAME.match(name) for name in each.found.names) if each.found else False
    whole = bool(each.spec["whole"]) or each.spec["form"] == "tgz"  # of which every byte is in a checksum
    return dict(each.spec["stamp"], whole=whole, tables=has_tables, **each.to_json())


def _merge(request: Json, want: Want, passes: Dict[str, _Pass], talk: Talk) -> Dict[str, Census]:
    """By version; the last root that has its tables wins."""
    found: Dict[str, Census] = {}
    for root in request["roots"]:
        if root in passes:
            found.update(passes[root].censuses)
        elif os.path.isdir(root):
            found.update(_of_folder(root, want, talk))
    chosen = request.get("versions")
    return {version: census for version, census in found.items() if not chosen or version in chosen}


def _of_folder(root: str, want: Want, talk: Talk) -> Dict[str, Census]:
    censuses = Censuses(want)
    for folder in sorted(os.listdir(root)):
        if not (folder.startswith("v1.0-") and os.path.isdir(os.path.join(root, folder))):
            continue
        for file in sorted(os.listdir(os.path.join(root, folder))):
            name = folder + "/" + file
            if censuses.matches(name):
                if os.path.getsize(os.path.join(root, name)) > LONG_BYTES:
                    talk.note("reading %s" % os.path.join(root, name))
                censuses.take(name, _file_blocks(os.path.join(root, name)))
    return censuses.by_version


def _file_blocks(path: str) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            yield from iter(lambda: file.read(CHUNK), b"")
    except OSError as error:
        raise DataError("%s cannot be read: %s" % (path, error.strerror)) from error


def _compare(request: Json, census: Census, passes: Dict[str, _Pass], talk: Talk) -> Json:
    """The tables' promises against everything that is there."""
    presence = Presence(census.files)
    progress = _Progress("compare %s" % census.version, len(census.files), talk)
    unlisted = []
    for root in request["roots"]:
        if root in passes:
            names = _names(passes[root])
            if names is None:
                unlisted.append(root)
            else:
                presence.see_all(names)
        else:
            folders = folders_of(census.files)
            presence.see_all(folder_names(root, folders, lambda: progress.add(1)))
    wrong = _contents(request, census, talk) if request["contents"] else []
    return {
        "rows": census.rows,
        "scenes": len(census.scenes),
        "keyframes": census.keyframes,
        "sweeps": census.sweeps,
        "broken": census.broken,
        "unsafe": census.unsafe[:TOLD],
        "promised": len(census.files),
        "missing": len(presence.waiting),
        "missing_by_channel": _by_channel(presence.waiting),
        "missing_named": sorted(presence.waiting)[:TOLD],
        "empty": len(presence.empty),
        "empty_named": sorted(presence.empty)[:TOLD],
        "wrong_inside": len(wrong),
        "wrong_inside_named": wrong[:TOLD],
        "maps_missing": sorted(set(census.maps) - presence.maps)[:TOLD],
        "no_can": sorted(name for name in census.scenes if not presence.poses.get(name)),
        "empty_can": sorted(name for name in census.scenes if presence.poses.get(name) is False),
        "unlisted": unlisted,
    }


def _by_channel(names: Any) -> Dict[str, int]:
    counts: Dict[str, int] = {}
    for name in names:
        folder = name.rpartition("/")[0]
        counts[folder] = counts.get(folder, 0) + 1
    return dict(sorted(counts.items()))


def _names(one: _Pass) -> "Optional[Iterator[Sized]]":
    """From the pass just made, from what an earlier one kept, or from an index; None where nobody knows."""
    if one.found is not None:
        return iter(one.found.names.items())
    if one.error is not None:
        return None
    spec = one.spec
    if spec.get("kept_names"):
        one.names = "kept"
        return saved_names(spec["kept_names"])
    if spec.get("index"):
        one.names = "index"
        return indexed_names(spec["index"])
    known = gzip_tar.cached(spec["path"]) if spec["form"] == "tgz" else None
    if known is not None:
        one.names = "reader"
        return ((name, span.size) for name, span in known.members.items())
    return None


def _contents(request: Json, census: Census, talk: Talk) -> List[str]:
    """Every promised file in a folder, read whole."""
    roots = [root for root in reversed(request["roots"]) if os.path.isdir(root)]
    names = sorted(census.files)
    progress = _Progress("read files", len(names), talk)

    def check(name: str) -> Optional[str]:
        path = next(
            (os.path.join(root, name) for root in roots if os.path.isfile(os.path.join(root, name))), None
        )
        progress.add(1, name)
        wrong = what_is_wrong_inside(path) if path else ""
        return "%s %s" % (name, wrong) if wrong else None

    with ThreadPoolExecutor(max(1, int(request["jobs"]))) as pool:
        try:
            return [wrong for wrong in pool.map(check, names) if wrong] if roots else []
        except BaseException:
            progress.stop.set()
            raise
