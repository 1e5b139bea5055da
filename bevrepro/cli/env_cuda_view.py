"""Toolkits for a terminal: the known ones, a plan, and one that was made."""

import shlex
from collections.abc import Sequence
from typing import Any

from bevrepro.env.nvcc_check import Check
from bevrepro.env.toolkit import SAID, Toolkit

MB = 1_000_000


def print_known(rows: Sequence[dict[str, Any]]) -> None:
    """A paragraph for each toolkit."""
    for row in rows:
        sizes = ", ".join(f"{kind} {size / MB:.0f} MB" for kind, size in row["size_b"].items())
        print(f"{row['version']}  nvcc {row['nvcc']}, gcc up to {row['newest_gcc']}; {sizes}")
        print(f"      {' '.join(row['architectures'])}")
        print(f"      {row['source']} ({row['checked']})")


def print_plan(plan: dict[str, Any]) -> None:
    """What would be fetched, source by source; nothing was."""
    if plan["there"]:
        print(f"CUDA {plan['version']} is in {plan['into']} and whole; nothing would be done.")
        return
    print(f"CUDA {plan['version']} into {plan['into']}, from the first of these that can be reached:")
    for source in plan["sources"]:
        print(f"{source['kind']}: {SAID[source['kind']]}, {source['size_b'] / MB:.0f} MB")
        _print_files(source)
    print(f"host compiler: {plan['host_compiler_said']}")
    if plan["fetched_compiler"]:
        print(f"fetched as well: {plan['fetched_compiler']['size_b'] / MB:.0f} MB of Debian's packages")
        _print_files(plan["fetched_compiler"])


def print_made(toolkit: Toolkit, check: Check) -> None:
    """Where it is, what was tested, and what to export."""
    print(f"CUDA {toolkit.version} (nvcc {check.nvcc}) in {toolkit.home}, from {SAID[toolkit.source]}")
    print(f"digest {toolkit.digest}")
    print(
        f"self-test: a kernel compiled for {check.arch} and linked into a shared library, "
        f"{check.seconds:.1f} s; nothing ran on a GPU"
    )
    for name, value in toolkit.environment.items():
        print(f"export {name}={shlex.quote(value)}")


def _print_files(source: dict[str, Any]) -> None:
    for file in source["files"]:
        size = "headers only" if file["partly"] else f"{file['size_b'] / MB:.1f} MB"
        print(f"  {file['sha256']}  {file['file']} ({size})")
