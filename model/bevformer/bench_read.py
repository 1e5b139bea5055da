"""Files that benchmarks wrote, read back."""

import json
from typing import Any, Dict

from .bench_common import KINDS, SCHEMA
from .errors import DataError

GPU_CHECK = "bevformer-gpu-check/1"


def read(path: str) -> Dict[str, Any]:
    """A document, of `bench` or of gpu-check.  Raises DataError for what is neither."""
    try:
        with open(path, encoding="utf-8") as stream:
            result = json.load(stream)
    except OSError as error:
        raise DataError(
            "cannot read %s: %s" % (path, error.strerror), do="Name a file that `bench` wrote."
        ) from error
    except ValueError as error:
        raise DataError(
            "%s is no JSON: %s" % (path, error), "It was cut off, or is something else.", "Measure it again."
        ) from error
    if isinstance(result, dict) and result.get("schema") == GPU_CHECK:
        result = joined(result)
    elif not isinstance(result, dict) or result.get("schema") != SCHEMA or result.get("kind") not in KINDS:
        raise DataError(
            "%s is not from `python -m bevformer.bench`" % path,
            "It lacks schema %s and one of the kinds %s." % (SCHEMA, ", ".join(KINDS)),
            "Measure it again with this version.",
        )
    _check_rows(path, result.get("rows"))
    return result


def joined(result: Dict[str, Any]) -> Dict[str, Any]:
    """All that the parts of a gpu-check measured, as one document of the kind gpu-check."""
    found = [part.get("found") for part in result.get("parts", ()) if isinstance(part, dict)]
    documents = [each for each in found if isinstance(each, dict) and isinstance(each.get("rows"), list)]
    keys = ("time", "commit", "dirty", "host", "versions")
    header = {key: documents[0].get(key) for key in keys} if documents else {}
    return dict(header, kind="gpu-check", rows=[row for each in documents for row in each["rows"]])


def _check_rows(path: str, rows: Any) -> None:
    wanted = ("case", "what", "who", "unit", "median")
    for place, each in enumerate(rows if isinstance(rows, list) else [None]):
        missing = [key for key in wanted if not isinstance(each, dict) or key not in each]
        if missing or not isinstance(each["median"], (int, float)):
            raise DataError(
                "row %d of %s has no %s" % (place, path, ", ".join(missing) or "number"),
                "It was changed by hand, or cut.",
                "Measure it again.",
            )
