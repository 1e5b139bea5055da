"""`bevrepro doctor`: will it work here, and why not."""

import json
from pathlib import Path
from typing import Annotated

from typer import BadParameter, Exit, Option, Typer

from bevrepro.core.finding import Finding
from bevrepro.core.machine import Machine


def register(app: Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    as_json: Annotated[bool, Option("--json", help="Print machine and findings as JSON.")] = False,
    record: Annotated[
        Path | None,
        Option("--record", metavar="FILE", help="Write this machine to FILE, names scrubbed."),
    ] = None,
    replay: Annotated[
        Path | None, Option("--replay", metavar="FILE", help="Judge a recorded machine instead of this one.")
    ] = None,
    deep: Annotated[
        bool, Option("--deep", help="Import torch and compute with it, in a child process (seconds).")
    ] = False,
    python: Annotated[
        Path | None, Option("--python", metavar="PATH", help="Interpreter to look at; by default our own.")
    ] = None,
) -> None:
    """Say whether BEVFormer will work on this machine, and why not.

    Looks without changing anything, needs about a second, and imports no torch. Exit code 1: something
    will fail.
    """
    # The probes and checks are imported here and not above: `bevrepro --help` does without them.
    from bevrepro.doctor.diagnose import diagnose, failed
    from bevrepro.doctor.record import save

    machine = _machine(replay, python, deep)
    if record is not None:
        save(machine, record)
    findings = diagnose(machine)
    if as_json:
        _print_json(machine, findings)
    else:
        from bevrepro.cli.doctor_view import print_report

        print_report(machine, findings, title=f"recorded in {replay}" if replay else "this machine")
    if failed(findings):
        raise Exit(1)


def _machine(replay: Path | None, python: Path | None, deep: bool) -> Machine:
    if replay is not None:
        if python is not None or deep:
            raise BadParameter("a recorded machine has no interpreter to ask: leave out --python and --deep")
        from bevrepro.doctor.record import load

        return load(replay)
    from bevrepro.probe.machine import collect

    return collect(python, deep)


def _print_json(machine: Machine, findings: tuple[Finding, ...]) -> None:
    from bevrepro.core.codec import to_json

    print(json.dumps({"machine": to_json(machine), "findings": to_json(findings)}, indent=1))
