"""The file format of a pack: a tar whose every byte follows from its manifest.

First comes the manifest, then the files in its order, each under a header without date or owner. The reader
writes the header that it expects and compares: a link, a device, a name that climbs out of the folder, a
second file of one name or a flipped bit in the padding is simply not what stands there.
"""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from bevrepro.core.errors import DataError

SCHEMA = 1
MANIFEST = "bevrepro-bundle.json"
MANIFEST_LIMIT_B = 16 << 20
BLOCK_B = 512
RECORD_B = 10240  # a tar ends on a multiple of this
PIECE_B = 1 << 20
AGAIN = "Copy it again and compare its sha256 with the one that env pack printed."

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Packed:
    """One file of a bundle; `path` with slashes, relative, without `..`."""

    path: str
    size_b: int
    sha256: str
    executable: bool = False


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds and for whom. `files` are sorted by path; `inputs` is the digest of the
    environment that is built from it (plan.inputs_digest); `digest` is of all the rest.
    """

    target: str
    python: str
    platform: str
    cuda: str | None
    inputs: str
    bevrepro: str
    files: tuple[Packed, ...]
    schema: int = SCHEMA

    @property
    def digest(self) -> str:
        """sha256 over the canonical JSON: equal digests hold equal files."""
        return hashlib.sha256(_canonical(asdict(self))).hexdigest()

    def to_bytes(self) -> bytes:
        """Canonical: the reader refuses any other spelling."""
        return _canonical({**asdict(self), "digest": self.digest})


def write_bundle(manifest: Manifest, open_file: Callable[[str], BinaryIO], out: BinaryIO) -> str:
    """Write every file in the manifest's order; the sha256 of the whole. Memory is bounded.

    Raises DataError where a file changed since the manifest was made, OSError where the disk is full.
    """
    whole = _Hashing(out)
    content = manifest.to_bytes()
    whole.write(_header(MANIFEST, len(content), False))
    whole.write(content + _padding(len(content)))
    for each in manifest.files:
        whole.write(_header(each.path, each.size_b, each.executable))
        with open_file(each.path) as file:
            _copy(each, file, whole)
        whole.write(_padding(each.size_b))
    whole.write(b"\0" * _end(whole.count))
    return whole.digest.hexdigest()


def read_manifest(bundle: BinaryIO) -> Manifest:
    """The manifest at the beginning of a bundle. DataError where there is none, or it was changed."""
    header = bundle.read(BLOCK_B)
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise _broken("it is no pack of bevrepro" if len(header) == BLOCK_B else "it is cut short") from error
    if info.name != MANIFEST:
        raise _broken(f"it is a tar archive, but no pack of bevrepro: it begins with {info.name!r}")
    if info.size > MANIFEST_LIMIT_B:
        raise _broken(f"its manifest claims {info.size} bytes")
    if header != _header(MANIFEST, info.size, False):
        raise _broken("the header of its manifest was changed")
    content = _exactly(bundle, info.size)
    if _exactly(bundle, len(_padding(info.size))).strip(b"\0"):
        raise _broken("there is something between its files")
    return _manifest(content)


def read_files(
    manifest: Manifest, bundle: BinaryIO, create: Callable[[Packed], BinaryIO], on_bytes: OnBytes
) -> None:
    """Every file after the manifest into what `create` opens, checked while it is written.

    Raises DataError at the first byte that is not as the manifest says.
    """
    for each in manifest.files:
        header = _header(each.path, each.size_b, each.executable)
        found = _exactly(bundle, len(header))
        if found != header:
            raise _broken(f"{_described(found)} stands where {each.path} should be")
        digest = hashlib.sha256()
        with create(each) as file:
            for piece in _pieces(bundle, each.size_b):
                digest.update(piece)
                file.write(piece)
                on_bytes(len(piece))
        if digest.hexdigest() != each.sha256:
            raise _broken(f"{each.path} is damaged: its sha256 is {digest.hexdigest()}, not {each.sha256}")
        if _exactly(bundle, len(_padding(each.size_b))).strip(b"\0"):
            raise _broken("there is something between its files")
    end = _end(bundle.tell())
    if _exactly(bundle, end).strip(b"\0") or bundle.read(1):
        raise _broken("there is something after its last file")


def _manifest(content: bytes) -> Manifest:
    try:
        told = json.loads(content.decode("utf-8"))
        digest = told.pop("digest")
        if told.get("schema") != SCHEMA:
            raise _broken(f"it is of schema {told.get('schema')!r}; this bevrepro reads {SCHEMA}")
        files = tuple(_packed(row) for row in told.pop("files"))
        manifest = Manifest(files=files, **told)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _broken("its manifest was changed") from error
    if manifest.to_bytes() != content or manifest.digest != digest:
        raise _broken("its manifest was changed")
    paths = [each.path for each in files]
    if paths != sorted(set(paths)):
        raise _broken("its manifest names a file twice, or not in order")
    return manifest


def _packed(row: dict[str, Any]) -> Packed:
    each = Packed(**row)
    if not safe(each.path):
        raise _broken(f"it names a file outside of its folder: {each.path!r}")
    if type(each.size_b) is not int or each.size_b < 0:
        raise _broken(f"{each.path} claims {each.size_b!r} bytes")
    return each


def safe(path: str) -> bool:
    """Whether it is a plain relative path that stays inside its folder."""
    parts = PurePosixPath(path).parts
    plain = (
        bool(parts) and ".." not in parts and not path.startswith("/") and str(PurePosixPath(*parts)) == path
    )
    return plain and path != MANIFEST and "\\" not in path and path.isprintable()


def _canonical(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode("ascii")


def _header(path: str, size_b: int, executable: bool) -> bytes:
    info = tarfile.TarInfo(path)
    info.size, info.mode = size_b, 0o755 if executable else 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _padding(size_b: int) -> bytes:
    return b"\0" * (-size_b % BLOCK_B)


def _end(count_b: int) -> int:
    """Bytes of zeros after `count_b`: two blocks, then up to a whole record."""
    return 2 * BLOCK_B + -(count_b + 2 * BLOCK_B) % RECORD_B


def _copy(each: Packed, file: BinaryIO, whole: "_Hashing") -> None:
    digest, count = hashlib.sha256(), 0
    while piece := file.read(PIECE_B):
        digest.update(piece)
        count += len(piece)
        if count <= each.size_b:
            whole.write(piece)
    if count != each.size_b or digest.hexdigest() != each.sha256:
        raise DataError(f"{each.path} changed while it was packed", do="Run the same command again.")


def _exactly(bundle: BinaryIO, count_b: int) -> bytes:
    found = bundle.read(count_b)
    if len(found) < count_b:
        raise _broken("it is cut short")
    return found


def _pieces(bundle: BinaryIO, size_b: int) -> Iterator[bytes]:
    while size_b > 0:
        piece = bundle.read(min(PIECE_B, size_b))
        if not piece:
            raise _broken("it is cut short")
        size_b -= len(piece)
        yield piece


def _described(header: bytes) -> str:
    """What a header says that it is, for the error's sentence."""
    try:
        info = tarfile.TarInfo.frombuf(header[-BLOCK_B:], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return "something else"
    kinds: Iterable[tuple[bool, str]] = (
        (info.issym() or info.islnk(), "a link"),
        (info.isdev(), "a device"),
        (info.isdir(), "a folder"),
    )
    kind = next((name for holds, name in kinds if holds), "a file")
    return f"{kind} named {info.name!r}, of {info.size} bytes,"


class _Hashing:
    """A file that is written, with the sha256 and the number of its bytes so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest, self.count = file, hashlib.sha256(), 0

    def write(self, piece: bytes) -> None:
        self._file.write(piece)
        self.digest.update(piece)
        self.count += len(piece)


def _broken(what: str) -> DataError:
    return DataError(f"the pack cannot be used: {what}", "Nothing of it was installed.", AGAIN)
