"""`bevrepro doctor env|data|ckpt|config|metrics PATH`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Context, Exit, Typer

from bevrepro.cli.doctor_options import AsJson, Deep, Format, Only, Skip, Strict, Wanted, wanted_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from bevrepro.core.finding import Finding
    from bevrepro.probe.mounts import MountSeen

PathArgument = Annotated[Path, Argument(metavar="PATH")]

SUBJECTS = (
    ("env", "Look at an installed environment: versions against its lock and each other, edited files."),
    ("data", "Look at nuScenes as it lies there: a folder, a mount, an archive or an infos file."),
    ("ckpt", "Look at a checkpoint without torch: is it whole, of which preset, with which weights."),
    ("config", "Look at a configuration: batch against learning rate, sampler, video mode."),
    ("metrics", "Look at a metrics_summary.json: the mistake that its numbers point to."),
)


def add_subjects(doctor: Typer) -> None:
    """One sub-command per family that looks at a path."""
    for family, sentence in SUBJECTS:
        doctor.command(family)(_examiner(family, sentence))


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
        from bevrepro.cli.doctor_formats import fails

        wanted = wanted_from(as_json, format, only, skip, strict, deep, context.obj)
        findings = _examine(family, path, wanted)
        _report_path(family, path, wanted, findings)
        if fails(findings, wanted.strict):
            raise Exit(1)

    examine.__doc__ = sentence
    return examine


def _examine(family: str, path: Path, wanted: Wanted) -> "tuple[Finding, ...]":
    from importlib import import_module

    from bevrepro.doctor.registry import PATH_CHECKS
    from bevrepro.doctor.select import keep, select

    select(PATH_CHECKS[family], wanted.only, wanted.skip)  # a wrong name before the work
    examine = getattr(import_module(f"bevrepro.doctor.{family}"), f"examine_{family}")
    known = {"mount": _mount_at(path)} if family == "data" else {}
    return keep(examine(path, wanted.deep, **known), PATH_CHECKS[family], wanted.only, wanted.skip)


def _mount_at(path: Path) -> "MountSeen | None":
    """What is remembered of a mount there; the room of the doctor does not know the one of the mounts."""
    from bevrepro.data import mountinfo
    from bevrepro.data.status import status
    from bevrepro.probe.mounts import MountSeen

    one = next((one for one in status() if one.mountpoint == str(mountinfo.real(path))), None)
    if one is None:
        return None
    return MountSeen(one.mountpoint, one.state, one.missing_archives, one.changed_archives)


def _report_path(family: str, path: Path, wanted: Wanted, findings: "tuple[Finding, ...]") -> None:
    from bevrepro.cli.doctor_formats import print_findings, print_json

    if wanted.as_json:
        print_json({"family": family, "path": str(path), "findings": findings})
    elif wanted.format == "text":
        from bevrepro.cli.doctor_view import print_report

        print_report({family: str(path)}, findings, f"{family} {path.name or path}")
    else:
        print_findings(wanted.format, f"{family} {path}", findings)
