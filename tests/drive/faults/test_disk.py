"""No room, no rights, no folder: a sentence, exit code 8, and a run that goes on when there is room again."""

import ctypes
import os
import resource
import subprocess
import time

import pytest
from small_training import proof

pytestmark = pytest.mark.slow
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, PR_CAPBSET_DROP = 1, 2, 24  # linux/capability.h, linux/prctl.h


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


def without_privileges():
    """In a child that is about to start a program: root is held to the rights of files like everybody."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "cannot drop a capability")


@pytest.fixture
def folder(tmp_path):
    """One that is writable again afterwards, whatever happened."""
    (tmp_path / "w").mkdir()
    yield tmp_path / "w"
    (tmp_path / "w").chmod(0o755)


def test_a_folder_without_the_right_to_write_is_said_at_once(training, folder):
    folder.chmod(0o555)
    for work_dir in (folder, folder / "new"):
        code, err = training.says(work_dir, before=without_privileges)
        assert code == 8 and f"cannot write into the work folder {work_dir}: Permission denied" in err
        assert "Name another --work-dir" in err


def test_a_folder_that_loses_its_rights_meanwhile_stops_the_run(training, whole, folder):
    child = training.typed(folder, before=without_privileges)
    while not (folder / "epoch_1.pth").exists():
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)
    folder.chmod(0o555)
    _, err = child.communicate(timeout=120)
    # Which file it is depends on the moment: the next checkpoint, or what is written after the first.
    assert child.returncode == 8 and ": Permission denied" in err and "--resume auto" in err, err
    folder.chmod(0o755)
    code, err = training.says(folder, "--resume", "auto", before=without_privileges)
    assert code == 0 and proof(folder) == proof(whole()), err
