"""`bevrepro doctor`: will it work here, and why not. Alone it judges a machine, with a sub-command a path."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Context, Exit, Option, Typer

# The probes and checks are imported inside the functions: `bevrepro --help` does without them.
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bevrepro.core.finding import Finding
    from bevrepro.core.machine import Machine
    from bevrepro.doctor.check import Check
    from bevrepro.doctor.target import Target

FORMATS = ("text", "github", "markdown")
ALONE = (
    "record",
    "replay",
    "python",
    "explain",
    "from_log",
    "list_checks",
    "fix",
    "undo",
    "dry_run",
    "target",
)

AsJson = Annotated[bool, Option("--json", help="Print JSON.")]
Format = Annotated[
    str | None,
    Option("--format", metavar="text|github|markdown", help="github: annotations for a workflow run."),
]
Only = Annotated[
    list[str] | None, Option("--only", metavar="ID", help="Only this check or family; repeatable.")
]
Skip = Annotated[
    list[str] | None, Option("--skip", metavar="ID", help="Not this check or family; repeatable.")
]
Strict = Annotated[bool, Option("--strict", help="Exit with 1 for warnings too.")]
Deep = Annotated[bool, Option("--deep", help="Take the time to try and to read whole files (seconds).")]
PathArgument = Annotated[Path, Argument(metavar="PATH")]

SUBJECTS = (
    ("env", "Look at an installed environment: versions against its lock and each other, edited files."),
    ("data", "Look at nuScenes as it lies there: a folder, a mount, an archive or an infos file."),
    ("ckpt", "Look at a checkpoint without torch: is it whole, of which preset, with which weights."),
    ("config", "Look at a configuration: batch against learning rate, sampler, video mode."),
    ("metrics", "Look at a metrics_summary.json: the mistake that its numbers point to."),
)

doctor = Typer(invoke_without_command=True)


def register(app: Typer) -> None:
    """Add the group."""
    app.add_typer(doctor, name="doctor")


@dataclass(frozen=True)
class Wanted:
    """How to report, and of what: the options that the group and its sub-commands share."""

    as_json: bool = False
    format: str = "text"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    strict: bool = False
    deep: bool = False


def _wanted(
    as_json: bool,
    format: str | None,
    only: list[str] | None,
    skip: list[str] | None,
    strict: bool,
    deep: bool,
    outer: Wanted | None = None,
) -> Wanted:
    """With `outer`, what stood before the sub-command counts as well."""
    outer = outer or Wanted()
    if format is not None and format not in FORMATS:
        raise BadParameter(f"{format!r} is none of {', '.join(FORMATS)}", param_hint="--format")
    wanted = Wanted(
        as_json=as_json or outer.as_json,
        format=format or outer.format,
        only=(*outer.only, *(only or ())),
        skip=(*outer.skip, *(skip or ())),
        strict=strict or outer.strict,
        deep=deep or outer.deep,
    )
    if wanted.as_json and wanted.format != "text":
        raise BadParameter("--json and --format say different things: give one of them")
    return wanted


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
    wanted = _wanted(as_json, format, only, skip, strict, deep)
    if context.invoked_subcommand is not None:
        _refuse(context, ALONE, f"does not go with `doctor {context.invoked_subcommand}`")
        context.obj = wanted
        return
    _refuse_contradictions(context, fix, undo, dry_run)
    if list_checks or explain is not None or undo:
        _without_diagnosis(wanted, list_checks, explain, replay, python)
    machine = _machine(replay, python, wanted.deep)
    if from_log is not None:
        _from_log(from_log, wanted, machine)
    if record is not None:
        from bevrepro.doctor.record import save

        save(machine, record)
    aim = _target(target)
    checks = _checks(wanted, aim)
    findings = _diagnose(machine, checks)
    title = f"recorded in {replay}" if replay else "this machine"
    if fix:
        _fix(wanted, machine, findings, dry_run)
    _report_machine(wanted, machine, findings, checks, aim, title)
    _end(wanted, findings)


def _refuse_contradictions(context: Context, fix: bool, undo: bool, dry_run: bool) -> None:
    """One thing at a time, and nothing that would be ignored."""
    modes = [name for name in ("from_log", "explain", "list_checks", "fix", "undo") if _given(context, name)]
    if len(modes) > 1:
        raise BadParameter(f"{' and '.join(map(_option, modes))} do not go together")
    if dry_run and not fix:
        raise BadParameter("--dry-run belongs to --fix")
    if fix and _given(context, "replay") and not dry_run:
        raise BadParameter(
            "a recorded machine cannot be mended from here: add --dry-run, or leave out --replay"
        )
    mode = modes[0] if modes else ""
    for rejected in {
        "from_log": ("target", "record", "only", "skip", "strict", "format"),
        "explain": ("target", "record", "only", "skip", "strict", "deep"),
        "list_checks": ("target", "record", "replay", "python", "strict", "deep"),
        "undo": ("target", "record", "replay", "python", "only", "skip", "strict", "deep", "format"),
        "fix": ("record", "strict", "format"),
    }.get(mode, ()):
        _refuse(context, (rejected,), f"does not go with {_option(mode)}")


def _refuse(context: Context, names: "Sequence[str]", why: str) -> None:
    for name in names:
        if _given(context, name):
            raise BadParameter(f"{_option(name)} {why}")


def _given(context: Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _option(name: str) -> str:
    return "--list" if name == "list_checks" else "--" + name.replace("_", "-")


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


def _report_machine(
    wanted: Wanted,
    machine: "Machine",
    findings: "tuple[Finding, ...]",
    checks: "Sequence[Check]",
    aim: "Target | None",
    title: str,
) -> None:
    title += f", for target {aim.id}" if aim else ""
    if wanted.as_json:
        about = {"target": aim.id} if aim else {}
        print_json({"machine": machine, **about, "findings": findings})
    elif wanted.format == "text":
        from bevrepro.cli.doctor_view import print_report
        from bevrepro.doctor.summary import summarise
        from bevrepro.doctor.target import describe

        lines = summarise(machine) | ({"target": describe(aim)} if aim else {})
        families = {check.family for check in checks}
        print_report({name: line for name, line in lines.items() if name in families}, findings, title)
    else:
        _print_other(wanted.format, title, findings)


def _print_other(format: str, title: str, findings: "Sequence[Finding]") -> None:
    from bevrepro.cli.doctor_formats import github, markdown

    print(github(findings) if format == "github" else markdown(title, findings))


def refuse_format(wanted: Wanted, what: str, *but: str) -> None:
    """For what has no such format."""
    if wanted.format not in ("text", *but):
        raise BadParameter(f"{what} has no format {wanted.format}", param_hint="--format")


def print_json(data: dict[str, Any]) -> None:
    """To stdout."""
    from bevrepro.core.codec import to_json

    print(json.dumps(to_json(data), indent=1))


def _end(wanted: Wanted, findings: "Sequence[Finding]") -> None:
    bad = {"fail", "warn"} if wanted.strict else {"fail"}
    if any(finding.severity.value in bad for finding in findings):
        raise Exit(1)


def _examiner(family: str, sentence: str) -> "Callable[..., None]":
    """The sub-command of one family."""

    def examine(
        context: Context,
        path: PathArgument,
        as_json: AsJson = False,
        format: Format = None,
        only: Only = None,
        skip: Skip = None,
        strict: Strict = False,
        deep: Deep = False,
    ) -> None:
        wanted = _wanted(as_json, format, only, skip, strict, deep, context.obj)
        findings = _examine(family, path, wanted)
        _report_path(family, path, wanted, findings)
        _end(wanted, findings)

    examine.__doc__ = sentence
    return examine


def _examine(family: str, path: Path, wanted: Wanted) -> "tuple[Finding, ...]":
    from importlib import import_module

    from bevrepro.doctor.registry import PATH_CHECKS
    from bevrepro.doctor.select import keep, select

    select(PATH_CHECKS[family], wanted.only, wanted.skip)  # a wrong name before the work
    examine = getattr(import_module(f"bevrepro.doctor.{family}"), f"examine_{family}")
    return keep(examine(path, wanted.deep), PATH_CHECKS[family], wanted.only, wanted.skip)


def _report_path(family: str, path: Path, wanted: Wanted, findings: "tuple[Finding, ...]") -> None:
    if wanted.as_json:
        print_json({"family": family, "path": str(path), "findings": findings})
    elif wanted.format == "text":
        from bevrepro.cli.doctor_view import print_report

        print_report({family: str(path)}, findings, f"{family} {path.name or path}")
    else:
        _print_other(wanted.format, f"{family} {path}", findings)


for _family, _sentence in SUBJECTS:
    doctor.command(_family)(_examiner(_family, _sentence))
