"""A pack of `env pack` as the only source of a build."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bevrepro.env.index import Index
from bevrepro.env.pack import PACKAGES, manifest_of, unpacked
from bevrepro.env.target import Target


@contextmanager
def opened(bundle: Path | None, target: Target) -> Iterator[Path | None]:
    """The pack's checked content in a folder that is gone afterwards; None where there is no pack."""
    if bundle is None:
        yield None
        return
    with unpacked(bundle, target) as found:
        yield found.root


def pythons(bundle: Path | None, target: Target) -> tuple[str, ...]:
    """The Pythons to look for, best first: a pack's wheels are for one of the target's."""
    if bundle is None:
        return target.python
    return (".".join(manifest_of(bundle, target).python.split(".")[:2]),)


def index_of(folder: Path) -> Index:
    """Its wheels and sdists, and nothing else."""
    return Index(no_index=True, find_links=(str(folder / PACKAGES),))
