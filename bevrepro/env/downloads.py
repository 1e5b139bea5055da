"""Locked packages as files: uv says where each lies, and it is fetched and compared with the lock.

No setup.py is run: pip and uv would ask one for metadata before they hand over an sdist.
"""

import hashlib
import os
import re
import tempfile
import urllib.parse
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from bevrepro.core import proc
from bevrepro.core.errors import DataError, MachineError
from bevrepro.core.paths import cache_dir
from bevrepro.env.fetch import NETWORK, OnEvent, Via, opened, reason, silent
from bevrepro.env.index import Index, uv
from bevrepro.env.index_page import with_user
from bevrepro.env.interpreter import Interpreter
from bevrepro.env.lockfile import Pin
from bevrepro.env.tree import sha256_of
from bevrepro.env.uv_trouble import ABSENT, MIRROR, explain
from bevrepro.facts import tomllib

ASK_S = 600.0
AT_ONCE = 6
TRIES = 3
PIECE_B = 1 << 20


@dataclass(frozen=True)
class Located:
    """One file to fetch. `hashes` are those that the lock allows; none where the lock knows none."""

    name: str
    version: str
    file: str
    url: str
    hashes: tuple[str, ...]
    via: Via = Via()


def locate(
    pins: Iterable[Pin],
    sdists: Iterable[str],
    interpreter: Interpreter,
    index: Index,
    also: str | None = None,
    unhashed: Sequence[str] = (),
) -> tuple[Located, ...]:
    """For each pin the file that would be installed: the sdist for those named, else the best wheel.

    `also` is one more index, asked where the others lack something; `unhashed` are requirements without
    a pin. Raises MachineError naming the package that cannot be had, DataError where only another file
    of its name is offered.
    """
    by_name = {pin.name: pin for pin in pins}
    lines = [f"{pin.name}=={pin.version}" for pin in by_name.values()] + list(unhashed)
    if not lines:
        return ()
    sources = {str(canonicalize_name(name)) for name in sdists} & set(by_name)
    told = ask(lines, sources, ["--python", interpreter.path], index, also)
    return tuple(_located(row, by_name, row["name"] in sources, index) for row in told)


def download_all(located: Sequence[Located], on_event: OnEvent = silent) -> tuple[Path, ...]:
    """As `download`, several at once, in the same order."""
    done = 0

    def one(each: Located) -> Path:
        nonlocal done
        path = download(each)
        done += 1
        on_event({"event": "progress", "task": "packages", "done": done, "total": len(located),
                  "text": each.file})  # fmt: skip
        return path

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return tuple(pool.map(one, located))


def download(each: Located) -> Path:
    """The file in the cache, by its sha256, checked anew. MachineError, DataError; OSError of the disk."""
    for digest in each.hashes:
        kept = cache_dir() / "packages" / digest / each.file
        if kept.is_file() and sha256_of(kept) == digest:
            return kept
    folder = cache_dir() / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as scratch:
        part = Path(scratch) / each.file
        digest = _fetched(each, part)
        if each.hashes and digest not in each.hashes:
            raise DataError(
                f"{each.file} is not the file that was locked: its sha256 is {digest}",
                f"{_host(each.url)} serves another file under this name. Nothing of it is used.",
                MIRROR,
            )
        kept = folder / digest / each.file
        kept.parent.mkdir(exist_ok=True)
        os.replace(part, kept)
    return kept


def ask(
    lines: Sequence[str], sdists: Iterable[str], options: list[str], index: Index, also: str | None
) -> list[dict[str, Any]]:
    """uv's answer to where these pins lie: the `packages` of a pylock.toml, nothing resolved.

    `options` say for which Python. `also` is asked for builds of its own (torch==2.0+cu118), where the
    others lack them. Raises MachineError naming the package that cannot be had.
    """
    if not lines:
        return []
    done, text = _compile(lines, sdists, options, index)
    own = [line for line in lines if "+" in line]
    if not done.ok and also and own and not index.no_index and re.search(ABSENT, done.stderr):
        more = replace(index, extra=(*index.extra, also))
        rest = [line for line in lines if line not in own]
        return [*ask(rest, sdists, options, index, None), *ask(own, sdists, options, more, None)]
    if not done.ok:
        raise explain(done.stderr, index, "run the same command with --debug")
    found = _packages(text)
    # 2.0+cpu in a folder of wheels satisfies ==2.0 and is preferred to it; only === is just that one.
    other = {row["name"] for row in found if not {f"{row['name']}=={row['version']}"} & {*lines}}
    strict = [line.replace("==", "===") for line in lines if line.partition("==")[0] in other]
    if not strict or any("===" in line for line in lines):
        return found
    kept = [row for row in found if row["name"] not in other]
    return [*kept, *ask(strict, sdists, options, index, None)]


def _packages(text: str) -> list[dict[str, Any]]:
    try:
        return list(tomllib.loads(text)["packages"])
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise MachineError(
            f"uv answered with something that is no pylock.toml: {error}", do=f"{uv()} --version"
        ) from error


def _compile(
    lines: Sequence[str], sdists: Iterable[str], options: list[str], index: Index
) -> tuple[proc.Done, str]:
    with tempfile.TemporaryDirectory(prefix="bevrepro-") as scratch:
        wanted, answer = Path(scratch) / "in.txt", Path(scratch) / "pylock.toml"
        wanted.write_text("\n".join(lines) + "\n", encoding="utf-8")
        argv: list[str | Path] = [
            uv(),
            "pip",
            "compile",
            "--quiet",
            "--no-config",
            "--no-deps",
            "--no-header",
        ]
        argv += ["--no-python-downloads", *options, "--only-binary", ":all:"]
        argv += [word for name in sorted(sdists) for word in ("--no-binary", name)]
        argv += ["--prerelease", "allow", *index.arguments(), "--format", "pylock.toml", "-o", answer, wanted]
        done = proc.run(argv, env=index.environment(), timeout_s=ASK_S)
        return done, answer.read_text(encoding="utf-8") if done.ok else ""


def _located(row: dict[str, Any], pins: dict[str, Pin], source: bool, index: Index) -> Located:
    files = [row["sdist"]] if source and "sdist" in row else list(row.get("wheels", ()))
    pin = pins.get(row["name"])
    hashes = pin.hashes if pin else ()
    right = [each for each in files if not hashes or each.get("hashes", {}).get("sha256") in (None, *hashes)]
    if not right:
        raise DataError(
            f"{row['name']} {row['version']} is offered, but not the file that was locked",
            f"Asked: {index.said()}. A mirror or a proxy may serve another file under this name.",
            MIRROR,
        )
    url = str(right[0].get("url") or Path(right[0]["path"]).absolute().as_uri())
    file = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    return Located(row["name"], row["version"], file, _with_user(url, index), hashes, index.via)


def _with_user(url: str, index: Index) -> str:
    """uv leaves the user of the index out."""
    for page in (index.index_url, *index.extra):
        url = with_user(url, page or "")
    return url


def _fetched(each: Located, part: Path) -> str:
    """Download into `part`; the sha256 of what came."""
    for _ in range(TRIES):
        try:
            return _stream(each, part)
        except NETWORK as error:
            failed: Exception = error
    raise MachineError(
        f"{each.file} could not be downloaded: {reason(failed)}", f"Asked: {_host(each.url)}", MIRROR
    ) from failed


def _stream(each: Located, part: Path) -> str:
    digest = hashlib.sha256()
    with opened(each.url, via=each.via) as response, open(part, "wb") as file:
        while piece := response.read(PIECE_B):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _host(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return parts.netloc.rpartition("@")[2] or parts.path
