"""Options that `bevrepro doctor` and its sub-commands share, and what of them does not go together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from typer import BadParameter, Context, Option

FORMATS = ("text", "github", "markdown")
# What belongs to a machine and says nothing about a path.
ALONE = tuple("target python record replay from_log explain list_checks fix dry_run undo".split())
# An option that chooses another job -> the options that would do nothing beside it.
JOBS = {
    "from_log": ("target", "record", "only", "skip", "strict", "format"),
    "explain": ("target", "record", "only", "skip", "strict", "deep"),
    "list_checks": ("target", "record", "replay", "python", "strict", "deep"),
    "undo": ("target", "record", "replay", "python", "only", "skip", "strict", "deep", "format"),
    "fix": ("record", "strict", "format"),
}

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


@dataclass(frozen=True)
class Wanted:
    """How to report, and of what: the options that the group and its sub-commands share."""

    as_json: bool = False
    format: str = "text"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    strict: bool = False
    deep: bool = False


def wanted_from(
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


def refuse_contradictions(context: Context, fix: bool, undo: bool, dry_run: bool) -> None:
    """One thing at a time, and nothing that would be ignored."""
    modes = [name for name in JOBS if _given(context, name)]
    if len(modes) > 1:
        raise BadParameter(f"{' and '.join(map(_option, modes))} do not go together")
    if dry_run and not fix:
        raise BadParameter("--dry-run belongs to --fix")
    if fix and _given(context, "replay") and not dry_run:
        raise BadParameter(
            "a recorded machine cannot be mended from here: add --dry-run, or leave out --replay"
        )
    for mode in modes:
        refuse(context, JOBS[mode], f"does not go with {_option(mode)}")


def refuse(context: Context, names: Sequence[str], why: str) -> None:
    """Wrong usage where one of them was given."""
    for name in names:
        if _given(context, name):
            raise BadParameter(f"{_option(name)} {why}")


def _given(context: Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _option(name: str) -> str:
    return "--list" if name == "list_checks" else "--" + name.replace("_", "-")


def refuse_format(wanted: Wanted, what: str, *but: str) -> None:
    """For what has no such format."""
    if wanted.format not in ("text", *but):
        raise BadParameter(f"{what} has no format {wanted.format}", param_hint="--format")
