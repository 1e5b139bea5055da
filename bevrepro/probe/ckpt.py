"""A checkpoint's directory of weights, read without torch and without running what the file carries."""

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bevrepro.probe.paths import Place, probe_place
from bevrepro.probe.pickles import DAMAGE, Refused, TorchUnpickler, Weights, bounded, on_deep_stack, printable

ZIP_START = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # of torch < 1.6 (torch/serialization.py)
# Keys and shapes, not weights: 0.3 MiB of base with its optimiser, half a minute to read at most.
MAX_DIRECTORY_B = 1 << 25
BROKEN = (*DAMAGE, zipfile.BadZipFile, NotImplementedError)


@dataclass(frozen=True)
class Checkpoint:
    """One file; None where it could not be told."""

    place: Place
    container: str | None = None  # "zip" (torch >= 1.6), "legacy", or None
    refused: str | None = None  # the name that a hostile or foreign pickle asked for
    broken: str | None = None
    shapes: Mapping[str, tuple[int, ...]] | None = None  # by key, `module.` taken off
    short: tuple[str, ...] | None = None  # records that are missing or shorter than declared
    epoch: int | None = None  # of mmcv's meta
    optimizer: bool | None = None
    twin: str | None = None  # the other of NAME.pth and NAME_ema.pth, where it lies beside
    sha256: str | None = None  # only with --deep


class _Broken(Exception):
    """The file is not what it says it is; the text completes `it ...`."""


def probe_ckpt(path: Path, deep: bool = False) -> Checkpoint:
    """Never raises for what the file holds; `deep` hashes it."""
    place = probe_place(path)
    if place.kind != "file":
        return Checkpoint(place)
    container, content, short = None, None, None
    try:
        with path.open("rb") as stream, bounded(place.size_b or 0):
            head = stream.read(512)
            container = _container(head)
            stream.seek(0)
            if container == "zip":
                content, short = _zip(stream)
            else:
                pickled = io.BytesIO(stream.read(MAX_DIRECTORY_B))  # the weights follow behind it
                content, short = on_deep_stack(pickled, lambda: _legacy(pickled, place.size_b or 0))
    except Refused as error:
        return Checkpoint(place, container, refused=str(error))
    except _Broken as error:
        return Checkpoint(place, container, broken=str(error))
    except OSError as error:
        return Checkpoint(place, container, broken=f"cannot be read: {error.strerror}")
    except BROKEN as error:
        return Checkpoint(place, container, broken=f"is cut or damaged: {printable(str(error))}")
    return _describe(place, container, content, short, path, deep)


def _container(head: bytes) -> str:
    if head.startswith(ZIP_START):
        return "zip"
    if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
        raise _Broken("is a web page: the download was refused or needs a confirmation")
    if head.startswith(b"version https://git-lfs"):
        raise _Broken("is a pointer of git lfs, not the file itself")
    if not head:
        raise _Broken("is empty")
    return "legacy"


def _zip(stream: IO[bytes]) -> tuple[Any, tuple[str, ...]]:
    with zipfile.ZipFile(stream) as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
        root = next(iter(sizes), "").split("/")[0]
        if f"{root}/constants.pkl" in sizes:
            raise _Broken("is a TorchScript program, not a checkpoint")
        if f"{root}/data.pkl" not in sizes:
            raise _Broken("is a zip archive, but none of torch: it has no data.pkl")
        if sizes[f"{root}/data.pkl"] > MAX_DIRECTORY_B:
            raise _Broken("has a directory of weights too big to be one")
        with archive.open(f"{root}/data.pkl") as directory:
            pickled = io.BytesIO(directory.read(MAX_DIRECTORY_B))
        reader = TorchUnpickler(pickled)
        content = on_deep_stack(pickled, reader.load)
    there = {key: sizes.get(f"{root}/data/{key}", -1) for key in reader.records}
    return content, tuple(sorted(key for key, needs in reader.records.items() if there[key] < needs))


def _legacy(stream: IO[bytes], size_b: int) -> tuple[Any, tuple[str, ...]]:
    if TorchUnpickler(stream).load() != LEGACY_MAGIC:
        raise _Broken("is a pickle, but no checkpoint of torch")
    for _ in range(2):  # protocol version; byte order and sizes of the machine that wrote it
        TorchUnpickler(stream).load()
    reader = TorchUnpickler(stream)
    content = reader.load()
    needs = sum(reader.records.values())
    return content, ("all",) if needs > size_b else ()


def _describe(
    place: Place, container: str | None, content: Any, short: tuple[str, ...] | None, path: Path, deep: bool
) -> Checkpoint:
    state = _state(content)
    meta = content.get("meta") if isinstance(content, dict) else None
    epoch = meta.get("epoch") if isinstance(meta, dict) else None
    return Checkpoint(
        place,
        container,
        broken=None if state else "holds no weights (no dict of tensors)",
        shapes=state or None,
        short=short,
        epoch=epoch if isinstance(epoch, int) else None,
        optimizer=isinstance(content, dict) and "optimizer" in content,
        twin=_twin(path),
        sha256=_sha256(path) if deep else None,
    )


def _state(content: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by key: of `state_dict`, `model`, or of the file itself."""
    places = [content.get(name) for name in ("state_dict", "model")] if isinstance(content, dict) else []
    for state in (*places, content):
        if isinstance(state, dict):
            pairs = ((key, value) for key, value in state.items() if isinstance(value, Weights))
            found = {printable(str(key)).removeprefix("module."): value.shape for key, value in pairs}
            if found:
                return found
    return {}


def _twin(path: Path) -> str | None:
    stem = path.stem.removesuffix("_ema")
    other = path.with_name(
        f"{stem}{path.suffix}" if path.stem.endswith("_ema") else f"{stem}_ema{path.suffix}"
    )
    try:
        return other.name if other.exists() else None
    except OSError:
        return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()
