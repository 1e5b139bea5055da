"""Strict unified diffs: what is read, what is refused, where they apply."""

import difflib
import random

import pytest

from bevrepro.env import udiff

HEAD = b"--- a/f\n+++ b/f\n"
SIMPLE = HEAD + b"@@ -2,2 +2,2 @@\n b\n-c\n+C\n"
OLD = b"a\nb\nc\nd\n"


def test_a_change_is_applied_and_taken_back():
    (change,) = udiff.parse(SIMPLE)
    assert udiff.apply(OLD, change) == b"a\nb\nC\nd\n"
    assert udiff.apply(b"a\nb\nC\nd\n", change.reversed()) == OLD


@pytest.mark.parametrize("seed", range(60))
def test_what_difflib_writes_is_read_and_reversible(seed):
    rng = random.Random(seed)
    old = [rng.choice(["x\n", "y\n", "\n", "-z\n", "+w\n", "@@ q\n"]) for _ in range(rng.randrange(0, 30))]
    new = [line for line in old if rng.random() > 0.2]
    for _ in range(rng.randrange(1, 6)):
        new.insert(rng.randrange(len(new) + 1), f"n{rng.random()}\n")
    lines = difflib.unified_diff(old, new, "a/f", "b/f", n=rng.randrange(4))
    (change,) = udiff.parse("".join(lines).encode())
    before, after = "".join(old).encode(), "".join(new).encode()
    assert udiff.apply(before, change) == after
    assert udiff.apply(after, change.reversed()) == before


def test_a_missing_newline_at_the_end_is_part_of_the_change():
    mark = b"\\ No newline at end of file\n"
    (change,) = udiff.parse(HEAD + b"@@ -1 +1 @@\n-a\n" + mark + b"+b\n")
    assert udiff.apply(b"a", change) == b"b\n"
    assert udiff.apply(b"b\n", change.reversed()) == b"a"
    with pytest.raises(udiff.Misfit):
        udiff.apply(b"a\n", change)


@pytest.mark.parametrize(
    "content",
    [b"b\nc\nd\n", b"0\na\nb\nc\nd\n", b"a\nb\nc \nd\n", b"a\nb\nc", b"a\nb\n", b"", b"a\r\nb\r\nc\r\nd\r\n"],
    ids=["a line less", "a line more", "a blank more", "no newline", "cut", "empty", "crlf"],
)
def test_no_offset_and_no_fuzz(content):
    (change,) = udiff.parse(SIMPLE)
    with pytest.raises(udiff.Misfit, match=r"f, hunk 1, line \d"):
        udiff.apply(content, change)


@pytest.mark.parametrize(
    "diff",
    [
        b"",
        b"garbage\n",
        HEAD,
        SIMPLE + b"trailing\n",
        SIMPLE + b"\n",
        SIMPLE[:-1],
        SIMPLE[:-3],
        SIMPLE.replace(b"-2,2", b"-2,3"),
        SIMPLE.replace(b"+2,2", b"+3,2"),
        SIMPLE.replace(b"-2,2", b"-0,2"),
        SIMPLE.replace(b"+C", b"+c"),
        SIMPLE.replace(b"-c\n+C\n", b" c\n"),
        SIMPLE.replace(b" b\n", b"b\n"),
        SIMPLE.replace(b"\n", b"\r\n"),
        SIMPLE + SIMPLE,
        SIMPLE + b"@@ -1 +1 @@\n-a\n+A\n",
        b"diff --git a/f b/f\nnew file mode 100644\n" + SIMPLE,
        SIMPLE.replace(b"b/f", b"b/g"),
        SIMPLE.replace(b"a/f", b"/dev/null"),
        SIMPLE.replace(b"b/f", b"/dev/null"),
        SIMPLE.replace(b"a/f", b"f").replace(b"b/f", b"f"),
        b"GIT binary patch\n",
    ],
)
def test_what_is_not_exactly_a_diff_is_refused(diff):
    with pytest.raises(udiff.DiffError):
        udiff.parse(diff)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../f", "x/../../f", "./f", "x//f", "x/", "C:/f", "x\\f", "x\tf", "", "x/..", "\u00e9"],
)
def test_a_path_that_is_not_plain_and_inside_is_refused(path):
    diff = b"--- a/%s\n+++ b/%s\n@@ -1 +1 @@\n-a\n+b\n" % (path.encode(), path.encode())
    with pytest.raises(udiff.DiffError):
        udiff.parse(diff)


@pytest.mark.parametrize("seed", range(300))
def test_noise_is_refused_or_read_never_a_crash(seed):
    rng = random.Random(seed)
    diff = bytearray(SIMPLE + SIMPLE.replace(b"/f", b"/g"))
    for _ in range(rng.randrange(1, 5)):
        diff[rng.randrange(len(diff))] = rng.randrange(256)
    try:
        changes = udiff.parse(bytes(diff))
    except udiff.DiffError:
        return
    assert all(udiff.check_path(change.path) is None for change in changes)
