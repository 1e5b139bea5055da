"""What a mount needs, without mounting."""

import pytest

from bevrepro.probe import fuse

LDCONFIG = """\
1234 libs found in cache `/etc/ld.so.cache'
\tlibfuse3.so.3 (libc6,x86-64) => /lib/x86_64-linux-gnu/libfuse3.so.3
\tlibfuse.so.2 (libc6,x86-64) => /lib/x86_64-linux-gnu/libfuse.so.2
\tlibfuse3.so (libc6,x86-64) => /lib/x86_64-linux-gnu/libfuse3.so
\tlibfuzzy.so.2 (libc6,x86-64) => /lib/x86_64-linux-gnu/libfuzzy.so.2
"""


def test_libraries_are_read_from_the_linkers_cache():
    assert fuse.parse_ldconfig(LDCONFIG) == {"libfuse3.so.3", "libfuse.so.2"}


def test_without_a_cache_the_usual_folders_are_looked_at(tmp_path):
    (tmp_path / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    (tmp_path / "usr/lib/x86_64-linux-gnu/libfuse3.so.3").touch()
    (tmp_path / "usr/lib/x86_64-linux-gnu/libfuse3.so.3.14.0").touch()
    assert fuse.probe_fuse(tmp_path, {}).libraries == ("libfuse3.so.3",)


@pytest.mark.parametrize("there, expected", [(True, ("mine.so",)), (False, ())])
def test_the_override_decides_alone(tmp_path, there, expected):
    library = tmp_path / "mine.so"
    if there:
        library.touch()
    assert fuse.probe_fuse(environment={"FUSE_LIBRARY_PATH": str(library)}).libraries == expected


def test_no_device_and_a_plain_file_in_its_place_are_absent(tmp_path):
    assert fuse.probe_fuse(tmp_path, {}).device == "absent"
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/fuse").touch()
    assert fuse.probe_fuse(tmp_path, {}).device == "absent"


def test_a_device_that_may_not_be_opened_is_forbidden(tmp_path, monkeypatch):
    def refuse(path, flags):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(fuse, "is_character_device", lambda path: True)
    monkeypatch.setattr(fuse.os, "open", refuse)
    assert fuse.probe_fuse(tmp_path, {}).device == "forbidden"


def test_what_takes_the_right_away_is_read(tmp_path):
    for name, text in {
        "proc/self/status": "Name:\tpython\nNoNewPrivs:\t1\n",
        "proc/self/attr/current": "docker-default (enforce)\n",
        "etc/fuse.conf": "# user_allow_other\nuser_allow_other\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = fuse.probe_fuse(tmp_path, {})
    assert (found.no_new_privileges, found.apparmor, found.allow_other) == (True, "docker-default", True)
    (tmp_path / "proc/self/attr/current").write_text("unconfined\n")
    (tmp_path / "etc/fuse.conf").write_text("#user_allow_other\n")
    found = fuse.probe_fuse(tmp_path, {})
    assert (found.apparmor, found.allow_other) == (None, False)


def test_a_fusermount_without_its_set_uid_bit_is_told_from_the_system_s(tmp_path, monkeypatch):
    helper = tmp_path / "fusermount3"
    helper.touch()
    monkeypatch.setattr(fuse.proc, "which", lambda name: helper if name == "fusermount3" else None)
    assert fuse.probe_fuse(tmp_path, {}).helper_set_uid is False
    monkeypatch.setattr(fuse.proc, "which", lambda name: None)
    assert fuse.probe_fuse(tmp_path, {}).helper_set_uid is None
