"""All probes together: one `Machine`, whatever happens on the way."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

from bevrepro import __version__
from bevrepro.core.machine import Ascend, Cpu, Cuda, Fuse, Host, Machine, Python
from bevrepro.probe.ascend import probe_ascend
from bevrepro.probe.compiled import probe_libstdcxx, read_compiled
from bevrepro.probe.cpu import probe_cpu
from bevrepro.probe.cuda import probe_cuda
from bevrepro.probe.fuse import probe_fuse
from bevrepro.probe.host import probe_host
from bevrepro.probe.python import probe_python

T = TypeVar("T")


def collect(python: Path | None = None, deep: bool = False) -> Machine:
    """This machine. A probe that fails leaves its part unknown and a line in `trouble`."""
    trouble: list[str] = []
    # Those that wait for other programs wait at the same time.
    with ThreadPoolExecutor(max_workers=4) as pool:
        asked_cuda = pool.submit(probe_cuda)
        asked_python = pool.submit(probe_python, python, deep)
        asked_fuse = pool.submit(probe_fuse)
        asked_ascend = pool.submit(probe_ascend)
        host = _part("host", probe_host, Host(), trouble)
        cpu = _part("cpu", probe_cpu, Cpu(), trouble)
        target = _answer("python", asked_python, Python(), trouble)
        compiled = _part("compiled", lambda: read_compiled(target), target, trouble)
        libstdcxx = _part("libstdcxx", lambda: probe_libstdcxx(target.prefix), None, trouble)
        return Machine(
            bevrepro=__version__,
            recorded=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            host=replace(host, libstdcxx=libstdcxx),
            cpu=cpu,
            cuda=_answer("cuda", asked_cuda, Cuda(), trouble),
            fuse=_answer("fuse", asked_fuse, Fuse(), trouble),
            python=compiled,
            ascend=_answer("ascend", asked_ascend, Ascend(), trouble),
            trouble=tuple(trouble),
        )


def _answer(name: str, asked: "Future[T]", unknown: T, trouble: list[str]) -> T:
    return _part(name, asked.result, unknown, trouble)


def _part(name: str, probe: Callable[[], T], unknown: T, trouble: list[str]) -> T:
    try:
        return probe()
    except Exception as error:  # a strange machine must still get the rest of its report
        trouble.append(f"{name}: {type(error).__name__}: {error}")
        return unknown
