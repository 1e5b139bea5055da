"""The target interpreter and where its packages come from."""

from collections.abc import Iterator, Sequence

from bevrepro import facts
from bevrepro.core.machine import Machine, Package
from bevrepro.doctor.check import Check, Verdict, fail, info, issue, warn
from bevrepro.doctor.versions import older

TOLD = 6


def _answers(machine: Machine) -> Iterator[Verdict]:
    python = machine.python
    if python.error is not None:
        yield fail(f"{python.executable} cannot be used: {python.error}", "Name another interpreter.",
                   "bevrepro doctor --python PATH")  # fmt: skip


def _version(machine: Machine) -> Iterator[Verdict]:
    python, bounds = machine.python, facts.row("needs", "python")
    seen = f"Python {python.version} ({python.executable})"
    if older(python.version, bounds["oldest"]):
        yield fail(f"{seen} is older than {bounds['oldest']}", "Make an environment with a newer Python.")
    elif older(python.version, bounds["below"]) is False:
        yield fail(
            f"{seen}: nuscenes-devkit keeps numpy below 2, which has no wheels from {bounds['below']} on",
            "Make the environment with Python 3.11, the one that the lock is for.",
            "uv venv --python 3.11",
        )


def _user_site(machine: Machine) -> Iterator[Verdict]:
    python = machine.python
    if not python.user_site:
        return
    leaked = [package for package in python.packages or () if package.location == python.user_site]
    if leaked:
        yield warn(
            f"{_named(leaked)} would come from {python.user_site}",
            "Switch the user's site-packages off for this environment.",
            "export PYTHONNOUSERSITE=1",
            fixable=True,
        )


def _pythonpath(machine: Machine) -> Iterator[Verdict]:
    places = [place for place in (machine.host.variable("PYTHONPATH") or "").split(":") if place]
    for place in dict.fromkeys(places):
        leaked = [package for package in machine.python.packages or () if package.location == place]
        if leaked:
            yield warn(f"{_named(leaked)} would come from PYTHONPATH ({place})",
                       "Unset PYTHONPATH, or take that folder out.", "unset PYTHONPATH",
                       fixable=True)  # fmt: skip


def _named(packages: Sequence[Package]) -> str:
    names = [f"{package.name} {package.version}" for package in packages[:TOLD]]
    more = len(packages) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _isolated(machine: Machine) -> Iterator[Verdict]:
    if machine.python.isolated is False:
        yield info(
            f"{machine.python.executable} is no virtual environment",
            "Installing into one keeps the system's packages as they are.",
        )


CHECKS = (
    Check("python-unusable", "python", "whether the target interpreter starts",
          "The model runs in it.", _answers),
    Check("python-version", "python", "the target interpreter's version",
          "The model and its packages are not to be had for every Python.", _version),
    Check("user-site-leak", "python", "packages from the user's site-packages",
          "They are imported instead of the environment's own, in other versions.", _user_site,
          (issue("conda/conda", 394), issue("open-mmlab/mmtracking", 556))),
    Check("pythonpath-leak", "python", "packages from PYTHONPATH",
          "They are imported instead of the environment's own.", _pythonpath),
    Check("python-shared", "python", "whether the target is an environment of its own",
          "Other programs' packages and this project's get in each other's way.", _isolated),
)  # fmt: skip
