"""`bevrepro doctor`: will it work here, and why not. Alone it judges a machine, with a sub-command a path."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import BadParameter, Context, Exit, Option, Typer

from bevrepro.cli.doctor_examine import add_subjects
from bevrepro.cli.doctor_options import (
    ALONE,
    AsJson,
    Deep,
    Format,
    Only,
    Skip,
    Strict,
    Wanted,
    refuse,
    refuse_contradictions,
    wanted_from,
)

# The probes and checks are imported inside the functions: `bevrepro --help` does without them.
if TYPE_CHECKING:
    from collections.abc import Sequence

    from bevrepro.core.finding import Finding
    from bevrepro.core.machine import Machine
    from bevrepro.doctor.check import Check
    from bevrepro.doctor.target import Target

doctor = Typer(invoke_without_command=True)


def register(app: Typer) -> None:
    """Add the group."""
    app.add_typer(doctor, name="doctor")


@doctor.callback(invoke_without_command=True)
def doctor_command(
    context: Context,
    as_json: AsJson = False,
    format: Format = None,
    only: Only = None,
    skip: Skip = None,
    strict: Strict = False,
    deep: Deep = False,
    target: Annotated[
        str | None, Option("--target", metavar="NAME", help="Judge for this target: a100, rtx40, cpu ...")
    ] = None,
    python: Annotated[
        Path | None, Option("--python", metavar="PATH", help="Interpreter to look at; by default our own.")
    ] = None,
    record: Annotated[
        Path | None, Option("--record", metavar="FILE", help="Write this machine to FILE, names scrubbed.")
    ] = None,
    replay: Annotated[
        Path | None, Option("--replay", metavar="FILE", help="Judge a recorded machine instead of this one.")
    ] = None,
    from_log: Annotated[
        str | None, Option("--from-log", metavar="FILE|-", help="Name the cause of what broke in a log.")
    ] = None,
    explain: Annotated[
        str | None,
        Option(
            "--explain", metavar="ID", help="Tell one check (and what it says here) or one failure in full."
        ),
    ] = None,
    list_checks: Annotated[bool, Option("--list", help="List every check.")] = False,
    fix: Annotated[
        bool, Option("--fix", help="Mend what can be taken back, in your own files only; see --dry-run.")
    ] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="With --fix: show what would be written.")] = False,
    undo: Annotated[bool, Option("--undo", help="Take the last --fix back.")] = False,
) -> None:
    """Say whether BEVFormer will work on this machine, and why not.

    Looks without changing anything, needs about a second, and imports no torch. Exit code 1: something
    will fail. The sub-commands look at a path instead.
    """
    wanted = wanted_from(as_json, format, only, skip, strict, deep)
    if context.invoked_subcommand is not None:
        refuse(context, ALONE, f"does not go with `doctor {context.invoked_subcommand}`")
        context.obj = wanted
        return
    refuse_contradictions(context, fix, undo, dry_run)
    if list_checks or explain is not None or undo:
        _without_diagnosis(wanted, list_checks, explain, replay, python)
    aim = _target(target)
    checks = _checks(wanted, aim)  # a wrong name is told before the machine is looked at
    machine = _machine(replay, python, wanted.deep)
    if from_log is not None:
        _from_log(from_log, wanted, machine)
    if record is not None:
        from bevrepro.doctor.record import save

        save(machine, record)
    findings = _diagnose(machine, checks)
    title = f"recorded in {replay}" if replay else "this machine"
    if fix:
        _fix(wanted, machine, findings, dry_run)
    _report(wanted, machine, findings, checks, aim, title)


def _without_diagnosis(
    wanted: Wanted, list_checks: bool, explain: str | None, replay: Path | None, python: Path | None
) -> None:
    if list_checks:
        from bevrepro.cli.doctor_list import print_list

        print_list(wanted)
    elif explain is not None:
        from bevrepro.cli.doctor_list import print_explanation

        print_explanation(wanted, explain, lambda: _machine(replay, python, False))
    else:
        from bevrepro.cli.doctor_fix import undo_last

        undo_last(wanted.as_json)
    raise Exit()


def _from_log(log: str, wanted: Wanted, machine: "Machine") -> None:
    from bevrepro.cli.doctor_log import explain_log

    raise Exit(explain_log(log, wanted.as_json, machine))


def _fix(wanted: Wanted, machine: "Machine", findings: "Sequence[Finding]", dry_run: bool) -> None:
    from bevrepro.cli.doctor_fix import mend

    mend(machine, findings, dry_run, wanted.as_json)
    raise Exit()


def _machine(replay: Path | None, python: Path | None, deep: bool) -> "Machine":
    if replay is not None:
        if python is not None or deep:
            raise BadParameter("a recorded machine has no interpreter to ask: leave out --python and --deep")
        from bevrepro.doctor.record import load

        return load(replay)
    from bevrepro.probe.machine import collect

    return collect(python, deep)


def _target(name: str | None) -> "Target | None":
    from bevrepro.doctor import target

    return None if name is None else target.find(name)


def _checks(wanted: Wanted, aim: "Target | None") -> "tuple[Check, ...]":
    """Those selected; what does not matter to the target only where it is asked for by name."""
    from bevrepro.doctor import target
    from bevrepro.doctor.registry import CHECKS
    from bevrepro.doctor.select import select

    if aim is None:
        return select(CHECKS, wanted.only, wanted.skip)
    checks = select((*CHECKS, *target.checks_for(aim)), wanted.only, wanted.skip)
    named = {*wanted.only}
    return tuple(each for each in checks if not target.left_out(aim, each) or named & {each.id, each.family})


def _diagnose(machine: "Machine", checks: "Sequence[Check]") -> "tuple[Finding, ...]":
    from bevrepro.doctor.diagnose import diagnose

    return diagnose(machine, checks)


def _report(
    wanted: Wanted,
    machine: "Machine",
    findings: "tuple[Finding, ...]",
    checks: "Sequence[Check]",
    aim: "Target | None",
    title: str,
) -> None:
    from bevrepro.cli.doctor_formats import fails, print_findings, print_json

    taken = _evidence(aim) if aim else ""
    title += f", for target {aim.id} ({taken})" if aim else ""
    if wanted.as_json:
        about = {"target": aim.id, "evidence": taken} if aim else {}
        print_json({"machine": machine, **about, "findings": findings})
    elif wanted.format == "text":
        from bevrepro.cli.doctor_view import print_report
        from bevrepro.doctor.summary import summarise
        from bevrepro.doctor.target import describe

        lines = summarise(machine) | ({"target": describe(aim)} if aim else {})
        families = {check.family for check in checks}
        print_report({name: line for name, line in lines.items() if name in families}, findings, title)
    else:
        print_findings(wanted.format, title, findings)
    if fails(findings, wanted.strict):
        raise Exit(1)


def _evidence(aim: "Target") -> str:
    """How far the target itself was taken, `compiled 2026-11-21`: shown wherever one is named."""
    from bevrepro.env import evidence, target

    return evidence.badge(target.load(aim.id))


add_subjects(doctor)
