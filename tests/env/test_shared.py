"""What an environment may share with uv's cache, and that an edit of anything else stays where it is."""

import os

import pytest

from bevrepro.env.shared import LEAST_B, may_be_shared, part_from_cache

FILES = {
    "pkg/core.py": b"x = 1\n",
    "pkg/_ext.so": b"\x7fELF small",
    "pkg/lib/libbig.so.12": bytes(LEAST_B),
    "pkg/include/core.h": b"#pragma once\n",
    "pkg-1.0.dist-info/RECORD": b"",
}


@pytest.fixture
def linked(tmp_path):
    """A cache and an environment whose files are all hard links into it."""
    for name, content in FILES.items():
        for root in ("cache", "env"):
            (tmp_path / root / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / name).write_bytes(content)
        os.link(tmp_path / "cache" / name, tmp_path / "env" / name)
    return tmp_path


def test_only_large_libraries_and_headers_stay_shared(linked):
    assert part_from_cache(linked / "env") == 3
    shared = {name for name in FILES if (linked / "env" / name).stat().st_nlink > 1}
    assert shared == {"pkg/lib/libbig.so.12", "pkg/include/core.h"}
    assert {name: (linked / "env" / name).read_bytes() for name in FILES} == FILES
    assert sorted(each.name for each in (linked / "env/pkg").iterdir()) == [
        "_ext.so",
        "core.py",
        "include",
        "lib",
    ]


def test_an_edit_of_a_source_does_not_reach_the_cache(linked):
    part_from_cache(linked / "env")
    with open(linked / "env/pkg/core.py", "ab") as file:
        file.write(b"x = 2\n")
    assert (linked / "cache/pkg/core.py").read_bytes() == FILES["pkg/core.py"]


def test_modes_are_kept_and_links_are_left(linked):
    (linked / "env/pkg/core.py").chmod(0o755)
    (linked / "env/python").symlink_to("pkg/core.py")
    part_from_cache(linked / "env")
    assert (linked / "env/pkg/core.py").stat().st_mode & 0o777 == 0o755
    assert (linked / "env/python").is_symlink() and part_from_cache(linked / "env") == 0


@pytest.mark.parametrize("name, may", [("a.so", True), ("a.so.1.2", True), ("a.py", False), ("a.sop", False)])
def test_a_large_file_is_shared_by_its_kind(name, may):
    assert may_be_shared(name, LEAST_B) is may
    assert not may_be_shared(name, LEAST_B - 1)
