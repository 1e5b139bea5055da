"""Published and initial weights: fetched with resuming, checked before they get their name.

A digest that its maker published decides; one that others measured only informs. Where none is known, the
file has at least to be whole and of the kind that it is said to be (the doctor's reader, without torch).
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bevrepro import facts
from bevrepro.core.errors import CheckpointError, ConfigError, DiskError
from bevrepro.core.finding import Severity
from bevrepro.env.fetch import (
    NETWORK,
    PIECE_B,
    TRIES,
    OnEvent,
    as_url,
    join,
    opened,
    plain,
    progress,
    reason,
    silent,
)
from bevrepro.env.tree import sha256_of

PUBLISHED, TOLD_BY_NAME, REPORTED, WHOLE = (
    "published sha256",
    "its name, which holds the first digits of its sha256",
    "a sha256 that others measured",
    "only that it is whole: nobody published its sha256",
)


@dataclass(frozen=True)
class Weights:
    """One row of facts/weights.toml. None: not published."""

    id: str
    file: str
    kind: str  # "published" or "initial"
    what: str
    source: str
    url: str | None = None
    size: int | None = None
    about_mb: int | None = None
    sha256: str | None = None
    prefix: str | None = None
    reported_sha256: str | None = None
    why_not: str | None = None

    @property
    def digest_text(self) -> str:
        """What is known of its sha256, for a table."""
        if self.sha256:
            return self.sha256
        told = f"begins with {self.prefix}" if self.prefix else "unknown"
        return f"{told} (reported: {self.reported_sha256[:12]}...)" if self.reported_sha256 else told

    @property
    def size_text(self) -> str:
        if self.size:
            return f"{self.size / 1e6:.0f} MB"
        return f"about {self.about_mb} MB" if self.about_mb else "unknown"


@dataclass(frozen=True)
class Checked:
    """A file that was looked at. `by`: what decided; `note`: what a person should know."""

    path: Path
    sha256: str
    by: str
    note: str = ""
    was_there: bool = False


def all_weights() -> tuple[Weights, ...]:
    """In the table's order."""
    keys = ("url", "size", "about_mb", "sha256", "prefix", "reported_sha256", "why_not")
    return tuple(
        Weights(
            row["id"], row["file"], row["kind"], row["what"], row["source"],
            **{key: row[key] for key in keys if key in row},
        )
        for row in facts.table("weights")
    )  # fmt: skip


def weights(name: str) -> Weights:
    """By id or by file name. ConfigError naming the known ones."""
    for each in all_weights():
        if name in (each.id, each.file):
            return each
    known = ", ".join(each.id for each in all_weights())
    raise ConfigError(f"no weights are called {name}", f"Known: {known}.", "bevrepro weights list")


def get(wanted: Weights, folder: Path, mirror: str | None = None, on_event: OnEvent = silent) -> Checked:
    """The file in `folder`, fetched where it is not there yet. What came of an earlier try is gone on with.

    Raises CheckpointError where it cannot be had or is another file; OSError of the disk.
    """
    target = folder / wanted.file
    if target.is_file():
        return _there(check(wanted, target))
    url = _address(wanted, mirror, folder)
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    _fetch(wanted, url, part, target, on_event)
    try:
        checked = check(wanted, part)
    except CheckpointError as wrong:
        _forget(part)  # it would be gone on with
        do = "Nothing of it is kept. Name another place with --mirror URL_OR_FOLDER."
        raise CheckpointError(wrong.seen, wrong.why, do) from None
    os.replace(part, target)
    _tag(part).unlink(missing_ok=True)
    return Checked(target, checked.sha256, checked.by, checked.note)


def _there(checked: Checked) -> Checked:
    return Checked(checked.path, checked.sha256, checked.by, checked.note, True)


def check(wanted: Weights, path: Path) -> Checked:
    """Whether `path` is that file. CheckpointError says what is wrong with it; nothing is changed."""
    size, again = path.stat().st_size, f"Delete it, then: bevrepro weights get {wanted.id}"
    if wanted.size is not None and size != wanted.size:
        raise CheckpointError(
            f"{path} has {size} bytes, {wanted.file} has {wanted.size}",
            "It is cut, or another file." if size < wanted.size else "It is another file.",
            again,
        )
    digest = sha256_of(path) or ""
    if wanted.sha256 not in (None, digest) or not digest.startswith(wanted.prefix or ""):
        told = wanted.sha256 or f"{wanted.prefix}..."
        raise CheckpointError(
            f"{path} has sha256 {digest}, {wanted.file} has {told}",
            "It is another file. Nothing uses it.",
            again,
        )
    _require_whole(wanted, path)
    if wanted.sha256 or wanted.prefix:
        return Checked(path, digest, PUBLISHED if wanted.sha256 else TOLD_BY_NAME)
    if wanted.reported_sha256 == digest:
        return Checked(path, digest, REPORTED)
    note = "" if wanted.reported_sha256 is None else (
        f"Others measured sha256 {wanted.reported_sha256} for this address: compare before you rely on it."
    )  # fmt: skip
    return Checked(path, digest, WHOLE, note)


def _require_whole(wanted: Weights, path: Path) -> None:
    """By the doctor's reader: no damage, nothing to run, and a detector where one is promised."""
    from bevrepro.doctor.ckpt import examine_ckpt

    bad = [each for each in examine_ckpt(path) if each.severity is Severity.FAIL]
    if wanted.kind == "published":
        bad += [each for each in examine_ckpt(path) if each.id == "ckpt-initial-weights"]
    if bad:
        raise CheckpointError(bad[0].seen, bad[0].why, f"bevrepro doctor ckpt {path}")


def _address(wanted: Weights, mirror: str | None, folder: Path) -> str:
    if mirror is not None:
        return join(as_url(mirror), wanted.file)
    if wanted.url is None:
        raise CheckpointError(
            f"{wanted.id} cannot be downloaded: {wanted.why_not}", wanted.source, where_to_put(wanted, folder)
        )
    return wanted.url


def where_to_put(wanted: Weights, folder: Path) -> str:
    """For a file that somebody has to bring."""
    return (
        f"Bring it from elsewhere as {folder / wanted.file}, then: "
        f"bevrepro weights verify {wanted.id} --into {folder}"
    )


def _fetch(wanted: Weights, url: str, part: Path, target: Path, on_event: OnEvent) -> None:
    """All bytes into `part`, in up to TRIES connections."""
    failed: str = ""
    for _ in range(TRIES):
        try:
            if _append(wanted, url, part, on_event):
                return
            failed = f"the connection ended after {part.stat().st_size} bytes"
        except NETWORK as error:
            failed, code = reason(error), getattr(error, "code", 0)
            if code == 416:  # what is left is no beginning of this file
                _forget(part)
            elif 400 <= code < 500:
                break
        except FileNotFoundError as error:  # a mirror that is a folder
            failed = reason(error)
    kept = f" {part.stat().st_size} bytes are kept for the next try." if part.exists() else ""
    raise CheckpointError(
        f"{wanted.file} could not be downloaded: {failed}",
        f"Asked: {plain(url)}.{kept}",
        f"Try again, name a mirror with --mirror URL_OR_FOLDER, or: {where_to_put(wanted, target.parent)}",
    )


def _append(wanted: Weights, url: str, part: Path, on_event: OnEvent) -> bool:
    """One connection; whether the file is complete. Goes on only with what the same file began with."""
    have, tag = part.stat().st_size if part.exists() else 0, _read_tag(part)
    if wanted.size is not None and have >= wanted.size:
        if have == wanted.size:
            return True
        _forget(part)
        have = 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and tag:
        headers["If-Range"] = tag
    with opened(url, headers) as response:
        resumed = getattr(response, "status", None) == 206 and _starts_at(response, have)
        total = _length(response, have if resumed else 0)
        if wanted.size not in (None, total or wanted.size):
            raise _other(wanted, url, f"{total} bytes")
        _require_room(part, (total or wanted.size or 0) - (have if resumed else 0))
        _write_tag(part, response)
        done = _copy(wanted, response, part, have if resumed else 0, total or wanted.size, on_event)
    if wanted.size is not None and done > wanted.size:
        _forget(part)
        raise _other(wanted, url, f"more than {wanted.size} bytes")
    return done == (total or wanted.size or done)


def _other(wanted: Weights, url: str, found: str) -> CheckpointError:
    return CheckpointError(
        f"{plain(url)} has {found}, {wanted.file} has {wanted.size}",
        "It is another file. Nothing of it is kept.",
        "Name a mirror with --mirror URL_OR_FOLDER.",
    )


def _copy(
    wanted: Weights, response: IO[bytes], part: Path, done: int, total: int | None, on_event: OnEvent
) -> int:
    with _disk(part), open(part, "ab" if done else "wb") as file:
        for piece in _pieces(response):
            file.write(piece)
            done += len(piece)
            on_event(progress(wanted.file, done, total or done))
            if wanted.size is not None and done > wanted.size:  # a file without end fills no disk
                break
        file.flush()
        os.fsync(file.fileno())
    return done


@contextmanager
def _disk(part: Path) -> Iterator[None]:
    """What the disk says, as a sentence that names the file; the network's errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EIO):
            raise
        raise DiskError(
            f"cannot write {part}: {error.strerror}",
            "What has arrived is kept there, and the same command goes on with it.",
            "Free some space, or name another folder with --into.",
        ) from error


def _require_room(part: Path, wanted_b: int) -> None:
    """DiskError before the first byte where the rest cannot fit."""
    free_b = shutil.disk_usage(part.parent).free
    if wanted_b > free_b:
        raise DiskError(
            f"{part.parent} has {free_b / 1e6:.0f} MB free, {wanted_b / 1e6:.0f} MB are to come",
            "Nothing was downloaded.",
            "Free some space, or name another folder with --into.",
        )


def _pieces(response: IO[bytes]) -> Iterator[bytes]:
    import http.client

    while True:
        try:
            piece = response.read(PIECE_B)
        except http.client.IncompleteRead as short:
            if short.partial:
                yield short.partial
            return
        if not piece:
            return
        yield piece


def _starts_at(response: Any, have: int) -> bool:
    told = str(response.headers.get("Content-Range") or f"bytes {have}-")
    return told.startswith(f"bytes {have}-")


def _length(response: Any, before: int) -> int | None:
    """Of the whole file, by what the server says; None where it does not."""
    length = response.headers.get("Content-Length")
    return before + int(length) if length and length.isdigit() else None


def _tag(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_tag(part: Path) -> str | None:
    """The strong ETag of the file that `part` is the beginning of."""
    try:
        etag = json.loads(_tag(part).read_text(encoding="utf-8")).get("etag")
    except (OSError, ValueError, AttributeError):
        return None
    return etag if isinstance(etag, str) and not etag.startswith("W/") else None


def _write_tag(part: Path, response: Any) -> None:
    _tag(part).write_text(json.dumps({"etag": response.headers.get("ETag")}), encoding="utf-8")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)
