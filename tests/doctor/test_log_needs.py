"""What a pattern cannot do without: read rightly, and never in the way of a match."""

import json
from pathlib import Path

import pytest

from bevrepro.doctor.logs import match
from bevrepro.doctor.logs import scan as scanning
from bevrepro.doctor.logs.failures import compiled, known_failures
from bevrepro.doctor.logs.needs import FOREIGN, Needs, needs
from bevrepro.doctor.logs.sieve import words_in

LOGS = Path(__file__).parents[1] / "logs" / "dev"
PATTERNS = [
    (failure, pattern)
    for failure in known_failures()
    for matcher in failure.matchers
    for pattern in (*matcher.all, *matcher.any)
]


@pytest.mark.parametrize(
    "pattern, words, parts",
    [
        (r"No space left on device", "space left on", "no space left on device"),
        (r"\bCUDA_HOME ?=", "cuda_home", "cuda_home ="),
        (r"Errno 28\b", "", "errno 28"),
        (r"GLIBC_2\.\d+ not found\b", "not found", "glibc_2. not found"),
        (r"\b(?:is|was) lost\b", "is|was lost", "is|was lost"),
        (r"(?:is )?lost\b", "", "lost"),
        (r" (?:is )?lost\b", "lost", "lost"),
        (r"errors? in\b", "in", "error in"),
        (r"a[^\n]{0,40}zero x", "", "a zero x"),
        (r"\bab+\b|\bcd\b", "", "a|cd"),
        (r"(?:a|b?)", "", ""),
        (r"\bfoo(?!bar)(?=baz) qux\b", "foo qux", "foo qux"),
        ("未找到 x\\b", f"x {FOREIGN}", "未找到 x"),
        (r"['\"]tools['\"] is…gone\b", "tools", "tools is gone"),
    ],
)
def test_a_pattern_needs(pattern, words, parts):
    def told(sets):
        return " ".join("|".join(sorted(each)) for each in sets)

    found = needs(pattern, ())
    assert (told(found.words), told(found.parts)) == (words, parts)


def test_at_the_ends_of_a_pattern_the_words_of_its_row_count():
    assert needs("Errno 28", ("errno",)).words == (frozenset({"errno"}),)


def test_a_sample_that_a_pattern_matches_has_what_it_needs(shared):
    matched = 0
    for sample in json.loads((shared / "facts/failure_catalogue.json").read_text(encoding="utf-8")):
        text = sample["sample"]
        words, lower = words_in(text.encode().split(b"\n")), text.lower()
        for failure, pattern in PATTERNS:
            if compiled(pattern).search(text) and not words.isdisjoint(failure.words):
                matched += 1
                need = needs(pattern, failure.words)
                assert all(each & words for each in need.words), pattern
                assert all(any(part in lower for part in each) for each in need.parts), pattern
    assert matched > 95


@pytest.mark.parametrize("path", sorted(LOGS.iterdir())[::6], ids=lambda path: path.stem)
def test_a_log_tells_the_same_where_needs_are_not_asked(path, monkeypatch):
    def found():
        with path.open("rb") as stream:
            return {
                (hit.failure.id, hit.numbers, hit.quoted) for hit in scanning.scan(stream, known_failures())
            }

    monkeypatch.setattr(scanning, "PATIENCE", float("inf"))
    told = found()
    monkeypatch.setattr(match, "needs", lambda pattern, words: Needs((), ()))
    assert told == found()
