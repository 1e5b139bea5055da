"""Hostile archives through every data command that reads archives: nothing outside its target is touched.

Tries: 7 kinds of hostile members, 3 forms of archive, each of 11 commands; a bomb of each form; `bench` once
more, where there is enough to measure. `convert` reads infos: test_hostile_infos.py.
"""

import resource

import pytest

from bevrepro.data import fuse, mountinfo, unmount
from tests.data.faults.hostile import BOMB_BYTES, KINDS, many, snapshot, write_bomb, write_tar, write_zip
from tests.data.flow.walkers import walker

FORMS = ("tar", "tgz", "zip")
KIND_ENDINGS = [(kind, form) for kind in KINDS for form in FORMS]
KIND_CODES = (0, 1, 3, 4, 5, 6, 8)  # findings and errors that explain themselves; not 9, 70 or a signal


@pytest.fixture
def world(tmp_path):
    """home (where commands may write), downloads and a victim with a treasure (where nobody may)."""
    goer = walker(tmp_path / "home", unprivileged=False)
    for name in ("downloads", "victim"):
        (tmp_path / "outside" / name).mkdir(parents=True)
    (tmp_path / "outside/victim/treasure").write_text("gold")
    return goer, tmp_path / "outside"


def commands(goer, archive):
    """What is tried on one archive; the words after `bevrepro data`."""
    out = goer.home / "out"
    roots = ["--data-root", archive]
    yield ["scan", archive.parent]
    yield ["verify", archive, "--fast"]
    yield ["verify", archive, "--full"]
    yield ["index", archive]
    yield ["prepare", *roots, "--out", out / "infos"]
    yield ["extract", *roots, "--out", out / "tables"]
    yield ["extract", *roots, "--out", out / "samples", "--only", "samples"]
    yield ["mount", "--in-process", archive, goer.home / "place"]
    yield ["repack", archive, "--out", out / "tar"]
    yield ["repack", archive, "--out", out / "thin", "--keyframes-only", "--reread"]
    yield ["bench", "--archives", archive, "--no-fuse", "--rounds", 3, "--work", out / "work"]


def hostile(kind, form, outside):
    path = outside / "downloads" / f"v1.0-mini.{form}"
    members = KINDS[kind](outside / "victim")
    return (write_zip if form == "zip" else write_tar)(path, members)


def kindly(goer, words):
    """Runs it; AssertionError unless it ended by itself with a sentence or a result."""
    done = goer.run(goer.python, "-m", "bevrepro", "data", *words)
    assert done.returncode in KIND_CODES, (words, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    assert "\x1b[31m" not in done.stdout + done.stderr, "an archive may not paint the terminal"
    return done


def check_home(home):
    """Inside the targets: no links out, no devices, nothing that runs as its owner."""
    for path in home.rglob("*"):
        found = path.lstat()
        assert path.is_file() or path.is_dir(), path
        assert not path.is_symlink() and found.st_mode & 0o6000 == 0, path


@pytest.mark.slow
@pytest.mark.parametrize("kind, form", KIND_ENDINGS)
def test_no_command_leaves_its_target(world, kind, form):
    goer, outside = world
    archive = hostile(kind, form, outside)
    before = snapshot(outside)
    for words in commands(goer, archive):
        kindly(goer, words)
        assert snapshot(outside) == before, words
    check_home(goer.home)


@pytest.mark.parametrize(
    "form", ["tgz", *(pytest.param(one, marks=pytest.mark.slow) for one in ("tar", "zip"))]
)
def test_all_at_once_is_refused_or_read_without_harm(world, form):
    goer, outside = world
    path = outside / "downloads" / f"v1.0-mini.{form}"
    members = (member for make in KINDS.values() for member in make(outside / "victim"))
    (write_zip if form == "zip" else write_tar)(path, members)
    before = snapshot(outside)
    for words in (["verify", path], ["repack", path, "--out", goer.home / "out"]):
        kindly(goer, words)
    assert snapshot(outside) == before
    check_home(goer.home)


@pytest.mark.slow
@pytest.mark.fuse
@pytest.mark.skipif(bool(fuse.missing()), reason="; ".join(fuse.missing()))
@pytest.mark.parametrize("kind, form", KIND_ENDINGS)
def test_a_mount_of_it_harms_nobody(world, kind, form):
    """Refused, as where a link leads out, or mounted; then nothing is written through it."""
    goer, outside = world
    archive, mnt = hostile(kind, form, outside), goer.home / "mnt"
    before = snapshot(outside)
    try:
        kindly(goer, ["mount", archive, mnt])
        if mountinfo.at(mountinfo.read(), mnt):
            goer.run("find", mnt, "-type", "f", "-exec", "cat", "{}", "+")
            for name in ("samples/out/new", "maps/new", "new"):
                assert goer.run("touch", mnt / name).returncode != 0, name
            kindly(goer, ["umount", mnt])
    finally:
        if mountinfo.at(mountinfo.read(), mnt):
            unmount.detach(mnt, dead=True)
    assert snapshot(outside) == before


READABLE = ("symlink", "hardlink", "devices", "file_and_folder")  # the others refuse the whole archive


@pytest.mark.slow
@pytest.mark.fuse
@pytest.mark.parametrize("form", ["tar", "tgz"])
@pytest.mark.parametrize("kind", READABLE)
def test_a_bench_of_it_reads_nothing_outside(world, kind, form):
    """With pictures enough to be measured, in-process and, where this machine can, through mounts."""
    goer, outside = world
    archive = outside / "downloads" / f"v1.0-mini.{form}"
    write_tar(archive, (one for part in (many(), KINDS[kind](outside / "victim")) for one in part))
    before = snapshot(outside)
    for more in ([], ["--no-fuse"]):
        words = ["bench", "--archives", archive, "--rounds", 3, "--work", goer.home / "work", *more]
        done = kindly(goer, words)
        mounted = not more and not fuse.missing()
        assert done.returncode == (4 if kind == "symlink" and mounted else 0), done.stderr
        assert snapshot(outside) == before and not list((goer.home / "work").iterdir())
    check_home(goer.home)


def _small_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000_000, 50_000_000))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tgz", "zip"])
def test_a_bomb_fills_neither_disk_nor_memory(world, form):
    """300 MB of zeros in 300 kB, with files limited to 50 MB: no command needs more, none is ended for it."""
    goer, outside = world
    bomb = write_bomb(outside / "downloads" / ("v1.0-mini.tgz" if form == "tgz" else "can_bus.zip"))
    before = snapshot(outside)
    for words in commands(goer, bomb):
        argv = [goer.python, "-m", "bevrepro", "data", *words]
        with goer.start(argv, preexec_fn=_small_files) as child:
            out, err = child.communicate(timeout=300)
        assert child.returncode in KIND_CODES and "Traceback" not in err, (words, child.returncode, out, err)
        assert snapshot(outside) == before, words
    assert sum(path.stat().st_size for path in goer.home.rglob("*") if path.is_file()) < BOMB_BYTES / 3
    assert not list(goer.home.glob("out/.*")) and not list(goer.home.glob(".*"))
