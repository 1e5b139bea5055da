"""Facts as data: TOML tables beside this file. Every row has `id`, `source` and `checked`.

A row with `status = "unverified"` may inform and warn, never fail. No version or threshold stands in
code: a check asks for its row.
"""

import sys
from functools import cache
from importlib import resources
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

TABLES = tuple(
    sorted(
        entry.name[:-5] for entry in resources.files(__package__).iterdir() if entry.name.endswith(".toml")
    )
)
REQUIRED = ("id", "source", "checked")

Row = dict[str, Any]
__all__ = ["REQUIRED", "TABLES", "Row", "row", "table", "tomllib"]


@cache
def table(name: str) -> tuple[Row, ...]:
    """The rows of `<name>.toml`, in their order."""
    text = resources.files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["row"])


def row(name: str, id: str) -> Row:
    """One row; a missing one is a mistake in this repository (KeyError)."""
    for candidate in table(name):
        if candidate["id"] == id:
            return candidate
    raise KeyError(f"facts/{name}.toml has no row {id!r}")
