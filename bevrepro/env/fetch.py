"""Download one file of known sha256 and size: resumed where it stopped, checked, then renamed into place.

Nothing that was not checked ever gets its final name; what did come is kept as `NAME.part` for the next try.
"""

import base64
import errno
import http.client
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from bevrepro.core.errors import DataError
from bevrepro.env.tree import sha256_of

Event = dict[str, Any]
OnEvent = Callable[[Event], None]

PIECE_B = 1 << 20
TIMEOUT_S = 30.0
CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
TRIES = 3  # of one address: a connection that breaks is taken up where it stopped
NETWORK = (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError)
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@dataclass(frozen=True)
class Via:
    """How an address is reached: a proxy and a file of certificates beside what the system's are."""

    proxy: str | None = None
    cert: str | None = None


class NotFetched(Exception):
    """No address gave the file. `tried` has a line for each; `altered` where one gave another file."""

    def __init__(self, tried: Sequence[str], altered: bool = False) -> None:
        super().__init__("; ".join(tried))
        self.tried = tuple(tried)
        self.altered = altered


class _Altered(Exception):
    pass


def silent(event: Event) -> None:
    """An `on_event` that shows nothing."""


def fetch(
    name: str,
    urls: Sequence[str],
    sha256: str,
    size: int,
    target: Path,
    on_event: OnEvent = silent,
    via: Via | None = None,
) -> Path:
    """`target` with the wanted content, from the first address that has it.

    Raises NotFetched with a reason for each address, OSError where the disk does not take it.
    """
    if target.is_file() and sha256_of(target) == sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    tried, altered = [], False
    for url in urls:
        try:
            _download(name, url, sha256, size, part, on_event, via or Via())
            os.replace(part, target)
            return target
        except _Altered as error:
            altered = True
            tried.append(f"{plain(url)}: {error}")
        except NETWORK as error:
            tried.append(f"{plain(url)}: {reason(error)}")
        except OSError as error:
            if error.errno in DISK:
                raise
            tried.append(f"{plain(url)}: {reason(error)}")
    raise NotFetched(tried or [f"{name}: no address is known"], altered)


@contextmanager
def opened(url: str, headers: dict[str, str] | None = None, via: Via | None = None) -> Iterator[IO[bytes]]:
    """A response to read from. A user and password in the address are sent as such. Raises one of NETWORK."""
    bare, own = _credentials(url)
    request = urllib.request.Request(bare, headers={"User-Agent": "bevrepro", **own, **(headers or {})})
    with _opener(via or Via()).open(request, timeout=TIMEOUT_S) as response:
        yield response


def reason(error: BaseException) -> str:
    """A network error in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__


def plain(url: str) -> str:
    """The address without user and password."""
    return _credentials(url)[0]


def is_local(url: str) -> bool:
    """Whether the address needs no network."""
    return url.startswith("file:")


def as_url(place: str) -> str:
    """A mirror as the user gives it, an address or a folder, as an address without a slash at its end."""
    return place.rstrip("/") if "://" in place else Path(place).expanduser().absolute().as_uri()


def join(base: str, path: str) -> str:
    """An address below a mirror; `~` and `+` of Debian's names stay as they are."""
    return base.rstrip("/") + "/" + urllib.parse.quote(path, safe="/~+:")


def _download(name: str, url: str, sha256: str, size: int, part: Path, on_event: OnEvent, via: Via) -> None:
    left = part.exists()  # by a command that was killed, perhaps in the middle of a write
    for attempt in range(TRIES):
        try:
            _append(name, url, size, part, on_event, via)
        except (urllib.error.HTTPError, FileNotFoundError):
            raise
        except NETWORK:
            if attempt + 1 == TRIES or not part.exists():
                raise
            continue
        if part.stat().st_size == size:
            found = sha256_of(part)
            if found == sha256:
                return
            part.unlink()
            if not left:
                raise _Altered(f"its sha256 is {found}, not {sha256}: it is not the file that was measured")
            left = False
        else:
            on_event({"event": "note", "text": f"{name}: the connection ended early; going on from there."})
    raise _Altered(f"it ended after {part.stat().st_size if part.exists() else 0} of {size} bytes")


def _append(name: str, url: str, size: int, part: Path, on_event: OnEvent, via: Via) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have >= size:
        part.unlink()
        have = 0
    with opened(url, {"Range": f"bytes={have}-"} if have else None, via) as response:
        if have and getattr(response, "status", None) != 206:
            have = 0  # this server does not resume
        with open(part, "ab" if have else "wb") as file:
            done = _copy(name, response, file, have, size, on_event)
            file.flush()
            os.fsync(file.fileno())
    if done > size:
        part.unlink()
        raise _Altered(f"it is larger than {size} bytes: it is not the file that was measured")


def _copy(name: str, response: IO[bytes], file: IO[bytes], done: int, size: int, on_event: OnEvent) -> int:
    while done <= size:
        try:
            piece = response.read(PIECE_B)
        except http.client.IncompleteRead as short:
            piece = short.partial
        if not piece:
            break
        file.write(piece)
        done += len(piece)
        on_event(progress(name, done, size))
    return done


def progress(name: str, done: int, size: int) -> Event:
    """A step of a download, in MB as its bar shows them."""
    return {
        "event": "progress",
        "task": name,
        "done": -(-min(done, size) // 1_000_000),
        "total": -(-size // 1_000_000),
        "text": "MB",
    }


def _credentials(url: str) -> tuple[str, dict[str, str]]:
    parts = urllib.parse.urlsplit(url)
    if "@" not in parts.netloc:
        return url, {}
    user, _, host = parts.netloc.rpartition("@")
    word = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
    return urllib.parse.urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {word}"}


@cache
def _opener(via: Via) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=_trust(via.cert))]
    if via.proxy:
        handlers.append(urllib.request.ProxyHandler({"http": via.proxy, "https": via.proxy}))
    return urllib.request.build_opener(*handlers)


def _trust(cert: str | None) -> ssl.SSLContext:
    """The system's certificates and those that pip, curl and requests are told of."""
    context = ssl.create_default_context()
    told = {name: os.environ.get(name, "") for name in CERTIFICATES} | {"pip's setting cert": cert or ""}
    for name, path in told.items():
        if path and Path(path).is_file():
            try:
                context.load_verify_locations(path)
            except (ssl.SSLError, OSError) as error:
                raise DataError(
                    f"{name} names {path}, which holds no certificates: {error}",
                    "No download can be checked with it.",
                    f"Correct or unset {name}.",
                ) from error
    return context
