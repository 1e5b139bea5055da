"""What `env pack` says: a plan, or the file that was written."""

from collections import Counter

from bevrepro.cli.calls import print_json
from bevrepro.core.codec import to_json
from bevrepro.core.units import size
from bevrepro.env.evidence import badge, named
from bevrepro.env.pack import Done, Planned
from bevrepro.env.target import Target


def print_planned(planned: Planned, as_json: bool) -> None:
    """To stdout: every file that would be packed."""
    if as_json:
        rows = [{"name": each.name, "version": each.version, "file": each.file} for each in planned.packages]
        told = {
            "target": planned.target.name,
            "evidence": badge(planned.target),
            "python": planned.interpreter.version,
            "packages": rows,
        }
        return print_json({**told, "shipped": sorted(planned.shipped), "dry_run": True})
    for each in planned.packages:
        print(each.file)
    print("\n".join(sorted(planned.shipped)))
    python = planned.interpreter
    print(f"{len(planned.packages)} packages of {named(planned.target)} for Python {python.version}, "
          f"{python.platform}; nothing was fetched.")  # fmt: skip


def print_done(done: Done, target: Target, as_json: bool) -> None:
    """To stdout: the file, its sha256, and the command that builds from it."""
    told = done.manifest
    kinds = Counter(each.path.partition("/")[0] for each in told.files)
    if as_json:
        about = {"target": told.target, "evidence": badge(target), "python": told.python, "cuda": told.cuda}
        file = {"path": str(done.path), "sha256": done.sha256, "size_b": done.size_b}
        return print_json({**file, "files": dict(kinds), "manifest": to_json(told)["files"], **about})
    with_cuda = f", CUDA {told.cuda}" if told.cuda else ""
    print(f"{named(target)} in {done.path}: {size(done.size_b)}, {kinds['packages']} packages{with_cuda}")
    print(f"sha256 {done.sha256}")
    print(f"Where there is no network: bevrepro env build --target {told.target} --offline {done.path.name}")
