"""Keys that would keep the reader of a pickle busy without end: counted before they are looked up.

Numbers have hashes that anybody can compute (multiples of 2**61 - 1 all have 0, tuples of numbers can be made
to): n keys of one hash cost n * n comparisons.  A tuple of tuples that are all the same one is hashed
2**depth times.  Text is hashed with a secret of the process.

The control plane's probe/pickle_keys.py has the same, since neither imports the other.
"""

import pickle
from typing import Any, Callable, Dict, Iterable, List, Sequence, Tuple

MOST_ALIKE = 64  # different keys of one hash in a file; honest ones have two, -1 and -2
MOST_HASHED = 10**7  # members of tuples that are keys, in all: less than a second
Load = Callable[[Any], None]


class Keys:
    """Those of one pickle so far."""

    def __init__(self) -> None:
        self._first: Dict[int, Any] = {}  # by hash
        self._alike: Dict[int, List[Any]] = {}
        self._hashed = 0
        self._nested: Dict[int, Tuple[int, Any]] = {}  # by id, of tuples that hold tuples: members in all

    def made(self, one: Tuple[Any, ...]) -> None:
        """A tuple that may become a key, or part of one."""
        inner = [self._members(each) for each in one if type(each) is tuple]
        if inner:
            self._nested[id(one)] = len(one) + sum(inner), one  # held, so that the id stays its own

    def judge(self, keys: Iterable[Any]) -> None:
        """Raises UnpicklingError where too many have one hash, or hashing them takes too long."""
        for key in keys:
            if type(key) in (str, bytes):
                continue
            if type(key) is tuple:
                self._hashed += self._members(key)
                if self._hashed > MOST_HASHED:
                    raise pickle.UnpicklingError("its keys are tuples without end")
            try:
                known = hash(key)
            except TypeError:  # the pickle's own mistake, or no key at all
                continue
            if self._first.setdefault(known, key) is not key:
                self._compare(known, key)

    def judge_arguments(self, given: Sequence[Any]) -> None:
        """Of a call: lists may become sets, lists of pairs dicts.  Short ones take nobody long."""
        for each in given:
            if isinstance(each, (list, tuple)) and len(each) > MOST_ALIKE:
                self.judge(each)
                self.judge(one[0] for one in each if isinstance(one, (list, tuple)) and one)

    def _compare(self, known: int, key: Any) -> None:
        alike = self._alike.setdefault(known, [self._first[known]])
        if key not in alike:
            alike.append(key)
            if len(alike) > MOST_ALIKE:
                raise pickle.UnpicklingError("more than %d of its keys have one hash" % MOST_ALIKE)

    def _members(self, one: Tuple[Any, ...]) -> int:
        return self._nested.get(id(one), (len(one),))[0]


def _before(load: Load, look: Load) -> Load:
    def judged(reader: Any) -> None:
        look(reader)
        load(reader)

    return judged


def _after(load: Load) -> Load:
    def noted(reader: Any) -> None:
        load(reader)
        reader.keys.made(reader.stack[-1])

    return noted


_LOOKS: Tuple[Tuple[Tuple[bytes, ...], Load], ...] = (
    ((pickle.SETITEM,), lambda reader: reader.keys.judge(reader.stack[-2:-1])),
    ((pickle.SETITEMS, pickle.DICT), lambda reader: reader.keys.judge(reader.stack[::2])),
    ((pickle.ADDITEMS, pickle.FROZENSET), lambda reader: reader.keys.judge(reader.stack)),
    ((pickle.REDUCE, pickle.NEWOBJ), lambda reader: reader.keys.judge_arguments(tuple(reader.stack[-1]))),
    ((pickle.NEWOBJ_EX,), lambda reader: reader.keys.judge_arguments(tuple(reader.stack[-2]))),
    ((pickle.OBJ, pickle.INST), lambda reader: reader.keys.judge_arguments(reader.stack)),
)


def judging(dispatch: Dict[int, Load]) -> Dict[int, Load]:
    """The table of a pickle._Unpickler that has `keys`, a Keys: with a look at each key first."""
    found = dict(dispatch)
    for codes, look in _LOOKS:
        found.update({code[0]: _before(dispatch[code[0]], look) for code in codes})
    for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
        found[code[0]] = _after(dispatch[code[0]])
    return found
