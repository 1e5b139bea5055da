"""NVIDIA's redistributable archives: one .tar.xz per component, listed in a manifest per release."""

import json
from typing import Any

from bevrepro.env.cuda_recipe import Part, Source
from bevrepro.env.fetch import NETWORK, NotFetched, as_url, join, opened, plain, reason

MANIFEST_B = 4 << 20  # far above the 60 kB it has


def address(source: Source, part: Part, mirror: str | None) -> str:
    """Where an archive lies on NVIDIA's server or on a mirror of its folder `compute/cuda/redist`."""
    return join(as_url(mirror or source.url or ""), part.path)


def check_manifest(source: Source, platform: str, mirror: str | None) -> None:
    """That the mirror's manifest says the same of every archive as the recipe.

    Raises NotFetched where there is none, or where it differs: then something was exchanged.
    """
    url = join(as_url(mirror or source.url or ""), source.manifest or "")
    try:
        with opened(url) as response:
            manifest = json.loads(response.read(MANIFEST_B))
    except ValueError as error:
        raise NotFetched([f"{plain(url)}: it is no manifest ({error})"], altered=True) from error
    except (*NETWORK, OSError) as error:
        raise NotFetched([f"{plain(url)}: {reason(error)}"]) from error
    differing = [line for part in source.parts if (line := _difference(manifest, part, platform))]
    if differing:
        raise NotFetched([f"{plain(url)}: {line}" for line in differing], altered=True)


def _difference(manifest: Any, part: Part, platform: str) -> str | None:
    if part.kind != "archive":
        return None
    try:
        row = manifest[part.name][platform]
        path, sha256 = row["relative_path"], row["sha256"]
    except (KeyError, TypeError):
        return f"it lists no {part.name} for {platform}"
    if (path, sha256) != (part.path, part.sha256):
        return f"of {part.name} it names {path} with sha256 {sha256}, not the one that was measured"
    return None
