"""What a verification found, as findings and as JSON (`data.json`, described in docs/data.md). Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bevrepro import __version__, facts
from bevrepro.core.finding import Finding, Severity
from bevrepro.data.needs import PARTS, State
from bevrepro.data.scan import download_page
from bevrepro.data.verify import Checked, Plan
from bevrepro.probe.files import printable
from bevrepro.probe.nuscenes import TABLES

FORMAT = 1
COUNTED = ("scenes", "samples", "sample_data", "sample_annotation")
AGAIN = "Fetch it again (curl -C - goes on where a download stopped), and verify again."
HIDES = "ratarmount and tar read such an archive as a shorter one, without a word."
UNSEEN_FAST = (
    "flipped bytes inside of archives: only --full reads every byte",
    "an archive that was exchanged under the same size and time before it was ever verified or indexed",
)
UNSEEN_FOLDER = "flipped bytes inside of extracted files: nobody published their checksums"
UNSEEN_TAR = (
    "flipped bytes inside of files of a .tar: it has no checksums but its headers'; keep the md5 told here"
)


@dataclass(frozen=True)
class Report:
    """`tables`: version -> what the model plane compared."""

    plan: Plan
    tables: Mapping[str, Mapping[str, Any]]
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> bool:
        return any(each.severity is Severity.FAIL for each in self.findings)

    def to_json(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "format": FORMAT,
            "made_by": f"bevrepro {__version__} data verify",
            "mode": "full" if plan.wish.full else "fast",
            "roots": [str(place.absolute()) for place in plan.wish.places],
            "archives": [archive_json(each) for each in plan.archives],
            "not_needed": [str(item.path) for item in plan.skipped],
            "folders": list(plan.folders),
            "tables": {version: _table_json(version, found) for version, found in self.tables.items()},
            "tasks": [_task_json(state) for state in plan.scan.states],
            "findings": [{**asdict(each), "severity": each.severity.value} for each in self.findings],
            "unseen": list(unseen(plan)),
            "verdict": "damaged" if self.failed else "whole",
        }


def archive_json(each: Checked) -> dict[str, Any]:
    """One row of `archives`."""
    item, inside = each.item, each.inside
    entry = each.entry or item.identity.entry
    return {
        "path": each.path,
        "form": item.inside.form,
        "is": entry.name if entry else None,
        "kind": item.identity.kind or None,
        "recognised_by": item.identity.status,
        "generation": entry.generation if entry else None,
        "version": item.identity.version or None,
        "part": item.identity.part,
        "size_b": item.inside.size_b,
        "mtime_ns": each.stamp.mtime_ns if each.stamp else None,
        "md5": each.md5,
        "md5_official": each.md5_ok,
        "read_through": bool(inside.get("read") or (each.kept or {}).get("whole")),
        "names_from": inside.get("names"),
        "files": inside.get("files") if inside.get("files") is not None else (each.kept or {}).get("files"),
        "resumed": each.resumed,
    }


def _table_json(version: str, found: Mapping[str, Any]) -> dict[str, Any]:
    row = _official(version)
    published = {key: row[key] for key in COUNTED if key in row}
    return {**found, "published": published}


def _task_json(state: State) -> dict[str, Any]:
    return {
        "id": state.task.id,
        "complete": state.complete,
        "missing": [asdict(piece) for piece in state.missing],
        "fetch": [each.name for each in state.fetch],
        "fetch_b": state.fetch_b,
    }


def unseen(plan: Plan) -> Iterator[str]:
    """What this verification cannot see, said so that nobody believes more than was looked at."""
    if not plan.wish.full:
        yield from UNSEEN_FAST
    elif any(each.item.inside.form == "tar" for each in plan.archives):
        yield UNSEEN_TAR
    if set(plan.folders) - set(plan.mounts):
        yield UNSEEN_FOLDER
    for place in plan.mounts:
        yield f"damage in the archives behind the mount {place}: verify them, it shows what it could read"


def judge(plan: Plan, tables: Mapping[str, Mapping[str, Any]]) -> Report:
    """Everything that was found, in the order in which it should be mended."""
    found = [finding for each in plan.archives for finding in _archive(each)]
    found += [
        _fail(
            "folder-unreadable",
            f"{folder.path}: {folder.error}",
            "Nothing can be read from it.",
            "bevrepro data status",
        )
        for folder in plan.scan.folders
        if folder.error
    ]
    if not tables:
        found.append(_no_tables(plan))
    synthetic = _is_synthetic(plan)
    for version, census in tables.items():
        found += _tables(version, census, synthetic)
        found += _files(version, census, plan)
        found += _can(version, census)
    return Report(plan, tables, tuple(found))


def _fail(id: str, seen: str, why: str, remedy: str = "", *commands: str) -> Finding:
    return Finding(id, "data", Severity.FAIL, seen, why, remedy, commands)


def _warn(id: str, seen: str, why: str, remedy: str = "", *commands: str) -> Finding:
    return Finding(id, "data", Severity.WARN, seen, why, remedy, commands)


def _info(id: str, seen: str, why: str, remedy: str = "", *commands: str) -> Finding:
    return Finding(id, "data", Severity.INFO, seen, why, remedy, commands)


def _is_synthetic(plan: Plan) -> bool:
    return any(each.item.identity.status == "synthetic" for each in plan.archives) or plan.scan.synthetic


STATUS_WHY = {
    "unfinished": "The download stopped.",
    "piece": "The pieces have to be joined first.",
    "cut": HIDES,
    "broken": "Nothing can be read from it.",
    "contradicts": "It is another archive under this name.",
}


def _archive(each: Checked) -> Iterator[Finding]:
    one, name = each.item.identity, printable(each.item.path.name)
    if one.status == "foreign" and not each.inside.get("read"):
        said = one.said or "it holds nothing of nuScenes"
        yield _fail(
            "archive-foreign", f"{name}: {said}", "It was named, and there is nothing to verify in it."
        )
        return
    if one.status in STATUS_WHY:
        yield _fail(f"archive-{one.status}", f"{name}: {one.said}", STATUS_WHY[one.status], AGAIN)
        return
    for id, seen, why, remedy in each.problems:
        judge_as = _info if id == "index-older" else _warn if id == "index-stale" else _fail
        yield judge_as(id, seen, why, remedy)
    if each.exchanged:
        yield _warn(
            "archive-exchanged",
            f"{name} is not the file that was verified before, under the same size and time",
            "Its first or last bytes are others. What was remembered of it was not used.",
            "Verify it with --full.",
        )
    yield from _inside(each, name)


def _inside(each: Checked, name: str) -> Iterator[Finding]:
    error = each.inside.get("error")
    if error:
        yield _fail("archive-damaged", error[0], error[1] or HIDES, error[2] or AGAIN)
    elif each.md5_ok is False and each.item.identity.status in ("published", "renamed"):
        yield _fail(
            "archive-md5",
            f"{name} has the published size and another md5, {each.md5}",
            "At least one byte is not as it was published.",
            AGAIN,
        )
    elif each.md5_ok is False:
        yield _warn(
            "archive-md5",
            f"{name} has md5 {each.md5}, which nobody published",
            "Its own checksums hold, so it is whole: of a generation not known here, or packed anew.",
            "Compare it with the md5 where you got it.",
        )
    elif each.item.identity.status == "other-size":
        yield _warn(
            "archive-size",
            f"{name}: {each.item.identity.said}",
            "It is none of the published files, whatever its name says.",
            "bevrepro data verify --full reads it through; its tables say what it lacks.",
        )
    others = each.inside.get("others")
    if others:
        yield _warn(
            "archive-links",
            f"{name} holds {others} links or devices; they are not followed",
            "Official archives have none.",
            "Take the archive from nuscenes.org.",
        )


def _no_tables(plan: Plan) -> Finding:
    if plan.wish.versions:
        return _fail(
            "tables-none",
            f"no tables of {' or '.join(plan.wish.versions)} were found",
            "Without them nobody knows which files have to be there.",
            "Name the archive or folder that has them.",
        )
    return _warn(
        "tables-none",
        "no tables (v1.0-*/*.json) were found",
        "Archives were checked one by one; without tables nobody knows which files have to be there.",
        "Name the metadata archive too (v1.0-trainval_meta.tgz), or the folder that holds v1.0-....",
    )


def _official(version: str) -> facts.Row:
    return next((row for row in facts.table("nuscenes") if row["id"] == version and "scenes" in row), {})


def _tables(version: str, census: Mapping[str, Any], synthetic: bool) -> Iterator[Finding]:
    official = f"{version}_meta.tgz" if version in PARTS else "the archive of the tables"
    meta = "v1.0-mini.tgz" if version == "v1.0-mini" else official
    for broken in census["broken"]:
        yield _fail(
            "tables-broken", broken, "The data set cannot be opened.", f"It comes from {meta}. {AGAIN}"
        )
    lacking = [name for name in TABLES if name not in census["rows"]]
    if lacking:
        yield _fail(
            "tables-lacking",
            f"{version} has no {', '.join(f'{name}.json' for name in lacking[:5])}",
            "The data set cannot be opened.",
            f"They come from {meta}.",
        )
    if census["unsafe"]:
        yield _fail(
            "tables-unsafe",
            f"{version}/sample_data.json names {census['unsafe'][0]!r}",
            "Such a name points outside the data.",
            "Do not use these tables.",
        )
    yield from _counts(version, census, synthetic)
    samples = census["rows"].get("sample")
    uneven = {name: count for name, count in census["keyframes"].items() if count != samples}
    if samples and uneven:
        name, count = sorted(uneven.items())[0]
        yield _warn(
            "keyframes-uneven",
            f"{version}: {samples:,} samples and {count:,} keyframes of {name or 'no channel'}",
            "Every sample has one of each sensor; frames would be left out.",
            "Take the tables and the files from the same generation.",
        )
    if census["maps_missing"]:
        yield _warn(
            "maps-missing",
            f"{version}: {census['maps_missing'][0]} is not there",
            "nuScenes' devkit refuses to open the set without its maps.",
            f"They come from {meta}.",
        )


def _counts(version: str, census: Mapping[str, Any], synthetic: bool) -> Iterator[Finding]:
    row, rows = _official(version), census["rows"]
    singular = {"scenes": "scene", "samples": "sample"}
    counted = {what: rows.get(singular.get(what, what)) for what in COUNTED}
    differ = [
        f"{count:,} {what} (published: {row[what]:,})"
        for what, count in counted.items()
        if count is not None and row.get(what, count) != count
    ]
    if differ and not census["broken"]:
        judge_as = _info if synthetic else _warn
        yield judge_as(
            "table-counts",
            f"{version} has {', '.join(differ)}",
            "A partial or a synthetic set: its metrics cannot be compared with published ones.",
        )


def _files(version: str, census: Mapping[str, Any], plan: Plan) -> Iterator[Finding]:
    missing, promised = census["missing"], census["promised"]
    if missing and census["unlisted"]:
        yield from _perhaps(version, census, plan)
        yield from _parts(version, plan)
    elif missing:
        folders = list(census["missing_by_channel"].items())[:6]
        channels = ", ".join(f"{count:,} in {folder}" for folder, count in folders)
        yield _fail(
            "files-missing",
            f"{missing:,} of {promised:,} files that {version} promises are not there ({channels}), "
            f"such as {census['missing_named'][0]}",
            "Training stops at the first of them, or leaves whole scenes out.",
            f"Add the archives that hold them; `data scan` says which. They come from {download_page()}",
        )
    for what, words in (("empty", "are empty"), ("wrong_inside", "are damaged")):
        if census[what]:
            yield _fail(
                f"files-{what.split('_')[0]}",
                f"{census[what]:,} files of {version} {words}: {', '.join(census[f'{what}_named'][:3])}",
                "An extraction that stopped or a full disk leaves them.",
                "Extract them again, or read the archives as they are.",
            )


def _perhaps(version: str, census: Mapping[str, Any], plan: Plan) -> Iterator[Finding]:
    """Some archives' lists of files are not known: what is missing may be in them."""
    by_path = {each.path: each for each in plan.archives}
    blind = [by_path[path] for path in census["unlisted"] if path in by_path]
    whole = [each for each in blind if each.md5_ok]
    names = ", ".join(each.item.path.name for each in blind[:3]) + (" ..." if len(blind) > 3 else "")
    sure = len(whole) == len(blind)
    why = (
        "Their md5s are the published ones, so they hold what was published."
        if sure
        else "Archives that were never read through have no list of files."
    )
    yield _info(
        "files-unlisted",
        f"{census['missing']:,} of {census['promised']:,} files of {version} were not looked for: "
        f"they may be in {names}",
        why,
        "An index has such a list: bevrepro data index ARCHIVE..., and verify again.",
    )


def _parts(version: str, plan: Plan) -> Iterator[Finding]:
    """Whole archives that are not here at all."""
    for state in plan.scan.states:
        if state.task.version == version and state.task.id in ("camera", "mini", "test") and state.fetch:
            names = [each.name for each in state.fetch]
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            yield _warn(
                "archives-missing",
                f"{state.task.title}: {', '.join(names[:4])}{more} not here",
                "The set is not complete without what they hold.",
                f"bevrepro data scan DIR --task {state.task.id}   says how to get them.",
            )


def _can(version: str, census: Mapping[str, Any]) -> Iterator[Finding]:
    row, none = _official(version), set(census["no_can"])
    scenes = census["scenes"]
    if scenes and len(none) == scenes:
        yield _fail(
            "can-missing",
            f"none of the {scenes} scenes of {version} has CAN data",
            "Ego motion becomes zero and temporal attention looks at the wrong place, silently.",
            "Name can_bus.zip too; it is an expansion of its own.",
        )
        return
    unexpected = sorted(none - {f"scene-{number:04}" for number in row.get("zero_can", ())})
    if unexpected:
        empty = " (its file is empty)" if unexpected[0] in census["empty_can"] else ""
        yield _warn(
            "can-missing",
            f"{len(unexpected)} of {scenes} scenes of {version} have no CAN data and "
            f"should, {unexpected[0]}{empty} first",
            "Their ego motion becomes zero, silently.",
            "Fetch can_bus.zip again; nuScenes itself lacks it for "
            f"{len(row.get('zero_can', ()))} scenes of this set.",
        )
