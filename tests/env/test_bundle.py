"""The format of a pack: equal input gives equal bytes, and no other bytes are read."""

import hashlib
import io
import json
import random
import tarfile

import pytest

from bevrepro.core.errors import DataError
from bevrepro.env import bundle
from bevrepro.env.bundle import Manifest, Packed, read_files, read_manifest, write_bundle

FILES = {
    "cuda/nvcc": b"\x7fELF" * 300,
    "locks/cpu.txt": b"a==1\n",
    "wheels/" + "a" * 120 + ".whl": b"long name",
    "wheels/b.whl": b"",
}


def manifest(files=FILES, **changes) -> Manifest:
    rows = [Packed(path, len(text), hashlib.sha256(text).hexdigest()) for path, text in sorted(files.items())]
    told = dict(target="cpu", python="3.11.7", platform="linux-x86_64", cuda=None, inputs="", bevrepro="0")
    return Manifest(**{**told, "files": tuple(rows), **changes})


def packed(files=FILES, **changes) -> bytes:
    out = io.BytesIO()
    write_bundle(manifest(files, **changes), lambda path: io.BytesIO(files[path]), out)
    return out.getvalue()


def unpacked(content: bytes) -> dict[str, bytes]:
    found = {}

    class Kept(io.BytesIO):
        def close(self):
            found[self.path] = self.getvalue()

    def create(each):
        kept = Kept()
        kept.path = each.path
        return kept

    stream = io.BytesIO(content)
    read_files(read_manifest(stream), stream, create, lambda count: None)
    return found


def test_what_is_packed_comes_out_and_tar_reads_it_too():
    assert unpacked(packed()) == FILES
    with tarfile.open(fileobj=io.BytesIO(packed())) as archive:
        assert archive.getnames() == [bundle.MANIFEST, *sorted(FILES)]
        assert {(member.mtime, member.uid, member.uname) for member in archive} == {(0, 0, "")}


def test_equal_input_gives_equal_bytes():
    """The sum is written down: another Python that writes another tar would be noticed."""
    assert packed() == packed(dict(reversed(FILES.items())))
    assert hashlib.sha256(packed()).hexdigest().startswith("b1cca6897dca9138")


def test_flipping_any_byte_is_refused():
    whole, rolled = packed(), random.Random(5)
    for spot in sorted({*range(600), *rolled.sample(range(len(whole)), 1500)}):
        content = bytearray(whole)
        content[spot] ^= rolled.randrange(1, 256)
        with pytest.raises(DataError, match="the pack cannot be used"):
            unpacked(bytes(content))


def test_cutting_it_anywhere_is_refused():
    whole = packed()
    for end in range(0, len(whole), 97):
        with pytest.raises(DataError, match="cut short|no pack"):
            unpacked(whole[:end])
    with pytest.raises(DataError, match="after its last file"):
        unpacked(whole + b"\0")


@pytest.mark.parametrize(
    "path", ["../evil", "a/../../evil", "/etc/passwd", "a//b", "./a", "a\\..\\b", "", "a\nb", bundle.MANIFEST]
)
def test_a_manifest_that_names_a_file_elsewhere_is_refused(path):
    with pytest.raises(DataError, match="outside of its folder"):
        unpacked(packed({path: b"x"}))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "a link named"),
        ({"type": tarfile.LNKTYPE, "linkname": "x"}, "a link named"),
        ({"type": tarfile.CHRTYPE}, "a device named"),
        ({"type": tarfile.DIRTYPE}, "a folder named"),
        ({"name": "../evil"}, "a file named '../evil'"),
        ({"size": 1 << 40}, "of 1099511627776 bytes"),
        ({"mode": 0o4755}, "a file named"),
    ],
)
def test_a_member_that_is_not_what_the_manifest_says_is_named(change, word):
    files = {"a": b"x"}
    whole = packed(files)
    info = tarfile.TarInfo("a")
    info.size = 1
    for key, value in change.items():
        setattr(info, key, value)
    start = whole.index(b"x" + b"\0" * 511) - 512
    with pytest.raises(DataError, match=word):
        unpacked(whole[:start] + info.tobuf(tarfile.GNU_FORMAT)[-512:] + whole[start + 512 :])


def test_a_manifest_of_huge_claims_is_refused_before_it_is_read():
    info = tarfile.TarInfo(bundle.MANIFEST)
    info.size = 1 << 40
    with pytest.raises(DataError, match="claims 1099511627776 bytes"):
        read_manifest(io.BytesIO(info.tobuf(tarfile.GNU_FORMAT)))


@pytest.mark.parametrize(
    "edit",
    [
        lambda told: told | {"schema": 2},
        lambda told: told | {"more": 1},
        lambda told: told | {"files": told["files"] * 2},
        lambda told: told | {"files": list(reversed(told["files"]))},
        lambda told: told | {"files": [{**told["files"][0], "size_b": -1}]},
        lambda told: told | {"files": [{**told["files"][0], "size_b": "9"}]},
        lambda told: [told],
        lambda told: {key: value for key, value in told.items() if key != "digest"},
    ],
)
def test_an_edited_manifest_is_refused(edit):
    content = bundle._canonical(edit(json.loads(manifest().to_bytes())))
    with pytest.raises(DataError):
        bundle._manifest(content)


def test_a_file_that_changes_while_it_is_packed_is_told():
    with pytest.raises(DataError, match="changed while it was packed"):
        write_bundle(manifest(), lambda path: io.BytesIO(b"other"), io.BytesIO())


def test_other_archives_are_no_packs():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("README"))
    with pytest.raises(DataError, match="begins with 'README'"):
        read_manifest(io.BytesIO(out.getvalue()))
    with pytest.raises(DataError, match="no pack of bevrepro"):
        read_manifest(io.BytesIO(b"\x1f\x8b" * 400))
