"""Ports that launchers take and addresses that variables name: asked of /proc, nothing is opened."""

import errno
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from bevrepro import facts
from bevrepro.probe.files import integer, read_text

# The variables that curl, pip and uv read.
PROXIES = tuple(name for low in ("http_proxy", "https_proxy", "all_proxy") for name in (low, low.upper()))
PROXY = re.compile(
    r"(?:(?P<scheme>[A-Za-z][\w+.-]{0,9})://)?(?:[^/]*@)?(?P<host>\[[\d:a-f]+\]|[^:/?#]*)"
    r"(?::(?P<port>\d{1,5}))?(?:[/?#].*)?"
)
LOCAL = re.compile(r"localhost|127(\.\d{1,3}){3}|\[::1\]|0\.0\.0\.0", re.IGNORECASE)
LISTEN = "0A"  # the state in /proc/net/tcp


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """`socks5://localhost:7890`, `http://proxy`: no name, no password and no address but the own one's."""
    return {name: _anonymous(environment[name]) for name in PROXIES if environment.get(name)}


def _anonymous(value: str) -> str:
    match = PROXY.fullmatch(value.strip())
    if match is None or not match["host"]:
        return "unreadable"
    scheme = f"{match['scheme'].lower()}://" if match["scheme"] else ""
    if not LOCAL.fullmatch(match["host"]):
        return f"{scheme}proxy"
    return f"{scheme}{match['host'].lower()}" + (f":{match['port']}" if match["port"] else "")


def ports_in_use(root: Path, environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """Of the launchers' own ports and those in MASTER_PORT and PORT; None where /proc does not tell."""
    texts = [read_text(root / "proc/net" / name) for name in ("tcp", "tcp6")]
    if all(text is None for text in texts):
        return None
    listening = {port for text in texts for port in parse_listening(text or "")}
    named = (environment.get(name, "") for name in ("MASTER_PORT", "PORT"))
    wanted = {*facts.row("dist", "ports")["ports"], *(port for each in named if (port := integer(each)))}
    return tuple(sorted(wanted & listening))


def parse_listening(text: str) -> set[int]:
    """The ports of listening sockets in /proc/net/tcp."""
    ports = set()
    for line in text.splitlines()[1:]:
        parts = line.split()
        if len(parts) > 3 and parts[3] == LISTEN and ":" in parts[1]:
            try:
                ports.add(int(parts[1].rpartition(":")[2], 16))
            except ValueError:
                continue
    return ports


def own_addresses(hccl_if_ip: str | None) -> tuple[str, ...] | None:
    """The address in HCCL_IF_IP where it is this host's; () where it is not; None where nobody asked."""
    address = (hccl_if_ip or "").partition("%")[0]
    if not address:
        return None
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        # Only an address of this host can be bound; port 0 takes any free one, and it is closed at once.
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        return () if error.errno == errno.EADDRNOTAVAIL else None
    return (address,)
