"""No room, no rights, no folder: a sentence, exit code 8, and a run that goes on when there is room again."""

import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from small_training import REPOSITORY, proof

pytestmark = pytest.mark.slow
NOBODY = 65534


def at_most(limit_b):
    """No file may grow beyond so many bytes: a write fails in the middle of a checkpoint, with or without
    root."""

    def before():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_b, limit_b))

    return before


def test_a_save_that_fails_half_way_leaves_the_earlier_ones_and_goes_on_later(training, whole, tmp_path):
    first, later = ((whole() / name).stat().st_size for name in ("iter_0.pth", "epoch_1.pth"))
    code, err = training.says(tmp_path / "w", before=at_most((first + later) // 2))
    assert code == 8 and "epoch_1.pth: File too large" in err and "--resume auto" in err
    assert {name for name in os.listdir(tmp_path / "w") if "pth" in name} == {"iter_0.pth", "latest.pth"}
    assert training.says(tmp_path / "w", "--resume", "auto")[0] == 0
    assert proof(tmp_path / "w") == proof(whole())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few MiB; resize(bytes) makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("no right to mount a tmpfs here: " + done.stderr.decode())

    def resize(size_b):
        subprocess.run(["mount", "-o", f"remount,size={size_b}", str(folder)], check=True)

    yield folder, resize
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("room", [0.5, 1.3, 2.4])
def test_a_disk_that_fills_up_stops_the_run_and_room_lets_it_go_on(training, whole, small_disk, room):
    """Full at the first file, at the first checkpoint with an optimiser, at a later one."""
    folder, resize = small_disk
    first, later = ((whole() / name).stat().st_size for name in ("iter_0.pth", "epoch_1.pth"))
    resize(int(first * room) if room < 1 else int(first + later * (room - 1) + 60_000))
    code, err = training.says(folder / "w")
    assert code == 8 and "No space left on device" in err
    resize(64 << 20)
    assert training.says(folder / "w", "--resume", "auto")[0] == 0
    assert proof(folder / "w") == proof(whole())


@pytest.fixture
def as_nobody(training):
    """A folder that an ordinary user owns, and what makes a child that user; root may write anywhere."""
    folder = Path(tempfile.mkdtemp())

    def before():
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)

    try:
        done = subprocess.run(
            ["ls", str(REPOSITORY), str(training.infos)], preexec_fn=before, capture_output=True
        )
        if done.returncode:
            pytest.skip("an ordinary user cannot read what root's test made: " + done.stderr.decode())
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        yield folder, before
    finally:
        shutil.rmtree(folder)


def test_a_folder_without_the_right_to_write_is_said_at_once(training, as_nobody):
    folder, before = as_nobody
    folder.chmod(0o555)
    for work_dir in (folder, folder / "new"):
        code, err = training.says(work_dir, before=before)
        assert code == 8 and f"cannot write into the work folder {work_dir}: Permission denied" in err
        assert "Name another --work-dir" in err


def test_a_folder_that_loses_its_rights_meanwhile_stops_the_run(training, whole, as_nobody):
    folder, before = as_nobody
    shutil.copytree(whole(), folder / "w", symlinks=True, ignore=shutil.ignore_patterns("epoch_[3-6].pth"))
    (folder / "w" / "latest.pth").unlink()
    (folder / "w" / "latest.pth").symlink_to("epoch_2.pth")
    (folder / "w").chmod(0o555)
    code, err = training.says(folder / "w", "--resume", "auto", before=before)
    assert code == 8 and "Permission denied" in err
    (folder / "w").chmod(0o755)
    assert training.says(folder / "w", "--resume", "auto")[0] == 0 and proof(folder / "w") == proof(whole())
