"""Where a run comes from: local changes, packages, archives and images, however they are stored."""

import json
import shutil
import subprocess
from dataclasses import replace

import pytest
from test_train import SHORT, play, press

from bevformer import provenance
from bevformer.data.infos import infos_path, load_infos
from bevformer.data.store import open_store
from bevformer.ledger import of_environments
from bevformer.loop import Interrupted


def git(folder, *words):
    subprocess.run(["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "record.py").write_text("one = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_code_is_a_commit_and_the_changes_since(checkout):
    clean = provenance.code_record(str(checkout))
    assert len(clean["commit"]) == 40 and clean == {"commit": clean["commit"], "dirty": False}
    (checkout / "record.py").write_text("one = 2\n")
    (checkout / "new.py").write_text("")
    dirty = provenance.code_record(str(checkout))
    assert dirty["dirty"] and "-one = 1\n+one = 2" in dirty["diff"] and list(dirty["untracked"]) == ["new.py"]


def test_a_very_long_diff_is_a_digest(checkout, monkeypatch):
    (checkout / "record.py").write_text("one = 2\n")
    monkeypatch.setattr(provenance, "DIFF_B", 10)
    told = provenance.code_record(str(checkout))
    assert told["diff"] is None and len(told["diff_sha256"]) == 64


def test_outside_a_checkout_the_files_digest_still_tells(tmp_path):
    (tmp_path / "record.py").write_text("one = 1\n")
    assert provenance.code_record(str(tmp_path)) is None
    before = provenance.package_digest(str(tmp_path))
    (tmp_path / "record.py").write_text("one = 2\n")
    assert provenance.package_digest(str(tmp_path)) != before


def test_environment_is_its_packages_and_its_own_note(tmp_path):
    note = {"target": "a100", "patches": [{"set": "x"}], "locks": {"locks/a100.txt": "00"}}
    (tmp_path / provenance.RECEIPT).write_text(json.dumps(note))
    told = provenance.environment_record(str(tmp_path))
    assert {key: told[key] for key in note} == note and len(told["note_sha256"]) == 64
    assert "torch" in told["packages"] and len(told["packages_sha256"]) == 64
    (tmp_path / provenance.RECEIPT).write_text("[")
    assert provenance.environment_record(str(tmp_path))["patches"] is None


def test_images_have_the_same_digest_in_a_folder_and_in_an_archive(synth, tmp_path):
    infos = load_infos(infos_path(synth.infos, "train"))
    shutil.make_archive(str(tmp_path / "set"), "tar", synth.root, "samples")
    folder = provenance.data_record(open_store([synth.root]), infos)
    archive = provenance.data_record(open_store([str(tmp_path / "set.tar")]), infos)
    assert folder["images"] == archive["images"] and folder["images"]["files"] >= 6
    assert archive["roots"][0]["bytes"] > 0 and "ends_sha256" not in folder["roots"][0]
    assert folder["infos"]["frames"] == len(infos)


@pytest.mark.parametrize(
    "torches, said",
    [
        (["2.13", "2.13"], None),
        (["2.13", None], None),  # an older record
        (["2.13", "1.10", "1.10"], "torch 2.13 (cpu), then torch 1.10 (cpu)"),
        (["2.13", "1.10", "2.13"], "torch 2.13 (cpu), then torch 1.10 (cpu), then torch 2.13 (cpu)"),
    ],
)
def test_going_on_with_another_torch_is_a_departure(torches, said):
    sessions = [{"versions": {"torch": each}, "environment": {"target": "cpu"}} for each in torches]
    found = of_environments(sessions)
    assert [each["effect"] for each in found] == (["equal up to rounding"] if said else [])
    assert said is None or found[0]["why"].startswith(said + ":")


def test_record_has_means_per_epoch_and_times_of_all_sessions(tmp_path):
    schedule = replace(SHORT.schedule, max_steps=0, max_epochs=3, samples_per_gpu=1)
    config = replace(SHORT, schedule=schedule)
    with pytest.raises(Interrupted):
        play(tmp_path, config, spoil={8: press(2)})
    play(tmp_path, config, resume="auto")
    told = json.loads((tmp_path / "run.json").read_text())
    epochs = [(entry["epoch"], entry["steps"]) for entry in told["epochs"]]
    assert epochs == [(1.0, 5), (2.0, 2), (3.0, 5)]  # the second session began within the second
    assert all(entry["means"]["loss"] > 0 for entry in told["epochs"])
    first, second = told["sessions"]
    assert told["wall_seconds"] == pytest.approx(first["seconds"] + second["seconds"], abs=0.02)
    assert told["gpu_seconds"] is None and first["cpu_seconds"] > 0
    assert len(told["initial_weights_digest"]) == 64 != told["weights_digest"]
    assert first["package_sha256"] == second["package_sha256"] and first["numerics"]["deterministic"] is False
