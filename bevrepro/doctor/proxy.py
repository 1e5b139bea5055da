"""Proxies that downloads would go through: pip, uv, the pretrained weights."""

from collections.abc import Iterator, Mapping

from bevrepro import facts
from bevrepro.core.machine import Machine
from bevrepro.doctor.check import Check, Verdict, info, issue, warn
from bevrepro.probe.network import PROXIES

LOCAL = ("localhost", "127.", "[::1]", "0.0.0.0")


def _set(machine: Machine) -> Mapping[str, str]:
    """The variables that are set; a name in both cases counts once."""
    pairs = ((name, machine.host.variable(name)) for name in PROXIES)
    return {name: value for name, value in pairs if value}


def _local(machine: Machine) -> Iterator[Verdict]:
    inside = "WSL2" if machine.host.wsl == 2 else machine.host.container
    local = {name: value for name, value in _set(machine).items() if _host(value).startswith(LOCAL)}
    if not inside or not local:
        return
    name, value = next(iter(local.items()))
    yield warn(
        f"{name}={value} inside {inside}: localhost is there seldom where the proxy runs",
        "Name that computer's address, or share its network: networkingMode=mirrored below [wsl2] in "
        ".wslconfig (Windows 11)." if inside == "WSL2" else
        "Name that computer's address, or start the container with --network host.",
        f"unset {' '.join(local)}",
    )  # fmt: skip


def _socks(machine: Machine) -> Iterator[Verdict]:
    python, package = machine.python, facts.row("packages", "socks")["package"]
    names = [name for name, value in _set(machine).items() if value.lower().startswith("socks")]
    if names and python.packages is not None and python.package(package) is None:
        yield warn(
            f"{names[0]} is a SOCKS proxy, and {package} is not installed",
            "Switch the proxy off for one command and install it, or use an HTTP proxy.",
            f"env -u {' -u '.join(names)} python -m pip install {package}",
        )


def _told(machine: Machine) -> Iterator[Verdict]:
    found = _set(machine)
    if found:
        yield info(f"downloads go through a proxy ({', '.join(f'{n}={v}' for n, v in found.items())})")


def _host(value: str) -> str:
    return value.rpartition("://")[2]


CHECKS = (
    Check("proxy-set", "host", "proxies in the environment",
          "A download that hangs or is refused ends there.", _told),
    Check("proxy-localhost", "host", "a proxy at localhost in WSL2 or a container",
          "Every download ends in 'Connection refused' or 'Cannot connect to proxy'.", _local,
          (issue("microsoft/WSL", 10753), issue("microsoft/WSL", 10379))),
    Check("proxy-socks", "host", "a SOCKS proxy against what pip needs for one",
          "pip stops with 'Missing dependencies for SOCKS support'.", _socks,
          (issue("psf/requests", 3516),)),
)  # fmt: skip
