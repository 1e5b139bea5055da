"""bevrepro-env.json: what an environment was built from and what was seen of it. Written last of all."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from bevrepro.core.errors import ConfigError
from bevrepro.core.paths import atomic_write_text
from bevrepro.env.layout import RECEIPT

SCHEMA = 1
SEAL = "receipt_sha256"  # over all other keys, so that an edit shows


@dataclass(frozen=True)
class Receipt:
    """The facts of one build. Paths are absolute, times in seconds, digests sha256 in hex."""

    target: str
    title: str
    stack: str
    prefix: str
    path: str
    python: Mapping[str, str]  # version, path, base
    inputs_digest: str
    digest: str
    locks: Mapping[str, str]  # locks/cpu.txt -> sha256
    packages: Mapping[str, str]  # normalised name -> version
    built: tuple[str, ...]
    patches: tuple[Mapping[str, str], ...]  # set, sha256
    cuda: Mapping[str, str] | None  # version, home, digest
    environment: Mapping[str, str]
    selftest: tuple[Mapping[str, Any], ...]  # name, ok, seconds, said
    steps: tuple[Mapping[str, Any], ...]  # name, seconds, digest
    built_at: str
    bevrepro: str
    evidence: str | None
    slips: Mapping[str, str] = field(
        default_factory=dict
    )  # files unlike their RECORD from the start (slips.py)
    notes: tuple[str, ...] = ()  # what the user should know: a package without a hash
    schema: int = field(default=SCHEMA)

    def to_json(self) -> dict[str, Any]:
        """Ready for json.dumps, with its seal."""
        told = asdict(self)
        return {**told, SEAL: _seal(told)}


def write_receipt(receipt: Receipt, build: Path) -> None:
    """Whole or not at all. DiskError when it cannot be written."""
    text = json.dumps(receipt.to_json(), indent=2, sort_keys=True, ensure_ascii=False)
    atomic_write_text(build / RECEIPT, text + "\n")


def read_receipt(place: Path) -> Receipt:
    """The receipt of a PREFIX or of a build. ConfigError when it is no environment of ours."""
    path = place / RECEIPT
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["schema"] != SCHEMA:
            raise ValueError(f"it is of schema {told['schema']!r}, this bevrepro reads {SCHEMA}")
        known = {each.name for each in fields(Receipt)}
        values = {key: _tuples(value) for key, value in told.items() if key in known}
        return Receipt(**values)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{place} is no environment of bevrepro's: it has no {RECEIPT}",
            "An environment that was left half built has none either.",
            "bevrepro env build --target NAME makes one.",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            f"the receipt {path} cannot be read: {why}",
            "What the environment was built from is not known.",
            "Build it again: bevrepro env build --rebuild",
        ) from error


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _seal(told: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in told.items() if key != SEAL}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
