"""Packages into an environment, by hash: uv, and nothing that is edited or patched shares a cache's file."""

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from bevrepro.core.errors import ConfigError
from bevrepro.env import shared, uv_cache
from bevrepro.env.index import Index, uv
from bevrepro.env.job import Job
from bevrepro.env.layout import STEPS
from bevrepro.env.lockfile import Pin
from bevrepro.env.record_file import forget_origin
from bevrepro.env.slips import records_in, winners
from bevrepro.env.uv_trouble import ABSENT, explain

INSTALLED = re.compile(r" \+ (\S+)==")
ABI = "--only-binary=:all:"


def requirement_lines(pins: Iterable[Pin], equals: str = "==") -> str:
    """Hashed requirements for the pins, whose markers hold already."""
    return "".join(
        f"{pin.name}{equals}{pin.version} " + " ".join(f"--hash=sha256:{each}" for each in pin.hashes) + "\n"
        for pin in pins
    )


def _exact_lines(pins: Iterable[Pin]) -> str:
    # 2.0+cpu in a folder of wheels satisfies ==2.0 and is preferred to it; only === is just that one.
    return requirement_lines(pins, "===")


def make_venv(job: Job) -> None:
    """An empty virtual environment at its place, with scripts that find it wherever it lies."""
    index = job.plan.index
    argv: list[str | Path] = [
        uv(),
        "venv",
        "--no-project",
        "--no-config",
        "--relocatable",
        "--allow-existing",
        "--offline",
    ]
    argv += ["--python", job.plan.interpreter.path, job.plan.build]
    status, text = job.run(argv, index.environment())
    if status:
        raise explain(text, index, str(job.log))


def install_locked(job: Job) -> None:
    """Every wheel of the lock, torch among them, and what no hash is known of after that."""
    plan = job.plan
    torch_url = plan.target.torch.index if plan.target.torch and plan.bundle is None else None
    names = {pin.name for pin in plan.wheels}
    lines = _exact_lines(plan.wheels)
    install(job, lines, len(names), ["--require-hashes"], also=torch_url, mode="hardlink")
    shared.part_from_cache(plan.build)
    for requirement in plan.unhashed:
        here = f"Python {plan.interpreter.minor} on {plan.interpreter.platform}"
        job.note(f"{requirement} was installed without a hash: none is known for {here}.")
        install(job, requirement + "\n", 1, [], also=torch_url)
    # uv installs several at once: of two packages with one file, either could come last.
    for name in winners(records_in(plan.build)):
        pin = plan.locks.pins.get(name)
        if pin is not None:
            again = ["--require-hashes", "--reinstall"]
            install(job, _exact_lines([pin]), 1, again, also=torch_url)
    refuse_damaged_cache(job, torch_url)


def refuse_damaged_cache(job: Job, also: str | None) -> None:
    """DataError where uv's cache gave other files than the wheels. What looks so is fetched past it."""
    build = job.plan.build
    records = {uv_cache.name_of(record): record for record in records_in(build)}
    found = uv_cache.suspects(build, records.values())
    site = str(next(build.glob("lib/python3*/site-packages")).relative_to(build))
    for name in sorted(found.keys() & job.plan.locks.pins.keys()):
        pin = job.plan.locks.pins[name]
        if not uv_cache.unknown(pin, found[name], site):
            continue
        with tempfile.TemporaryDirectory(prefix="fresh-", dir=build / STEPS) as fresh:
            past = ["--require-hashes", "--no-cache", "--target", fresh]
            install(job, _exact_lines([pin]), 1, past, also=also)
            uv_cache.refuse_damage(pin, found[name], site, records[name], Path(fresh))


def install(
    job: Job,
    lines: str,
    count: int,
    options: list[str],
    also: str | None = None,
    only_from: Index | None = None,
    mode: str = "copy",
) -> None:
    """uv pip install of these requirements; `also` is one more index, asked where the others lack one.

    `mode`: how files come from uv's cache, `copy` or `hardlink` (a copy where a link cannot be).
    """
    if not lines:
        return
    status, text, index = _try(job, lines, count, options, only_from or job.plan.index, mode)
    if status and also and not index.no_index and re.search(ABSENT, text):
        more = Index(**{**vars(index), "extra": (*index.extra, also)})
        status, text, index = _try(job, lines, count, options, more, mode)
    if status:
        raise explain(text, index, str(job.log))
    forget_origin(job.plan.build)


def install_side(job: Job, pins: Iterable[Pin], folder: Path) -> None:
    """Wheels into a folder of their own, for PYTHONPATH: what builds need and nothing else sees."""
    wanted = list(pins)
    install(job, _exact_lines(wanted), len(wanted), ["--require-hashes", "--target", str(folder)])


def _try(
    job: Job, lines: str, count: int, options: list[str], index: Index, mode: str
) -> tuple[int, str, Index]:
    file = job.plan.build / "bevrepro-steps" / "requirements.txt"
    file.write_text(lines, encoding="utf-8")
    argv: list[str | Path] = [
        uv(),
        "pip",
        "install",
        "--no-deps",
        "--link-mode",
        mode,
        ABI,
        "--no-progress",
    ]
    argv += [ABI, "--python", job.python, *options, *index.arguments(), "-r", file]

    def show(line: str) -> None:
        if line.lstrip().startswith(("Downloading", "Prepared", "Installed")):
            job.progress(0 if not line.startswith("Installed") else count, count, "packages", line.strip())

    try:
        status, text = job.run(argv, index.environment(), on_line=show)
    finally:
        file.unlink(missing_ok=True)
    return status, text, index


def installed_packages(site: Path) -> dict[str, str]:
    """Normalised name -> version, from the folders *.dist-info. ConfigError where one has no version."""
    from packaging.utils import canonicalize_name

    found = {}
    for folder in sorted(site.glob("*.dist-info")):
        name, mark, version = folder.name.removesuffix(".dist-info").partition("-")
        if not mark:
            raise ConfigError(f"{folder} has no version", do="Build the environment again: --rebuild")
        found[str(canonicalize_name(name))] = version
    return found
