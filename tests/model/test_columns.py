"""Text columns and rows found by their tokens."""

import random

import numpy as np
import pytest

from bevformer.data import columns
from bevformer.data.columns import Strings, TokenIndex, token_column
from bevformer.errors import DataError

WORDS = ("", "a", "CAM_FRONT", "Zürich", "\U0001f600", "\ud800", "x" * 300)


@pytest.mark.parametrize("count", (0, 1, 7, 200))
def test_strings_come_back_whole_in_part_and_one_by_one(count):
    draw = random.Random(count)
    words = [draw.choice(WORDS[: 3 if count == 200 else 7]) for _ in range(count)]
    strings = Strings.of(words)
    assert strings.tolist() == words == [strings[i] for i in range(len(strings))]
    assert strings.part(count // 3, count // 2) == words[count // 3 : count // 2]
    assert Strings.joined([strings, Strings.of([]), strings, Strings.of(["z"])]).tolist() == [
        *words,
        *words,
        "z",
    ]


def tokens(count, length=32):
    draw = random.Random(length)
    return ["%0*x" % (length, draw.getrandbits(4 * length)) for _ in range(count)]


@pytest.mark.parametrize("length", (8, 32, 37, 60))
def test_every_token_is_found_and_no_other(length):
    known = tokens(500, length)
    index = TokenIndex(token_column(known, "t.json"), "t.json")
    wanted = known[::-3] + ["", "no", known[5] + "0", known[5][:-1], "f" * 90]
    expected = [*(known.index(one) for one in known[::-3]), -1, -1, -1, -1, -1]
    assert index.find(token_column(wanted, "t.json")).tolist() == expected


def test_an_empty_table_finds_nothing():
    index = TokenIndex(columns.TOKENS, "t.json")
    assert index.find(token_column(["a", "b"], "t.json")).tolist() == [-1, -1]
    assert TokenIndex(token_column(["a"], "t.json"), "t.json").find(columns.TOKENS).tolist() == []


def test_a_token_that_is_there_twice_is_named():
    with pytest.raises(DataError, match="t.json has two rows with token b"):
        TokenIndex(token_column(["a", "b", "c", "b"], "t.json"), "t.json")


def test_tokens_made_to_mix_alike_are_still_told_apart(monkeypatch):
    monkeypatch.setattr(columns, "_mixed", lambda tokens: np.zeros(len(tokens), dtype=np.uint64))
    known = tokens(20)
    index = TokenIndex(token_column(known, "t.json"), "t.json")
    assert index.find(token_column([known[7], "no", known[0]], "t.json")).tolist() == [7, -1, 0]
    with pytest.raises(DataError, match="two rows with token " + known[3]):
        TokenIndex(token_column([*known, known[3]], "t.json"), "t.json")


@pytest.mark.parametrize("bad, said", (("a\0", "NUL"), ("\0", "NUL"), ("x" * 300, "too long")))
def test_tokens_that_a_column_would_change_are_refused(bad, said):
    with pytest.raises(DataError, match="t.json.*" + said):
        token_column(["a", bad], "t.json")


def test_tokens_that_are_not_ascii_are_found_too():
    index = TokenIndex(token_column(["Zürich", "Bern"], "t.json"), "t.json")
    assert index.find(token_column(["Bern", "Zürich", "Zurich"], "t.json")).tolist() == [1, 0, -1]
