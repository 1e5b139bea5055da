"""What uv wrote when it failed -> one sentence that names the package, and what to do. Pure."""

import re
from dataclasses import dataclass

from bevrepro.core.errors import DiskError, MachineError, UserError
from bevrepro.env.index import Index

NAME = r"(?P<name>[A-Za-z0-9][\w.+!-]*(?:==[\w.+!-]+)?)"
MIRROR = (
    "Ask another index or a folder of wheels: --index-url URL or --find-links FOLDER here, or for good\n"
    "  pip config set global.index-url URL     (every package is checked against its hash)"
)


@dataclass(frozen=True)
class Cause:
    """A pattern, the sentence with {name} and {where}, why it matters, what to do."""

    pattern: str
    seen: str
    why: str
    do: str
    kind: type[UserError] = MachineError


ABSENT = r"there (is|are) no versions? of|was not found in|has no usable wheels"
CAUSES = (
    Cause(
        r"No space left on device|Disk quota exceeded|os error (28|122)",
        "the disk became full{of}",
        "Nothing of the old environment was touched.",
        "Free some space (uv's cache counts too: uv cache dir), then run the same command again: it goes on.",
        DiskError,
    ),
    Cause(
        rf"Hash mismatch for `{NAME}`",
        "{name} is not the file that was locked: its sha256 differs",
        "A mirror, a local folder or a proxy serves another file under this name. Nothing of it was "
        "installed.",
        MIRROR,
    ),
    Cause(
        r"invalid peer certificate|CertificateRequired|UnknownIssuer|certificate verify failed",
        "the certificate of the package index was not accepted{of}",
        "A company's proxy shows its own. Asked: {where}",
        "pip config set global.cert /path/to/its/ca.pem",
    ),
    Cause(
        rf"{NAME} was not found in the cache|network was disabled",
        "{name} is not in the cache, and the network is switched off",
        "",
        "Leave --offline and UV_OFFLINE out once, or build from a bundle: bevrepro env build --offline FILE",
    ),
    Cause(
        r"error sending request|[Cc]onnection refused|dns error|timed? ?out|Request failed after|"
        r"tcp connect error|HTTP status (server|client) error|tls handshake",
        "the package index cannot be reached{of}",
        "Asked: {where}",
        "Check the network. " + MIRROR,
    ),
    Cause(
        rf"Because {NAME} has no usable wheels",
        "{name} has no wheel for this Python and machine",
        "Asked: {where}. Sdists are built only where the target lists them.",
        MIRROR,
    ),
    Cause(
        rf"{NAME} was yanked",
        "{name} was withdrawn by its makers, and the index does not give it out any more",
        "Asked: {where}",
        "An index that still has it serves as well. " + MIRROR,
    ),
    Cause(
        rf"(?:no versions? of |Because ){NAME} (?:and|was not found)",
        "{name} is not to be had from where packages are looked for here",
        "It was locked, so it existed: the mirror is incomplete, or it was removed. Asked: {where}",
        MIRROR,
    ),
)


def explain(text: str, index: Index, log: str) -> UserError:
    """The error for a failed uv; its last lines where nothing fits. `log` is where the rest is."""
    for cause in CAUSES:
        hit = re.search(cause.pattern, text)
        if hit:
            name = hit.groupdict().get("name") or _package(text)
            words = {"name": name or "a package", "of": f" ({name})" if name else "", "where": index.said()}
            end = f"{cause.do}\nThe whole log: {log}"
            return cause.kind(cause.seen.format(**words), cause.why.format(**words), end)
    tail = [line for line in text.strip().splitlines() if line.strip()][-8:]
    return MachineError("uv failed: " + "\n| ".join(tail or ["it said nothing"]), f"Asked: {index.said()}",
                        f"The whole log: {log}")  # fmt: skip


def _package(text: str) -> str | None:
    """The package that a failed request was for: in the URL's last folder or between backticks."""
    quoted = re.search(rf"Failed to (?:download|install|build|fetch)[^`\n]*`{NAME}`", text)
    in_url = re.search(r"Failed to fetch:? `?\S+?/([\w.-]+)/`?\s", text)
    in_words = re.search(r"Failed to install: (\S+?)-\d", text)
    found = quoted or in_url or in_words
    return found.group(1) if found else None
