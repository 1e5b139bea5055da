"""One results file shared out into files of some of its samples each, in one pass and bounded memory."""

import contextlib
import json
import os
from typing import Any, Callable, Dict, List, Mapping, Sequence, Set, Tuple

from .results import CLASS_RANGE_M
from .results_read import Results


def share_out(
    path: str,
    subsets: Mapping[str, Sequence[str]],
    scratch: Mapping[str, str],
    check: Callable[[Set[str]], None],
) -> Dict[str, Tuple[str, int]]:
    """(a results file that the devkit takes, number of boxes in it) for each subset.

    It is the file itself where that has just the samples of the only subset, else one in `scratch[name]`.
    `check` is given all sample tokens that were found and raises what it does not like.
    Raises DataError for a file that the devkit would refuse.
    """
    if len(subsets) == 1:
        ((name, tokens),) = subsets.items()
        boxes = _boxes_if_whole(path, set(tokens), check)
        if boxes:
            return {name: (path, boxes)}
    parts = {name: _Part(os.path.join(scratch[name], "results.json"), set(subsets[name])) for name in subsets}
    results = Results(path)
    found: Set[str] = set()
    with contextlib.ExitStack() as stack:
        for part in parts.values():
            stack.enter_context(part)
        for token, entries in results.samples():
            found.add(token)
            for part in parts.values():
                if token in part.wanted:
                    part.add(token, entries)
        check(found)
        for part in parts.values():
            part.finish(results.meta)
    return {name: (part.path, part.boxes) for name, part in parts.items()}


def _boxes_if_whole(path: str, wanted: Set[str], check: Callable[[Set[str]], None]) -> int:
    """How many boxes the file has; 0 too where it has more samples than the wanted ones."""
    found: Set[str] = set()
    boxes = 0
    for token, entries in Results(path).samples():
        found.add(token)
        boxes += len(entries)
    check(found)
    return boxes if found == wanted else 0


class _Part:
    """A results file of the wanted samples, written as they pass by."""

    def __init__(self, path: str, wanted: Set[str]) -> None:
        self.path, self.wanted, self.boxes = path, wanted, 0
        self._comma = ""
        self._empty: List[str] = []  # samples before the first box

    def __enter__(self) -> "_Part":
        self._file = open(self.path, "w")
        self._file.write('{"results": {')
        return self

    def add(self, token: str, entries: List[Dict[str, Any]]) -> None:
        self.boxes += len(entries)
        if not self.boxes:
            self._empty.append(token)
            return
        self._write_empty()
        self._write(token, entries)

    def _write_empty(self) -> None:
        for token in self._empty:
            self._write(token, [])
        self._empty = []

    def _write(self, token: str, entries: List[Dict[str, Any]]) -> None:
        self._file.write("%s\n%s: %s" % (self._comma, json.dumps(token), json.dumps(entries)))
        self._comma = ","

    def finish(self, meta: Dict[str, Any]) -> None:
        if not self.boxes:
            first = self._empty.pop(0)
            self._write(first, [_placeholder(first)])
            self._write_empty()
        self._file.write('\n}, "meta": %s}\n' % json.dumps(meta))

    def __exit__(self, *error: Any) -> None:
        self._file.close()


def _placeholder(sample_token: str) -> Dict[str, Any]:
    """The devkit raises on a file without any box; this one lies far outside every range and is dropped."""
    return {
        "sample_token": sample_token,
        "translation": [1e9, 1e9, 0.0],
        "size": [1.0, 1.0, 1.0],
        "rotation": [1.0, 0.0, 0.0, 0.0],
        "velocity": [0.0, 0.0],
        "detection_name": next(iter(CLASS_RANGE_M)),
        "detection_score": 0.0,
        "attribute_name": "",
    }
