"""Debian's packages from the mirror that the system's own apt uses without root.

A recipe names path and sha256 of each .deb, so no package list has to be read or trusted. What only apt
can reach (by its proxy, its passwords, its transports) is asked of apt's own helper.
"""

from functools import cache
from pathlib import Path

from bevrepro.core import proc
from bevrepro.env.cuda_recipe import Part
from bevrepro.env.fetch import NotFetched, OnEvent, as_url, fetch, join, plain
from bevrepro.env.tree import sha256_of

HELPER = Path("/usr/lib/apt/apt-helper")
HELPER_TIMEOUT_S = 3600.0


@cache
def mirrors_of_apt() -> tuple[str, ...]:
    """Mirrors of Debian that apt is set up for; where it has Ubuntu's, the same host's `debian` is tried."""
    if proc.which("apt-get") is None:
        return ()
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages"]
    done = proc.run(argv, timeout_s=30)
    found: list[str] = []
    for line in done.stdout.split():
        base, _, last = line.rstrip("/").rpartition("/")
        if last in ("debian", "ubuntu"):
            found.append(f"{base}/debian")
    return tuple(dict.fromkeys(found))


def addresses(part: Part, mirror: str | None) -> list[str]:
    """Where a .deb is looked for: only on `mirror` where one is given."""
    bases = (as_url(mirror),) if mirror else mirrors_of_apt()
    return [join(base, part.path) for base in bases]


def fetch_deb(part: Part, urls: list[str], target: Path, on_event: OnEvent) -> Path:
    """The .deb, checked. Raises NotFetched with what each address said."""
    if not urls:
        raise NotFetched([f"{part.file}: apt is set up for no mirror of Debian here; --deb-mirror names one"])
    http = [url for url in urls if url.split(":", 1)[0] in ("http", "https", "file")]
    try:
        return fetch(part.file, http, part.sha256, part.size, target, on_event)
    except NotFetched as error:
        if error.altered or not HELPER.is_file() or not _by_apt(part, urls, target):
            raise
        return target


def _by_apt(part: Part, urls: list[str], target: Path) -> bool:
    """Whether apt's helper got the file; it checks the sha256 too, and so do we."""
    beside = target.with_name(target.name + ".apt")
    for url in urls:
        if url.startswith("file:"):
            continue
        argv: list[str | Path] = [HELPER, "download-file", plain(url), beside, f"SHA256:{part.sha256}"]
        done = proc.run(argv, timeout_s=HELPER_TIMEOUT_S)
        if done.ok and beside.is_file() and sha256_of(beside) == part.sha256:
            beside.replace(target)
            return True
        for left in (beside, beside.with_name(beside.name + ".FAILED")):
            left.unlink(missing_ok=True)
    return False
