"""The streaming reader of tables against `json` on the same bytes."""

import json
import random

import numpy as np
import pytest

from bevformer.data.json_rows import FLAG, INT, NUMBERS, Field, columns, row_batches
from bevformer.data.json_rows import _Reader as Reader
from bevformer.data.store import open_store
from bevformer.errors import DataError

FIELDS = (Field("token"), Field("time", INT), Field("flag", FLAG), Field("xyz", NUMBERS, 3))
STYLES = (dict(indent=0), dict(), dict(indent=4), dict(separators=(",", ":")), dict(indent="\t"))


def rows_of(count, seed=0):
    """As varied as tables are: other fields between the wanted ones, empty and filled lists, unicode."""
    draw = random.Random(seed)
    return [
        dict(
            token="%032x" % draw.getrandbits(128),
            other=draw.choice(
                ["", "x", 'a "quoted" \\ one', "Zürich \u2028", "\ud83d\ude00"] if i % 7 == 3 else ["x"]
            ),
            time=draw.randrange(-(2**62), 2**62),
            flag=draw.random() < 0.5,
            tags=["a", "b"][: draw.randrange(3)],
            xyz=[draw.gauss(0, 1e3), draw.randrange(9), draw.random() * 10 ** draw.randrange(-30, 30)],
            matrix=[[1, 2], []] if i % 11 == 5 else [],
            last=draw.choice([None, True, 1.5e-7, "}"]),
        )
        for i in range(count)
    ]


def read(text, fields=FIELDS, block=1000):
    """All rows, by tuples of Python values, the text given in pieces."""
    pieces = [text[i : i + block] for i in range(0, len(text), block)]
    return [row for batch in Reader("t.json", fields).batches(pieces) for row in batch]


def values(raw, fields=FIELDS):
    found = columns("t.json", fields, raw)
    return [tuple(_plain(found[field.name][i]) for field in fields) for i in range(len(raw))]


def _plain(value):
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def expected(text):
    return [tuple(row[field.name] for field in FIELDS) for row in json.loads(text)]


@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize("ascii_only", (True, False))
@pytest.mark.parametrize("block", (7, 1000, 10**6))
def test_every_value_is_that_of_json_whatever_the_layout(style, ascii_only, block):
    text = json.dumps(rows_of(60), ensure_ascii=ascii_only, **style)
    assert values(read(text, block=block)) == expected(text)


def test_rows_of_changing_key_order_are_read_too():
    draw, rows = random.Random(1), rows_of(50)
    for i, row in enumerate(rows):
        if i > 20:
            names = list(row)
            draw.shuffle(names)
            rows[i] = {name: row[name] for name in names}
    text = json.dumps(rows, indent=0)
    assert values(read(text)) == expected(text)


def test_fields_are_given_in_the_order_asked_for():
    text = json.dumps(rows_of(30), indent=0)
    turned = FIELDS[::-1]
    assert values(read(text, turned), turned) == [row[::-1] for row in expected(text)]


def test_of_rows_laid_out_alike_only_the_first_and_the_last_go_through_json(monkeypatch):
    rows = [dict(row, other="x", matrix=[], last=1) for row in rows_of(300)]
    text, slow = json.dumps(rows, indent=0), []
    monkeypatch.setattr(Reader, "_raw", lambda self, row, old=Reader._raw: slow.append(row) or old(self, row))
    assert len(read(text, block=10**7)) == 300 and len(slow) == 2


@pytest.mark.parametrize("cut", range(1, 400, 7))
def test_a_cut_table_is_refused_wherever_it_ends(cut):
    text = json.dumps(rows_of(4), indent=0)
    with pytest.raises(DataError, match="t.json is not valid JSON at row|t.json is not a list"):
        read(text[: len(text) - cut], block=50)


def test_a_cut_table_names_the_last_whole_row():
    rows = [dict(row, other="x", matrix=[], last=1) for row in rows_of(40)]
    text = json.dumps(rows, indent=0)
    with pytest.raises(
        DataError, match="(?s)row 38 .after the one with token %s.: it is cut" % rows[37]["token"]
    ):
        read(text[: text.index(rows[38]["token"]) + 50], block=10**7)


@pytest.mark.parametrize("seed", range(300))
def test_what_json_refuses_is_refused_and_what_it_takes_is_the_same(seed):
    draw = random.Random(seed)
    text = list(json.dumps(rows_of(6, seed), indent=0))
    for _ in range(draw.randrange(1, 3)):
        at = draw.randrange(len(text))
        text[at] = draw.choice(
            ['"', ",", "]", "}", "{", "\\", "\n", "\x01", "0", "-", "e", ".", "", "NaN", " "]
        )
    text = "".join(text)
    try:
        theirs = expected(text)
    except (ValueError, KeyError, TypeError):
        theirs = None
    try:
        ours = values(read(text, block=draw.choice((9, 300, 9999))))
    except DataError:
        # The reader also refuses what has another type than the field, or is not finite.
        assert theirs is None or not all(map(_fits, theirs))
        return
    assert ours == [(*row[:3], [float(one) for one in row[3]]) for row in theirs]


def _fits(row):
    token, time, flag, xyz = row
    return (
        isinstance(token, str)
        and type(time) is int
        and abs(time) < 2**63
        and isinstance(flag, bool)
        and isinstance(xyz, list)
        and len(xyz) == 3
        and all(type(one) in (int, float) and np.isfinite(float(one)) for one in xyz)
    )


@pytest.mark.parametrize(
    "text",
    (
        "",
        "{}",
        "7",
        "[7]",
        "[",
        "[]x",
        "[{}, ]",
        "[{}]",
        "[,]",
        "nul",
        "[[[[" * 9000,
        '[{"a": %s}]' % ("9" * 5000),
    ),
)
def test_what_is_no_list_of_rows_is_refused(text):
    with pytest.raises(DataError, match="t.json"):
        read(text)


@pytest.mark.parametrize(
    "name", ("sample", "calibrated_sensor", "instance", "scene", "log", "map", "category")
)
def test_the_real_tables_are_read_as_json_reads_them(shared, name):
    folder = shared / "data/v1.0-mini-partial"
    theirs = json.loads((folder / (name + ".json")).read_text())
    kinds = {str: "text", bool: FLAG, int: INT}
    fields = [Field(key, kinds[type(value)]) for key, value in theirs[0].items() if type(value) in kinds]
    if name == "calibrated_sensor":
        fields += [Field("translation", NUMBERS, 3), Field("rotation", NUMBERS, 4)]
    batches = row_batches(open_store([str(folder)]), name + ".json", fields)
    assert values([row for batch in batches for row in batch], fields) == [
        tuple(row[field.name] for field in fields) for row in theirs
    ]


def test_an_empty_table_has_no_rows():
    assert read(" [ \n] \n") == []


@pytest.mark.parametrize("bad", ("NaN", "Infinity", "1e999", "9" * 400, "null", '"1"', "true", "[]"))
@pytest.mark.parametrize("alone", (True, False))
def test_a_number_that_is_none_names_the_row_and_the_field(bad, alone):
    rows = [dict(token="t%d" % i, time=1, flag=True, xyz=[0.5, 1.5, 2.5]) for i in range(1 if alone else 20)]
    text = json.dumps(rows, indent=0)
    at = text.rindex("1.5")
    with pytest.raises(DataError, match="t.json: row %s: xyz" % rows[-1]["token"]):
        values(read(text[:at] + bad + text[at + 3 :]))


@pytest.mark.parametrize("bad", ("1.5", "9" * 30, "null", '"1"', "true"))
def test_an_integer_that_does_not_fit_names_the_row(bad):
    text = json.dumps([dict(token="t", time=12345, flag=True, xyz=[0, 0, 0])]).replace("12345", bad)
    with pytest.raises(DataError, match="t.json: row t: time"):
        values(read(text))


def test_a_row_without_a_field_is_named():
    with pytest.raises(DataError, match="t.json: row b has no xyz"):
        read(
            json.dumps(
                [dict(token=t, time=1, flag=True, **x) for t, x in (("a", {"xyz": [1, 2, 3]}), ("b", {}))]
            )
        )


def test_files_and_archives_are_read_in_blocks(tmp_path):
    text = json.dumps(rows_of(500), indent=0)
    (tmp_path / "v1.0-mini").mkdir()
    (tmp_path / "v1.0-mini/t.json").write_text("\ufeff" + text, encoding="utf-8")
    batches = list(row_batches(open_store([str(tmp_path)]), "v1.0-mini/t.json", FIELDS))
    assert values([row for batch in batches for row in batch]) == expected(text)
    (tmp_path / "v1.0-mini/t.json").write_bytes(text.encode("latin1", "replace")[:-2] + b"\xff]")
    with pytest.raises(DataError, match="v1.0-mini/t.json is not valid JSON"):
        list(row_batches(open_store([str(tmp_path)]), "v1.0-mini/t.json", FIELDS))
