"""Recording scrubs names; replaying takes nothing on trust."""

import json
import os

import pytest

from bevrepro.core.errors import DataError, DiskError
from bevrepro.core.machine import Disk, Host, Machine, Python
from bevrepro.doctor import record


@pytest.fixture
def alice(monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setattr(record, "_user_name", lambda: "alice")
    monkeypatch.setattr(record.socket, "gethostname", lambda: "wonderland")


def test_a_machine_comes_back_as_it_was(tmp_path):
    machine = Machine(host=Host(system="Linux", disks=(Disk("work", "/data"),)), trouble=("cpu: x",))
    record.save(machine, tmp_path / "host.json")
    assert record.load(tmp_path / "host.json") == machine


@pytest.mark.parametrize(
    "found, written",
    [
        ("/home/alice/env/bin/python", "/home/user/env/bin/python"),
        ("/home/alice2/env", "/home/user/env"),
        ("/home/bob/.local:/home/carol/x", "/home/user/.local:/home/user/x"),
        ("/mnt/c/Users/Alice Liddell/nuscenes", "/mnt/c/Users/user/nuscenes"),
        ("/data/alice/nuscenes", "/data/user/nuscenes"),
        ("/scratch/wonderland/x", "/scratch/host/x"),
        ("malice", "malice"),
        ("/usr/local/cuda", "/usr/local/cuda"),
    ],
)
def test_names_of_people_and_hosts_are_left_out(alice, tmp_path, found, written):
    record.save(Machine(python=Python(executable=found)), tmp_path / "host.json")
    assert record.load(tmp_path / "host.json").python.executable == written


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "not JSON"),
        ("[]", "no record"),
        ('{"schema": 99}', "schema 99"),
        ('{"schema": 1, "host": {"memory_total_b": "much"}}', "Machine.host.memory_total_b"),
        ("\udcff", "not JSON"),
        ('{"schema": 1, "cpu": {"quota": Infinity}}', "Infinity is no number"),
    ],
)
def test_what_is_no_record_is_refused_in_words(tmp_path, text, words):
    path = tmp_path / "host.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as caught:
        record.load(path)
    assert words in caught.value.seen and "--record" in caught.value.do


def test_a_missing_record_and_a_folder_that_is_a_file(tmp_path):
    with pytest.raises(DataError, match="could not read"):
        record.load(tmp_path / "missing.json")
    (tmp_path / "file").touch()
    with pytest.raises(DiskError):
        record.save(Machine(), tmp_path / "file" / "host.json")


def test_fields_of_a_newer_bevrepro_do_not_stop_a_replay(tmp_path):
    path = tmp_path / "host.json"
    path.write_text(json.dumps({"schema": 1, "host": {"system": "Linux", "moon": "full"}, "npu": {}}))
    assert record.load(path).host.system == "Linux"


def test_a_strangers_record_sends_no_control_characters_to_the_terminal(tmp_path):
    path = tmp_path / "host.json"
    path.write_text(json.dumps({"schema": 1, "host": {"system": "Linux\x1b]0;owned\x07\r\n\ud800"}}))
    assert record.load(path).host.system == "Linux\ufffd]0;owned" + "\ufffd" * 4


@pytest.mark.parametrize("kind", ["pipe", "huge", "deep"])
def test_what_cannot_be_a_record_is_refused_without_reading_it_all(tmp_path, kind):
    path = tmp_path / "host.json"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b"[" * (200_000 if kind == "deep" else record.LARGEST_B + 1))
    with pytest.raises(DataError):
        record.load(path)


def test_a_mark_in_front_is_no_harm_and_directions_of_writing_are_not_taken(tmp_path):
    path = tmp_path / "host.json"
    path.write_text('{"schema": 1, "cpu": {"model": "x\\u202ey\\u001b[2J"}}', encoding="utf-8-sig")
    assert record.load(path).cpu.model == "x\ufffdy\ufffd[2J"
