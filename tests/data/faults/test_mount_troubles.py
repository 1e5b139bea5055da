"""Two mounts at once, and an archive that is deleted, replaced or cut while it is mounted.

Tries: 3 pairs of mounts at one place and 3 at two places, started together; each change of an archive once.
"""

import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from bevrepro.data import fuse, mountinfo, unmount
from tests.data.flow.walkers import walker

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(bool(fuse.missing()), reason="; ".join(fuse.missing())),
]
FILES = {f"samples/CAM_FRONT/{number:03d}.jpg": bytes([number]) * 5000 for number in range(60)}
TRIES = 3
# In a process of its own, which the kernel may end; None for a file that gives an error.
READER = """
import json, pathlib, sys
def read(name):
    try:
        return (pathlib.Path(sys.argv[1]) / name).read_bytes().hex()
    except OSError:
        return None
print(json.dumps({name: read(name) for name in sys.argv[2:]}))
"""


@pytest.fixture
def goer(tmp_path):
    goer = walker(tmp_path / "home", unprivileged=False)
    yield goer
    for mount in mountinfo.read():
        if mount.mountpoint.startswith(str(goer.home)):
            unmount.detach(type(goer.home)(mount.mountpoint), dead=True)


def write(path, files=FILES):
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def mount(goer, *words):
    return goer.run(goer.python, "-m", "bevrepro", "data", "mount", *words)


def together(goer, *commands):
    with ThreadPoolExecutor(len(commands)) as pool:
        return list(pool.map(lambda words: mount(goer, *words), commands))


def contents(place):
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def layers(place):
    return [one for one in mountinfo.read() if one.mountpoint == str(place)]


@pytest.mark.slow
def test_two_mounts_at_one_place_never_stack(goer):
    archive, place = write(goer.home / "v1.0-mini.tgz"), goer.home / "mnt"
    for _ in range(TRIES):
        done = together(goer, (archive, place), (archive, place))
        assert "Traceback" not in "".join(one.stderr for one in done)
        assert sorted(one.returncode for one in done) == [0, 5], [one.stderr for one in done]
        assert len(layers(place)) == 1 and contents(place) == FILES
        goer.bevrepro("data", "umount", place)
        assert not layers(place)


@pytest.mark.slow
def test_two_mounts_of_one_archive_at_two_places_both_work(goer):
    archive, places = write(goer.home / "v1.0-mini.tgz"), [goer.home / "a", goer.home / "b"]
    for _ in range(TRIES):
        done = together(goer, *((archive, place) for place in places))
        assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
        assert [contents(place) == FILES for place in places] == [True, True]
        for place in places:
            goer.bevrepro("data", "umount", place)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v1.0-mini.tgz", "v1.0-mini.tar"])
def test_an_archive_deleted_while_mounted_stays_readable_and_is_reported(goer, name):
    archive, place = write(goer.home / name), goer.home / "mnt"
    assert mount(goer, archive, place).returncode == 0
    archive.unlink()
    assert contents(place) == FILES
    (one,) = [one for one in goer.json("data", "status")["mounts"] if one["mountpoint"] == str(place)]
    assert one["missing_archives"] == [str(archive)]
    goer.bevrepro("data", "umount", place)
    again = mount(goer, archive, place)
    assert again.returncode == 4 and "no archive at" in again.stderr and not layers(place)


@pytest.mark.slow
def test_an_archive_cut_while_mounted_gives_errors_and_no_wrong_bytes(goer):
    archive, place = write(goer.home / "v1.0-mini.tar"), goer.home / "mnt"
    assert mount(goer, archive, place).returncode == 0
    with archive.open("r+b") as stream:
        stream.truncate(30 * 5632)
    told = json.loads(goer.run(goer.python, "-c", READER, place, *FILES).stdout)
    for number, (name, data) in enumerate(FILES.items()):
        assert told[name] is None or data.hex().startswith(told[name]), name
        assert number >= 25 or told[name] == data.hex(), name  # well in front of the cut
    assert None in told.values() or "" in told.values()
    goer.bevrepro("data", "umount", place)
    again = mount(goer, archive, place)
    assert again.returncode == 4 and "Traceback" not in again.stderr, again.stderr
