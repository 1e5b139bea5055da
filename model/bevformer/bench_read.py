"""Files that benchmarks wrote, read back."""

import json
import math
from typing import Any, Dict, Tuple

from .bench_common import KINDS, SCHEMA
from .errors import DataError

GPU_CHECK = "bevformer-gpu-check/1"
WORDS, NUMBERS = ("case", "what", "who", "unit"), ("median", "low", "high")  # of a row
# What else of a document is shown or compared.
FIELDS: Tuple[Tuple[str, type], ...] = (("host", dict), ("versions", dict), ("commit", str), ("time", str))


def read(path: str) -> Dict[str, Any]:
    """A document, of `bench` or of gpu-check.  Raises DataError for what is neither."""
    result = json_of(path)
    if isinstance(result, dict) and result.get("schema") == GPU_CHECK:
        result = joined(result)
    elif not isinstance(result, dict) or result.get("schema") != SCHEMA or result.get("kind") not in KINDS:
        raise DataError(
            "%s is not from `python -m bevformer.bench`" % path,
            "It lacks schema %s and one of the kinds %s." % (SCHEMA, ", ".join(KINDS)),
            "Measure it again with this version.",
        )
    _check_rows(path, result.get("rows"))
    for key, kind in FIELDS:
        if not isinstance(result.get(key), (kind, type(None))):
            raise _changed("%s of %s is no %s" % (key, path, "text" if kind is str else "table"))
    return result


def json_of(path: str) -> Any:
    """Raises DataError where it cannot be read or is no JSON."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except OSError as error:
        raise DataError(
            "cannot read %s: %s" % (path, error.strerror), do="Name a file that `bench` wrote."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            "%s is no JSON: %s" % (path, error), "It was cut off, or is something else.", "Measure it again."
        ) from error


def joined(result: Dict[str, Any]) -> Dict[str, Any]:
    """All that the parts of a gpu-check measured, as one document of the kind gpu-check."""
    parts = result.get("parts")
    found = [each.get("found") for each in parts if isinstance(each, dict)] if isinstance(parts, list) else []
    documents = [each for each in found if isinstance(each, dict) and isinstance(each.get("rows"), list)]
    keys = ("time", "commit", "dirty", "host", "versions")
    full = [each for each in documents if "host" in each][:1]  # what was compiled beforehand has no header
    header = {key: each.get(key) for each in full for key in keys}
    return dict(header, kind="gpu-check", rows=[row for each in documents for row in each["rows"]])


def _check_rows(path: str, rows: Any) -> None:
    for place, each in enumerate(rows if isinstance(rows, list) else [None]):
        missing = [key for key in (*WORDS, "median") if not isinstance(each, dict) or key not in each]
        if missing:
            raise _changed("row %d of %s has no %s" % (place, path, ", ".join(missing)))
        if not all(isinstance(each[key], str) for key in WORDS):
            raise _changed("row %d of %s has a %s that is no text" % (place, path, " or ".join(WORDS)))
        if not all(is_number(each[key]) for key in NUMBERS if key in each):
            raise _changed("row %d of %s has no number" % (place, path))


def is_number(value: Any) -> bool:
    """One that can be computed with: NaN and what is larger than a float are none."""
    try:
        return type(value) in (int, float) and not math.isnan(float(value))
    except OverflowError:
        return False


def _changed(seen: str) -> DataError:
    return DataError(seen, "It was changed by hand, or cut.", "Measure it again.")
