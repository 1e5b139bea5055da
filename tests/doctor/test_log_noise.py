"""Long and noisy logs: bounded work, and failures are found all the same. Times: benchmarks/log_speed.py."""

import importlib.util
import io
import itertools
from pathlib import Path

import pytest

from bevrepro.doctor.logs.failures import known_failures
from bevrepro.doctor.logs.read import blocks
from bevrepro.doctor.logs.scan import _Scan
from bevrepro.doctor.logs.sieve import Sieve

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("log_speed", ROOT / "benchmarks/log_speed.py")
SPEED = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(SPEED)
NOISE = ("alarming", "near", "refused", "chinese")


def scanned(data: bytes) -> tuple[_Scan, set[str]]:
    scan = _Scan(known_failures())
    return scan, {hit.failure.id for hit in scan.run(blocks(io.BytesIO(data)))}


@pytest.mark.parametrize("name", NOISE)
def test_the_last_line_of_a_noisy_log_is_found_with_bounded_work(name):
    scan, found = scanned(SPEED.filled(getattr(SPEED, name)(), 1_300_000))
    assert SPEED.IDS["end_found"] in found
    assert (
        scan.spent_by_all < 40_000_000
    )  # characters; all of it on all patterns would be thousands of millions


@pytest.mark.parametrize("name", ["sparse", "ranks"])
def test_a_failure_in_the_middle_is_found(name):
    assert SPEED.IDS["middle_found"] in scanned(SPEED.filled(getattr(SPEED, name)(), 1_300_000))[1]


def test_after_noise_a_quiet_part_is_looked_at_in_full():
    noise = b"".join(line.encode() for line in itertools.islice(SPEED.near(), 26_000))
    quiet = b"".join(line.encode() for line in itertools.islice(SPEED.distinct(), 13_000))
    _, found = scanned(noise + quiet + SPEED.MIDDLE + quiet)
    assert SPEED.IDS["middle_found"] in found


def sift(sieve: Sieve, *lines: str) -> list[tuple[int, list[str]]]:
    sifted = sieve.sift([line.encode() for line in lines])
    return [(index, [word.decode() for word in words]) for index, words in sifted.lines]


def test_lines_that_repeat_apart_from_numbers_are_let_through_once():
    sieve = Sieve([b"memory"])
    assert sift(sieve, "memory 1 at 0x7f", "else", "", "memory 2") == [(0, ["memory"]), (3, ["memory"])]
    assert sift(sieve, "memory 33", "memory 4 at 0xab1", "no memory") == [(2, ["memory"])]


def test_scores_repeat_with_other_numbers():
    sieve = Sieve([b"map"])
    assert [sift(sieve, f"mAP: 0.{number}") for number in (1, 2)] == [[(0, ["map"])]] * 2


def test_a_word_that_a_terminal_cut_is_found_behind_a_prefix():
    lines = ("[rank0]: mmdet - ERROR - the symbol that was undef", "[rank0]: mmdet - ERROR - ined is _ZN3c10")
    assert sift(Sieve([b"undefined"]), *lines) == [(0, ["undefined"])]


def test_chinese_words_may_be_parts_and_gbk():
    sieve, word = Sieve(["空间".encode()]), "设备上没有空间了"
    assert sift(sieve, "x", word) == [(1, ["空间"])]
    assert [index for index, _ in sieve.sift([b"y", word.encode("gb18030")]).lines] == [1]


def test_too_many_words_are_noise_in_which_only_some_are_looked_for():
    sieve = Sieve([b"memory", b"killed"])
    sieve.look_for([b"memory", b"killed"], [b"killed"])
    words = ["".join(letters) for letters in itertools.product("ghijklmnop", repeat=3)]
    sifted = sieve.sift([*(f"memory {word}".encode() for word in words), b"killed"])
    assert sifted.noisy and list(sifted.lines) == [(len(words), [b"killed"])]
