"""Files that packages get wrong themselves."""

import stat

from bevrepro.env.record_file import Record, Row
from bevrepro.env.slips import find_slips, winners
from bevrepro.env.tree import Entry


def record(name, **digests):
    rows = tuple(Row(path.replace("_", "."), "sha256", digest, 1) for path, digest in digests.items())
    return Record(f"{name}.dist-info", "", rows, ())


def entries(**digests):
    paths = {path.replace("_", "."): digest for path, digest in digests.items()}
    return {path: Entry(path, stat.S_IFREG | 0o644, 1, 0, digest) for path, digest in paths.items()}


def test_a_file_unlike_its_record_is_a_slip_unless_we_patched_it():
    told = [record("torch-1.10.0", METADATA="old", a_py="x", b_py="y")]
    found = entries(METADATA="new", a_py="x", b_py="ours")
    assert find_slips(found, told, {"b.py"}) == {"METADATA": "new"}
    assert find_slips(found, told, ()) == {"METADATA": "new", "b.py": "ours"}


def test_of_two_packages_with_one_file_the_last_by_name_wins():
    told = [record("jupyter_core-5.3.0", j_py="a"), record("jupyter-1.0.0", j_py="b")]
    told += [record("x-1", same="c"), record("y-1", same="c")]
    assert winners(told) == ("jupyter-core",)
    assert winners([]) == ()


def test_what_is_not_there_or_has_no_hash_is_no_slip():
    told = [Record("x-1.dist-info", "", (Row("gone", "sha256", "a", 1), Row("RECORD", None, None, None)), ())]
    assert find_slips(entries(RECORD="z"), told, ()) == {}
