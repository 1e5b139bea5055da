"""Where packages come from: what pip is configured with, handed on to uv, which does not read it.

Options of the command line come first, then uv's own variables, then pip's configuration. Every package
is checked against its hash, so any mirror will do.
"""

import configparser
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bevrepro.core import proc
from bevrepro.core.errors import MachineError
from bevrepro.env.fetch import Via

DEFAULT = "the default index"
KEYS = ("index-url", "extra-index-url", "find-links", "cert", "trusted-host", "no-index", "proxy", "timeout")
TRUE = ("1", "true", "yes", "on")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class Index:
    """Indexes and folders of packages. `index_url` None: uv's default. `cert`: a file of certificates."""

    index_url: str | None = None
    extra: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    cert: str | None = None
    trusted: tuple[str, ...] = ()
    no_index: bool = False
    proxy: str | None = None
    timeout_s: int | None = None

    def also(self, index_url: str | None, find_links: Sequence[str]) -> "Index":
        """With what was given on the command line in its place."""
        first = replace(self, index_url=index_url, extra=(), no_index=False) if index_url else self
        return replace(first, find_links=(*find_links, *first.find_links))

    def arguments(self) -> list[str]:
        """For `uv pip`. The strategy is pip's: the best version of all indexes, not of the first one."""
        words = ["--index-strategy", "unsafe-best-match"]
        words += ["--no-index"] if self.no_index else []
        words += ["--index-url", self.index_url] if self.index_url and not self.no_index else []
        for url in () if self.no_index else self.extra:
            words += ["--extra-index-url", url]
        for place in self.find_links:
            # pip passes over a folder that is not there; uv stops.
            if "://" in place or os.path.exists(place):
                words += ["--find-links", place]
        for host in self.trusted:
            words += ["--allow-insecure-host", host]
        return words

    def environment(self, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The child's variables: certificates, proxy and patience as pip has them."""
        env = {key: value for key, value in environ.items() if key not in _MISLEADING}
        cert = self.cert or next((env[name] for name in CERTIFICATES if env.get(name)), None)
        if cert:
            env.setdefault("SSL_CERT_DIR" if os.path.isdir(cert) else "SSL_CERT_FILE", cert)
            env.setdefault("UV_SYSTEM_CERTS", "1")  # behind a private CA
        if self.proxy:
            env.setdefault("HTTPS_PROXY", self.proxy)
            env.setdefault("HTTP_PROXY", self.proxy)
        if self.timeout_s:
            env.setdefault("UV_HTTP_TIMEOUT", str(self.timeout_s))
        return env

    @property
    def via(self) -> Via:
        """How this process itself reaches them."""
        return Via(self.proxy, self.cert)

    def said(self) -> str:
        """For messages; without what a URL may carry as a password."""
        indexes = [] if self.no_index else [self.index_url or DEFAULT, *self.extra]
        return ", ".join(_without_secret(place) for place in (*indexes, *self.find_links)) or "nowhere"


# What would send packages elsewhere or change what is chosen.
_MISLEADING = (
    "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "VIRTUAL_ENV", "CONDA_PREFIX", "UV_PROJECT_ENVIRONMENT",
    "UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE", "UV_EXCLUDE_NEWER", "UV_PYTHON", "UV_SYSTEM_PYTHON",
    "UV_NO_BINARY", "UV_NO_BUILD", "UV_LINK_MODE", "UV_COMPILE_BYTECODE", "UV_REQUIRE_HASHES", "UV_TARGET",
    "UV_NO_VERIFY_HASHES", "UV_PRERELEASE", "UV_RESOLUTION", "UV_TORCH_BACKEND", "UV_VENV_SEED",
    "UV_VENV_RELOCATABLE", "UV_BUILD_CONSTRAINT", "UV_INDEX_STRATEGY", "UV_BREAK_SYSTEM_PACKAGES",
)  # fmt: skip
_UVS_OWN = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")


def configured(environ: Mapping[str, str] = os.environ, files: Sequence[Path] | None = None) -> Index:
    """What pip would use here: its files, overridden by PIP_* variables; uv's own variables stand."""
    found: dict[str, str] = {}
    parsers = [_parsed(path) for path in (config_files(environ) if files is None else files)]
    for section in ("global", "install"):
        for parser in parsers:
            if parser.has_section(section):
                found.update({key: value or "" for key, value in parser.items(section)})
    for key in KEYS:
        for name in (key, *(["default-timeout"] if key == "timeout" else [])):
            value = environ.get("PIP_" + name.upper().replace("-", "_"))
            if value is not None:
                found[name] = value
    uvs_own = any(environ.get(name) for name in _UVS_OWN)
    seconds = found.get("timeout") or found.get("default-timeout") or ""
    return Index(
        index_url=None if uvs_own else found.get("index-url") or None,
        extra=() if uvs_own else tuple(found.get("extra-index-url", "").split()),
        find_links=tuple(found.get("find-links", "").split()),
        cert=found.get("cert") or None,
        trusted=tuple(found.get("trusted-host", "").split()),
        no_index=found.get("no-index", "").lower() in TRUE,
        proxy=found.get("proxy") or None,
        timeout_s=int(float(seconds)) if seconds.replace(".", "", 1).isdigit() else None,
    )


def config_files(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """pip's files, weakest first (pip/_internal/configuration.py)."""
    home = Path(environ.get("HOME") or Path.home())
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    system = environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    found = [Path(folder) / "pip/pip.conf" for folder in system.split(os.pathsep) if folder]
    found += [Path("/etc/pip.conf"), home / ".pip/pip.conf"]
    found += [Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf"]
    return [*found, Path(sys.prefix) / "pip.conf", *([Path(named)] if named else [])]


def uv() -> Path:
    """The uv that came with bevrepro, else the one on PATH. MachineError where there is none."""
    beside = Path(sys.executable).with_name("uv")
    found = beside if beside.is_file() else proc.which("uv")
    if found is None:
        raise MachineError(
            "uv was not found, neither beside bevrepro's Python nor on PATH",
            "It installs the packages of an environment.",
            f"{sys.executable} -m pip install uv",
        )
    return found


def _parsed(path: Path) -> configparser.RawConfigParser:
    """Empty where there is no such file; one that cannot be read is pip's own to complain about."""
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError):
        return configparser.RawConfigParser()
    return parser


def _without_secret(place: str) -> str:
    scheme, mark, rest = place.partition("://")
    return scheme + mark + rest.rpartition("@")[2] if mark else place
