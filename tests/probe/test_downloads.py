"""Names as browsers and downloaders leave them."""

import pytest

from bevrepro.probe.downloads import Name, parse, stem


@pytest.mark.parametrize(
    "name, plain, state",
    [
        ("v1.0-mini.tgz", "v1.0-mini.tgz", "whole"),
        ("v1.0-trainval01_blobs.tgz", "v1.0-trainval01_blobs.tgz", "whole"),
        ("v1.0-mini.tgz.crdownload", "v1.0-mini.tgz", "unfinished"),
        ("v1.0-mini.tgz.part", "v1.0-mini.tgz", "unfinished"),
        ("v1.0-mini.x7Gh_2Kq.tgz.part", "v1.0-mini.tgz", "unfinished"),
        ("v1.0-mini (1).tgz.crdownload", "v1.0-mini.tgz", "unfinished"),
        ("Unconfirmed 123456.crdownload", "Unconfirmed 123456", "unfinished"),
        ("v1.0-mini.tgz.aria2", "v1.0-mini.tgz", "unfinished"),
        (".part", "", "unfinished"),
        ("v1.0-mini (1).tgz", "v1.0-mini.tgz", "copy"),
        ("v1.0-mini(12).tgz", "v1.0-mini.tgz", "copy"),
        ("v1.0-mini - Copy.tgz", "v1.0-mini.tgz", "copy"),
        ("v1.0-mini copy 2.tgz", "v1.0-mini.tgz", "copy"),
        ("can_bus - 副本.zip", "can_bus.zip", "copy"),
        ("v1.0-mini.tgz.1", "v1.0-mini.tgz", "copy"),
        ("v1.0-mini.tgz?AWSAccessKeyId=a&Expires=1", "v1.0-mini.tgz", "query"),
    ],
)
def test_the_published_name_behind_a_name(name, plain, state):
    assert parse(name) == Name(plain, state)


@pytest.mark.parametrize(
    "ending, piece",
    [
        (".aa", "aa"),
        (".partaa", "aa"),
        (".part01", "01"),
        (".part2", "2"),
        (".001", "001"),
        ("_ab", "ab"),
        ("aa", "aa"),
    ],
)
def test_pieces_of_a_split_archive(ending, piece):
    assert parse("v1.0-mini.tgz" + ending) == Name("v1.0-mini.tgz", "split", piece)


def test_endings_do_not_matter_for_comparison():
    names = ("v1.0-mini.tgz", "V1.0-Mini.TAR", "v1.0-mini.tar.gz", "v1.0-mini.tar.bz2")
    assert {stem(name) for name in names} == {"v1.0-mini"}
