"""Pickles whose NumPy contradicts itself.  Read with NumPy's own rules, several of them end the process.

    python forged_numpy.py checkpoint FOLDER | infos FOLDER

reads each with the bundled reader and prints `name: what it said`; the exit code is 0 where all were refused.
"""

import pickle
import sys

import numpy as np

DATA = b"ABCDEFGH"
FIELDS = {"a": (np.dtype("O"), 0)}


class Call:
    """Pickles as a call, and a state where one is given."""

    def __init__(self, function, *args, state=None):
        self.told = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.told


def dtype(code="f8", order="<", subarray=None, names=None, fields=None, size=-1, align=-1, flags=0, *more):
    state = (4 if more else 3, order, subarray, names, fields, size, align, flags, *more)
    return Call(np.dtype, code, False, True, state=state)


def array(kind, shape=(1,), data=DATA, version=1, by_column=False):
    return Call(begin, np.ndarray, (0,), b"b", state=(version, shape, kind, by_column, data))


begin, number = np.ones(1).__reduce__()[0], np.float64().__reduce__()[0]
F8 = np.dtype("f8")
DTYPES = {
    "object fields": dtype(names=("a",), fields=FIELDS, size=8, align=8, flags=63),
    "object flags": dtype(flags=63),
    "counted, but not by list": dtype(flags=1),
    "fields and flags of objects": dtype(names=("a",), fields=FIELDS, flags=1),
    "text with fields": dtype("U20", "<", None, ("a",), FIELDS, 80, 4, 63),
    "text of negative size": dtype("S5", "|", None, None, None, -8, 1, 0),
    "text of another size": dtype("U2", "<", None, None, None, 2**30, 4, 8),
    "text of an odd alignment": dtype("U2", "<", None, None, None, 8, 0, 8),
    "objects without their flags": dtype("O8", "|", flags=0),
    "a part of an array": dtype(subarray=(np.dtype("O"), (4,))),
    "no text as its code": Call(np.dtype, [("a", "O")], False, True),
    "a code of many": Call(np.dtype, "O,O", False, True),
    "records": Call(np.dtype, "V8", False, True, state=(3, "|", None, ("a",), FIELDS, 8, 1, 63)),
    "dates of no unit": dtype("M8", "<", None, None, None, -1, -1, 0, ({}, (b"D", 0, 0, 1))),
    "dates of another form": dtype("M8", "<", None, None, None, -1, -1, 0, 7),
    "a form of long ago": Call(np.dtype, "f8", False, True, state=(1, "<", None, FIELDS, 8, 8)),
}
ARRAYS = {
    "more items than bytes": array(F8, (2**40,)),
    "items that overflow": array(F8, (2**61, 8, 2**3)),
    "nothing, overflowing": array(F8, (0, 2**62, 2**62), b""),
    "negative shape": array(F8, (-1,)),
    "two negative axes": array(F8, (-1, -1)),
    "no bytes": array(F8, (1,), None),
    "a list as bytes": array(F8, (1,), [1.0]),
    "bytes as objects": array(np.dtype("O"), (1,), DATA),
    "too few objects": array(np.dtype("O"), (3,), [1]),
    "version 0": Call(begin, np.ndarray, (0,), b"b", state=((1,), F8, False, DATA)),
    "version 9": array(F8, version=9),
    "65 axes": array(F8, (1,) * 65),
    "a shape of its own": Call(begin, np.ndarray, (2**40,), b"b"),
    "true and false that are neither": array(np.dtype("b1"), (8,)),
    "no items of no bytes": array(np.dtype("S0"), (2**39,), b""),
    "a number cut short": Call(number, F8, b"ABC"),
    "a number without bytes": Call(number, np.dtype("U9999999")),
    "an object as a number": Call(number, np.dtype("O"), 7),
    "a number of no dtype": Call(number, "f8", DATA),
    "an array called": Call(np.ndarray, (2**40,)),
    "bytes without end": Call(bytearray, 2**40),
}


def cases():
    for name, kind in DTYPES.items():
        yield name + ", number", Call(number, kind, DATA)
        yield name + ", number without bytes", Call(number, kind)
        yield name + ", array", array(kind)
        yield name + ", array of a list", array(kind, (1,), [1])
    yield from ARRAYS.items()


def checkpoint(folder, content):
    import torch

    from bevformer.checkpoint import load_checkpoint

    for zipped in (True, False):
        path = folder + "/a.pth"
        content = {"state_dict": {"w": torch.ones(1)}, "meta": {"x": content}}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        load_checkpoint(path)


def infos(folder, content):
    from bevformer.data import safe_pickle

    for protocol in (2, 4, 5):
        safe_pickle.loads(pickle.dumps({"infos": [content]}, protocol), "x.pkl")


def main(reader, folder):
    from bevformer.errors import UserError

    read, through = {"checkpoint": checkpoint, "infos": infos}[reader], []
    for name, content in cases():
        print(name, end=": ", flush=True)
        try:
            read(folder, content)
            through.append(name)
            print("READ", flush=True)
        except UserError as error:
            print(str(error).splitlines()[0], flush=True)
    return bool(through)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
