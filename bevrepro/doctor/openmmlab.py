"""OpenMMLab's packages beside each other, and the extensions that were compiled for one torch."""

from collections.abc import Iterator
from functools import partial

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from bevrepro import facts
from bevrepro.core.machine import Compiled, Machine, Package
from bevrepro.doctor.architectures import runs_on
from bevrepro.doctor.check import Check, Verdict, fail, issue, warn
from bevrepro.doctor.installed import release, tested_together, version_of
from bevrepro.doctor.versions import older
from bevrepro.probe.elf import plain_name

REBUILD = "Rebuild or reinstall it for this torch, without pip's cache."


def _matches(version: str | None, specifier: SpecifierSet) -> bool:
    try:
        return version is not None and specifier.contains(Version(release(version)), prereleases=True)
    except InvalidVersion:
        return False


def _clash(row: facts.Row, machine: Machine) -> str | None:
    """`yapf 0.43 with mmcv-full 1.6.0`, where both sides of the row hold."""
    sides = [Requirement(row[side]) for side in ("first", "second")]
    versions = [version_of(machine, side.name) for side in sides]
    both = all(_matches(version, side.specifier) for version, side in zip(versions, sides, strict=True))
    if not both or tested_together(machine, *(side.name for side in sides)):
        return None
    return " with ".join(f"{side.name} {version}" for version, side in zip(versions, sides, strict=True))


def _pair(row: facts.Row, machine: Machine) -> Iterator[Verdict]:
    seen = _clash(row, machine)
    if seen is not None:
        judge = fail if row["severity"] == "fail" and row.get("status") != "unverified" else warn
        yield judge(seen, row["remedy"], row["command"])


def _pair_check(row: facts.Row) -> Check:
    both = " and ".join(Requirement(row[side]).name for side in ("first", "second"))
    repository, _, number = row.get("link", "").partition("#")
    links = (issue(repository, int(number)),) if number else ()
    return Check(row["id"], "openmmlab", f"{both} together", row["why"], partial(_pair, row), links)


def _ranges(machine: Machine) -> Iterator[Verdict]:
    ours = version_of(machine, "mmdet3d")
    if _clash(facts.row("pairs", "mmdet3d-next"), machine):
        return  # told there, with the mmdet3d to take: none of the others should be brought up to this one
    twice = all(machine.python.package(name) for name in facts.row("packages", "mmcv-twice")["packages"])
    for row in facts.table("mmdet3d"):
        if row["mmdet3d"] != ours or tested_together(machine, "mmdet3d", row["package"]):
            continue
        if row["package"] == "mmcv" and twice:  # nobody knows which of them is imported
            continue
        found = version_of(machine, row["package"])
        upper = "" if "max" not in row else f",{'<=' if row['max_inclusive'] else '<'}{row['max']}"
        wanted = f">={row['min']}{upper}"
        if found is not None and not _matches(found, SpecifierSet(wanted)):
            yield fail(
                f"{row['package']} {found} with mmdet3d {ours}, which accepts {wanted}",
                "Install a version from that range; do not edit __version__ in the installed files.",
            )


def _with_operators(machine: Machine) -> Package | None:
    """mmcv-full, or an mmcv that took over its part; older ones called mmcv come without operators."""
    full, plain = machine.python.package("mmcv-full"), machine.python.package("mmcv")
    if full is None and plain and older(plain.version, facts.row("packages", "mmcv-ops")["from"]) is False:
        return plain
    return full


def _no_ops(machine: Machine) -> Iterator[Verdict]:
    package, found = _with_operators(machine), machine.python.extensions
    if package is None or found is None:
        return
    ours = [each for each in found if each.name.startswith("mmcv/_ext")]
    tag = _tag(machine.python.version)
    if not ours:
        seen = f"{package.name} {package.version} has no compiled operators (mmcv/_ext*.so)"
    elif (
        tag
        and (tagged := [each.name for each in ours if "cpython-" in each.name])
        and not any(tag in name for name in tagged)
    ):
        seen = f"{tagged[0]} is for another Python than {machine.python.version}"
    else:
        return
    yield fail(
        seen,
        "Build it beside the torch that it is for; pip keeps the build without operators in its cache.",
        "python -m pip uninstall -y mmcv mmcv-full",
        f"python -m pip cache remove {package.name.replace('-', '_')}",
        f"MMCV_WITH_OPS=1 python -m pip install --no-build-isolation {package.name}=={package.version}",
    )


def _tag(version: str | None) -> str | None:
    """`cpython-38-` for Python 3.8.19."""
    parts = (version or "").split(".")
    return f"cpython-{parts[0]}{parts[1]}-" if len(parts) > 1 else None


def _extensions(machine: Machine) -> Iterator[Compiled]:
    yield from (each for each in machine.python.extensions or () if each.error is None)


def _other_torch(machine: Machine) -> Iterator[Verdict]:
    torch = machine.python.torch
    for each in _extensions(machine):
        if torch and each.undefined_count:
            named = ", ".join(map(plain_name, each.undefined or ()))
            yield fail(
                f"{each.name} needs {each.undefined_count} symbol(s) that torch {torch.version} has not, "
                f"{named}: it was compiled for another torch",
                REBUILD,
                *(("python -m pip cache remove 'mmcv*'",) if each.name.startswith("mmcv/") else ()),
            )


def _no_kernels(machine: Machine) -> Iterator[Verdict]:
    for each in _extensions(machine):
        for gpu in machine.cuda.gpus or ():
            if not each.architectures or gpu.capability is None:
                continue
            if runs_on(each.architectures, each.ptx or (), gpu.capability) is False:
                yield fail(
                    f"{each.name} holds {', '.join(each.architectures)}, {gpu.name} is {gpu.capability}",
                    "Build it for this GPU.",
                    f"export TORCH_CUDA_ARCH_LIST={gpu.capability}",
                )
                break


def _cpu_only(machine: Machine) -> Iterator[Verdict]:
    torch = machine.python.torch
    for each in _extensions(machine):
        for_torch = each.name.startswith(("mmcv/_ext", "mmdet3d/ops"))
        if for_torch and each.architectures == () and torch and torch.cuda and machine.cuda.gpus:
            yield warn(
                f"{each.name} holds no code for GPUs, and torch {torch.version} is a CUDA build",
                "It was built where no GPU was visible (docker build): build it again with CUDA forced.",
                "export FORCE_CUDA=1",
            )
            break  # mmdet3d has many of them, all built at once


def _unreadable(machine: Machine) -> Iterator[Verdict]:
    for each in machine.python.extensions or ():
        if each.error is not None:
            yield fail(f"{each.name} cannot be read: {each.error}", REBUILD)


CHECKS = (
    Check("openmmlab-range", "openmmlab", "mmcv, mmdet and mmsegmentation against mmdet3d",
          "mmdet3d asserts its ranges at import: 'MMCV==... is used but incompatible'.", _ranges,
          (issue("fundamentalvision/BEVFormer", 293), issue("open-mmlab/mmcv", 3096))),
    Check("mmcv-no-ops", "openmmlab", "whether mmcv has its operators",
          "Its import of mmcv.ops stops: No module named 'mmcv._ext'.", _no_ops,
          (issue("fundamentalvision/BEVFormer", 271),)),
    Check("ext-other-torch", "openmmlab", "compiled extensions against this torch, by their symbols",
          "Importing them stops with 'undefined symbol: _ZN2at...' or '_ZN3c10...'.", _other_torch,
          (issue("fundamentalvision/BEVFormer", 181), issue("HuangJunJie2017/BEVDet", 182))),
    Check("ext-no-kernels", "openmmlab", "compiled extensions against the GPU",
          "Their first call stops with 'no kernel image is available for execution on the device'.",
          _no_kernels),
    Check("ext-cpu-only", "openmmlab", "whether compiled extensions hold code for GPUs",
          "Their operators stop with 'not compiled with GPU support' at the first batch.", _cpu_only),
    Check("ext-unreadable", "openmmlab", "whether compiled extensions are whole",
          "A cut library does not load.", _unreadable),
    *(_pair_check(row) for row in facts.table("pairs")),
)  # fmt: skip
