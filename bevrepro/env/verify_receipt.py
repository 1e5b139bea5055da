"""The receipt against what it speaks of: the environment's digest, its place, its locks, itself. Pure."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bevrepro.core.finding import Finding, Severity
from bevrepro.env.receipt import SCHEMA, SEAL

KINDS = {
    "target": str, "path": str, "inputs_digest": str, "digest": str, "locks": dict, "packages": dict,
    "python": dict, "patches": list, "steps": list,
}  # fmt: skip


@dataclass(frozen=True)
class Now:
    """What the receipt should say, found out anew. None: it could not be."""

    path: str  # the environment's real folder
    folder: str  # the folder's name, which begins the inputs' digest
    digest: str
    locks: Mapping[str, str | None]  # locks/cpu.txt -> sha256, as shipped with this bevrepro
    patches: Mapping[str, str | None] = field(default_factory=dict)
    steps: Mapping[str, str | None] = field(default_factory=dict)  # name -> digest in bevrepro-steps
    python: str | None = None  # "3.11.7"
    cuda: str | None = None  # the toolkit's digest


def parse(text: str | None) -> tuple[dict[str, Any] | None, str]:
    """The receipt, or why it is none."""
    if text is None:
        return None, "there is no receipt bevrepro-env.json"
    try:
        told = json.loads(text)
    except ValueError as error:
        return None, f"the receipt is no JSON: {error}"
    if not isinstance(told, dict):
        return None, "the receipt is no JSON object"
    if told.get("schema") != SCHEMA:
        return None, f"the receipt is of schema {told.get('schema')!r}, not {SCHEMA}"
    for key, kind in KINDS.items():
        if not isinstance(told.get(key), kind):
            return None, f"the receipt's {key!r} is {told.get(key)!r:.60}"
    rows = [*told["patches"], *told["steps"], told.get("cuda") or {}]
    words = [
        told["locks"],
        told["packages"],
        told["python"],
        told.get("slips", {}),
        *rows[: len(told["patches"])],
    ]
    if not all(isinstance(row, dict) for row in rows) or not all(map(_is_words, words)):
        return (
            None,
            "the receipt does not hold what the builder writes: a list or a number where a word belongs",
        )
    if text != json.dumps(told, indent=2, sort_keys=True, ensure_ascii=False) + "\n":
        return None, "the receipt was edited: the builder spaces and orders it differently"
    return told, ""


def _is_words(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


def judge_receipt(told: Mapping[str, Any], now: Now) -> Iterator[Finding]:
    """Where receipt and environment disagree."""
    if told.get(SEAL) != seal(told):
        yield _fail("edited", "the receipt was edited: it does not match the sum that it carries",
                    "What it says of this environment is not what the builder wrote.")  # fmt: skip
    if told["digest"] != now.digest:
        yield _fail(
            "digest",
            f"the environment's digest is {now.digest[:16]}..., in the receipt {str(told['digest'])[:16]}...",
            "A file was changed, added or removed since the build, or the receipt was edited.",
        )
    if not now.folder.startswith(str(told["inputs_digest"])[:16]) or not told["inputs_digest"]:
        yield _fail("inputs", f"the folder is {now.folder}, the receipt's inputs are "
                    f"{str(told['inputs_digest'])[:16]}", "It is the receipt of another build.")  # fmt: skip
    if told["path"] != now.path:
        yield _fail("moved", f"it was built at {told['path']} and lies at {now.path}",
                    "Scripts of a virtual environment name its place, so a moved one is broken.")  # fmt: skip
    yield from _inputs(told, now)
    yield from _steps(told, now)


def _inputs(told: Mapping[str, Any], now: Now) -> Iterator[Finding]:
    for name, digest in sorted(told["locks"].items()):
        current = now.locks.get(name)
        if current != digest:
            seen = f"{name} is not the lock that it was built from"
            yield _fail("lock", seen if current else f"{name} is not there any more",
                        "The lock was edited or made anew since, or the receipt was edited.")  # fmt: skip
    for each in told["patches"]:
        name, digest = str(each.get("set")), each.get("sha256")
        if now.patches.get(name) != digest:
            yield _fail("patches", f"patches/{name} are not those that were applied",
                        "A patch was edited since the build, or the receipt was.")  # fmt: skip
    version = told["python"].get("version")
    if now.python and version and now.python != version:
        yield _fail("python", f"it runs Python {now.python}, and was built with {version}",
                    "The interpreter under it was replaced: compiled packages may crash.")  # fmt: skip
    digest = (told.get("cuda") or {}).get("digest")
    if digest and now.cuda != digest:
        yield _fail("cuda", f"the CUDA toolkit is not the one that was built: {str(now.cuda)[:16]} and "
                    f"{str(digest)[:16]}", "What it compiles is not what was tested.")  # fmt: skip


def _steps(told: Mapping[str, Any], now: Now) -> Iterator[Finding]:
    for each in told["steps"]:
        name, digest = str(each.get("name")), each.get("digest")
        if name in now.steps and now.steps[name] != digest:
            yield _fail("step", f"the step {name} has another digest in its own receipt",
                        "One of the two was edited.")  # fmt: skip


def seal(told: Mapping[str, Any]) -> str:
    """sha256 over the canonical JSON of all other keys."""
    rest = {key: value for key, value in told.items() if key != SEAL}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def no_receipt(why: str) -> Finding:
    """Files and versions can still be compared, all else cannot."""
    return _fail("no-receipt", why, "What was built here, from which lock and patches, is not known.")


def _fail(kind: str, seen: str, why: str) -> Finding:
    return Finding(f"verify-receipt-{kind}", "verify", Severity.FAIL, seen, why, "Build it again.")
