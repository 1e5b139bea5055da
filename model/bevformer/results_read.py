"""Results files of the nuScenes detection task, read sample by sample: memory does not grow with the file.

for token, entries in read_samples(path, infos_tokens):   # DataError for whatever the devkit would refuse
"""

import json
import math
import re
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from .errors import DataError
from .results import MAX_BOXES_PER_SAMPLE
from .types import CLASSES

BLOCK_CHARS = 4 << 20
MAX_VALUE_CHARS = 64 << 20  # 500 boxes take 0.2 MB
ATTRIBUTES = frozenset(
    (
        "",
        "cycle.with_rider",
        "cycle.without_rider",
        "pedestrian.moving",
        "pedestrian.sitting_lying_down",
        "pedestrian.standing",
        "vehicle.moving",
        "vehicle.parked",
        "vehicle.stopped",
    )
)
META_KEYS = ("use_camera", "use_lidar", "use_radar", "use_map", "use_external")
_LENGTHS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}
_CLASSES = frozenset(CLASSES)
_GAP = re.compile(r"[ \t\n\r]*")
AGAIN = "Write the results again with `bevrepro eval`, or get the file again."

Entries = List[Dict[str, Any]]


class Results:
    """One pass over a results file.  `meta` is known when the pass has ended."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.meta: Dict[str, Any] = {}

    def samples(self, wanted: Callable[[str], bool] = lambda token: True) -> Iterator[Tuple[str, Entries]]:
        """(token, entries) in the order of the file, checked, of the wanted samples.

        Raises DataError for anything that is no results file, is cut short, or that the devkit would refuse.
        """
        try:
            with open(self.path, encoding="utf-8") as file:
                yield from self._pass(_Text(self.path, file), wanted)
        except FileNotFoundError:
            raise DataError(
                "no results file at %s" % self.path,
                do="bevrepro eval CONFIG CHECKPOINT --out DIR writes DIR/results_nusc.json.",
            ) from None
        except UnicodeDecodeError as error:
            raise _foreign(self.path, "it is no text: %s" % error) from None
        except OSError as error:
            raise DataError("cannot read %s: %s" % (self.path, error.strerror)) from error

    def _pass(self, text: "_Text", wanted: Callable[[str], bool]) -> Iterator[Tuple[str, Entries]]:
        found = set()
        for key in text.keys():
            found.add(key)
            if key == "results":
                seen = set()
                for token in text.keys("`results` has to map sample tokens to boxes"):
                    entries = text.value("the boxes of sample %s" % token)
                    if token in seen:
                        raise DataError("%s has sample %s twice" % (self.path, token), do=AGAIN)
                    seen.add(token)
                    if wanted(token):
                        check_entries(self.path, token, entries)
                        yield token, entries
            elif key == "meta":
                self.meta = text.value("`meta`")
            else:
                text.value(key)
        text.end()
        for key in ("meta", "results"):
            if key not in found:
                raise _foreign(self.path, "it has no `%s`" % key)
        if not isinstance(self.meta, dict):
            raise _foreign(self.path, "`meta` is %.40r" % (self.meta,))


def check_entries(path: str, token: str, entries: Any) -> None:
    """What the devkit asserts, each as a sentence, and what it lets pass but cannot score.

    Raises DataError.
    """
    if not isinstance(entries, list):
        raise _bad(path, token, "its boxes are %.40r and not a list" % (entries,))
    if len(entries) > MAX_BOXES_PER_SAMPLE:
        raise _bad(
            path,
            token,
            "it has %d boxes, and nuScenes allows %d" % (len(entries), MAX_BOXES_PER_SAMPLE),
            "Keep the %d with the best scores." % MAX_BOXES_PER_SAMPLE,
        )
    for number, entry in enumerate(entries):
        problem = _problem(token, entry)
        if problem:
            raise _bad(path, token, "box %d: %s" % (number, problem))


def _problem(token: str, entry: Any) -> Optional[str]:
    """What is wrong with a box; None when nothing is."""
    if not isinstance(entry, dict):
        return "it is %.40r and not an object" % (entry,)
    try:
        if entry["sample_token"] != token:
            return "its sample_token is %r" % entry["sample_token"]
        for key, length in _LENGTHS.items():
            numbers = entry[key]
            if not isinstance(numbers, list) or len(numbers) != length:
                return "%s is %.60r and not %d numbers" % (key, numbers, length)
            # A velocity that is not a number scores nothing; anywhere else the devkit stops.
            if not math.isfinite(sum(numbers)) and (key != "velocity" or not _floats(numbers)):
                return "%s is %.60r" % (key, numbers)
        score = entry["detection_score"]
        if type(score) is not float:
            return "detection_score is %.40r and not a float (1 has to be 1.0)" % (score,)
        if not math.isfinite(score):
            return "detection_score is %r" % score
        if entry["detection_name"] not in _CLASSES:
            return "detection_name is %.40r, not one of the ten classes" % (entry["detection_name"],)
        if entry["attribute_name"] not in ATTRIBUTES:
            return "attribute_name is %.40r" % (entry["attribute_name"],)
    except KeyError as error:
        return "it has no %s" % error
    except TypeError as error:
        return "a value is of the wrong kind (%s)" % error
    return None


def _floats(numbers: Sequence[Any]) -> bool:
    return all(type(number) in (float, int) for number in numbers)


def check_submission(path: str, tokens: Sequence[str]) -> int:
    """The number of boxes of a file that the test server would take for these samples.  Raises DataError."""
    results, wanted, boxes = Results(path), set(tokens), 0
    found = set()
    for token, entries in results.samples():
        found.add(token)
        boxes += len(entries)
    check_meta(path, results.meta)
    for name, strange in (("lacks", wanted - found), ("has other samples than the infos:", found - wanted)):
        if strange:
            raise DataError(
                "%s %s %d of %d, such as %s" % (path, name, len(strange), len(wanted), min(strange)),
                "The test server takes every sample of the split, once, and no other.",
                "Evaluate again, on the whole split, with the infos of that split.",
            )
    return boxes


def check_meta(path: str, meta: Mapping[str, Any]) -> None:
    """The five `use_...` that the test server asks for.  Raises DataError."""
    missing = [key for key in META_KEYS if not isinstance(meta.get(key), bool)]
    if missing:
        raise DataError(
            "`meta` of %s does not say %s" % (path, ", ".join(missing)),
            "The test server asks which inputs were used, true or false.",
            AGAIN,
        )


def _bad(path: str, token: str, what: str, do: str = AGAIN) -> DataError:
    return DataError(
        "%s, sample %s: %s" % (path, token, what),
        "nuScenes-devkit and the test server refuse such a file.",
        do,
    )


def _foreign(path: str, what: str) -> DataError:
    return DataError(
        "%s is not a nuScenes results file: %s" % (path, what),
        "It has to be a JSON object with `meta` and `results`.",
        AGAIN,
    )


class _Text:
    """The part of the file at hand; what has been read is dropped."""

    def __init__(self, path: str, file: Any) -> None:
        self._path, self._file = path, file
        self._text, self._at = "", 0
        self._gone = 0  # characters dropped
        self._decode = json.JSONDecoder().raw_decode

    def keys(self, why: str = "it does not begin with a JSON object") -> Iterator[str]:
        """The keys of the object that starts here.  Between two keys the caller reads the value."""
        if self._next() != "{":
            raise _foreign(self._path, why)
        self._at += 1
        if self._next() == "}":
            self._at += 1
            return
        while True:
            key = self.value("a key")
            if not isinstance(key, str):
                raise _foreign(self._path, "a key is %.40r" % (key,))
            self._expect(":")
            yield key
            if self._expect(",}") == "}":
                return
            self._next()

    def value(self, what: str) -> Any:
        """The value that starts here, whole.  Raises DataError where it is cut, broken or far too long."""
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except RecursionError:
                raise self._broken(what, "it is nested too deeply") from None
            except ValueError as error:
                near_end = getattr(error, "pos", 0) > len(self._text) - 64 or "Unterminated" in str(error)
                if len(self._text) - self._at > MAX_VALUE_CHARS:
                    raise self._broken(what, "it is longer than any sample can be") from None
                if not near_end or not self._more():
                    raise self._broken(what, str(error)) from None
                continue
            # A number may go on in the next block.
            if end < len(self._text) or not self._more():
                self._at = end
                return value

    def end(self) -> None:
        if self._next() is not None:
            raise _foreign(self._path, "it goes on after its end")

    def _expect(self, characters: str) -> str:
        found = self._next()
        if found is None or found not in characters:
            raise self._broken("an object", "%s where one of %s has to be" % (found or "its end", characters))
        self._at += 1
        return found

    def _next(self) -> Optional[str]:
        """Over white space; the character there, None at the end of the file."""
        while True:
            match = _GAP.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return None

    def _more(self) -> bool:
        block = self._file.read(max(BLOCK_CHARS, len(self._text) - self._at))
        if block:
            self._gone += self._at
            self._text, self._at = self._text[self._at :] + block, 0
        return bool(block)

    def _broken(self, what: str, error: str) -> DataError:
        return DataError(
            "%s is cut short or damaged: %s cannot be read (%s)" % (self._path, what, error),
            "About %.1f MB of it are whole." % ((self._gone + self._at) / 1e6),
            AGAIN,
        )
