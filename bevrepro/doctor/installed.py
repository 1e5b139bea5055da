"""Which versions are installed, and which of them were built and tested beside each other."""

from collections.abc import Mapping

from bevrepro.core.machine import Machine

ALIASES = {"mmcv": "mmcv-full", "mmcv-full": "mmcv"}  # both install the module mmcv


def version_of(machine: Machine, name: str) -> str | None:
    """Of an installed package, of torch, or of Python itself."""
    python = machine.python
    if name == "python":
        return python.version
    if name == "torch":
        return python.torch.version if python.torch else None
    package = python.package(name)
    if package is None and name in ALIASES:
        package = python.package(ALIASES[name])
    return package.version if package else None


def tested_together(machine: Machine, *names: str) -> bool:
    """Whether `bevrepro env build` put these versions beside each other, patched and tested them.

    A pair that breaks as its authors published it may be a target's, which brings the patches for it.
    """
    built = machine.python.built
    return built is not None and all(_as_built(machine, built, name) for name in names)


def _as_built(machine: Machine, built: Mapping[str, str], name: str) -> bool:
    found = version_of(machine, name)
    left = built.get(name) or built.get(ALIASES.get(name, name))
    if name == "python":  # an environment never changes its own
        return True
    return found is not None and left is not None and release(found) == release(left)


def release(version: str) -> str:
    """`2.13.0` of `2.13.0+cpu`: two builds of one release."""
    return version.split("+")[0]
