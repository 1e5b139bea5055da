"""conda's Python: from a stand-in that behaves like it, and by py-rattler from a channel on the disk."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from bevrepro.core.errors import DataError, MachineError
from bevrepro.env import conda
from bevrepro.env.index import configured, uv

PLACEHOLDER = "/opt/placeholder_" + "p" * 60
PROGRAM = Path("/usr/bin/true")
FILES = {
    "python": {"bin/python": b"#!/bin/sh\necho 3.8.99\n", "lib/where": PLACEHOLDER.encode() + b"/lib\n"},
    "gcc": {"bin/x86_64-conda-linux-gnu-gcc": b"#!/bin/sh\n"},
    "gxx": {"bin/x86_64-conda-linux-gnu-g++": b"#!/bin/sh\n"},
    "ninja": {"bin/ninja": b"#!/bin/sh\n"},
    "sysroot_linux-64": {"lib/sysroot": b"x"},
}
VERSIONS = {"python": "3.8.99", "gcc": "11.4", "gxx": "11.4", "ninja": "1.12", "sysroot_linux-64": "2.17"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def package(folder: Path, name: str, depends: list[str]) -> tuple[str, dict]:
    """An archive as conda-build makes it, and its row of repodata.json."""
    info = dict(
        name=name, version=VERSIONS[name], build="0", build_number=0, depends=depends, subdir="linux-64"
    )
    rows = []
    for path, text in FILES[name].items():
        row = dict(_path=path, path_type="hardlink", sha256=sha256(text), size_in_bytes=len(text))
        marked = PLACEHOLDER.encode() in text
        rows.append({**row, **(dict(prefix_placeholder=PLACEHOLDER, file_mode="text") if marked else {})})
    told = {"info/index.json": info, "info/paths.json": {"paths": rows, "paths_version": 1}}
    content = {**FILES[name], **{path: json.dumps(value).encode() for path, value in told.items()}}
    content["info/files"] = "\n".join(FILES[name]).encode()
    path = folder / f"{name}-{VERSIONS[name]}-0.tar.bz2"
    with tarfile.open(path, "w:bz2") as archive:
        for member, text in content.items():
            header = tarfile.TarInfo(member)
            header.size, header.mode = len(text), 0o755 if member.startswith("bin/") else 0o644
            archive.addfile(header, io.BytesIO(text))
    return path.name, {**info, "sha256": sha256(path.read_bytes()), "size": path.stat().st_size}


@pytest.fixture
def channel(tmp_path, monkeypatch) -> Path:
    """A channel with a Python and compilers; cache and data folders of this test alone."""
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BEVREPRO_DATA", str(tmp_path / "data"))
    for folder in ("channel/linux-64", "channel/noarch"):
        (tmp_path / folder).mkdir(parents=True)
    rows = dict(package(tmp_path / "channel/linux-64", name, []) for name in FILES)
    for subdir, packages in (("linux-64", rows), ("noarch", {})):
        told = {"info": {"subdir": subdir}, "packages": packages, "packages.conda": {}}
        (tmp_path / f"channel/{subdir}/repodata.json").write_text(json.dumps(told))
    return tmp_path / "channel"


class StandIn:
    """Does what conda does with a channel of a folder. `asked` keeps the options of each call."""

    def __init__(self, channel: Path) -> None:
        self.rows = json.loads((channel / "linux-64/repodata.json").read_text())["packages"]
        self.folder, self.asked = channel / "linux-64", []

    def __call__(self, argv, *, env, timeout_s):
        words = [str(word) for word in argv]
        self.asked.append(words)
        prefix, packages = Path(words[words.index("--prefix") + 1]), Path(env["CONDA_PKGS_DIRS"])
        wanted = {word.partition("=")[0].partition("<")[0].partition(">")[0] for word in words}
        for file, row in self.rows.items():
            if row["name"] in wanted:
                self.link(packages, prefix, file, row, "--download-only" not in words)
        return conda.proc.Done(0, "", "")

    def link(self, packages: Path, prefix: Path, file: str, row: dict, really: bool) -> None:
        unpacked = packages / file.removesuffix(".tar.bz2")
        (unpacked / "info").mkdir(parents=True, exist_ok=True)
        (packages / file).write_bytes((self.folder / file).read_bytes())
        (unpacked / "info/repodata_record.json").write_text(json.dumps({**row, "fn": file}))
        if not really:
            return
        paths = []
        for path, text in FILES[row["name"]].items():
            (prefix / path).parent.mkdir(parents=True, exist_ok=True)
            told = text.replace(PLACEHOLDER.encode(), str(prefix).encode())
            (prefix / path).write_bytes(told)
            paths.append(dict(_path=path, sha256=sha256(text), sha256_in_prefix=sha256(told)))
        (prefix / "conda-meta").mkdir(exist_ok=True)
        (prefix / f"conda-meta/{unpacked.name}.json").write_text(
            json.dumps({**row, "paths_data": {"paths": paths}})
        )


@pytest.fixture
def fake(channel, monkeypatch) -> StandIn:
    stand_in = StandIn(channel)
    monkeypatch.setattr(conda.proc, "run", stand_in)
    return stand_in


def test_python_and_compilers_are_provided_and_used_again(fake):
    wanted = conda.wish("3.8", True, 11, program=PROGRAM)
    provided = conda.provide(wanted)
    assert provided.python.read_bytes() == FILES["python"]["bin/python"]
    assert (
        provided.environment["CXX"].endswith("bin/x86_64-conda-linux-gnu-g++")
        and "CC" in provided.environment
    )
    assert "python=3.8.99=0" in provided.packages and len(fake.asked) == 2
    assert "--download-only" in fake.asked[0] and "--offline" in fake.asked[1] and "gxx<12" in fake.asked[0]
    assert conda.provide(wanted) == provided and len(fake.asked) == 2


def test_without_operators_no_compiler_is_asked_for(fake):
    provided = conda.provide(conda.wish("3.8", False, program=PROGRAM))
    assert provided.packages == ("python=3.8.99=0",) and provided.environment == {}


def test_a_tampered_archive_is_refused_before_anything_of_it_is_linked(fake, channel):
    archive = channel / "linux-64/python-3.8.99-0.tar.bz2"
    archive.write_bytes(archive.read_bytes() + b"\0")
    wanted = conda.wish("3.8", False, program=PROGRAM)
    with pytest.raises(DataError, match="not the package that its channel lists"):
        conda.provide(wanted)
    assert len(fake.asked) == 1 and not wanted.prefix.exists()
    assert not list((conda.cache_dir() / "conda/pkgs").glob("python*"))


@pytest.mark.parametrize("edit", [lambda row: row.pop("sha256"), lambda row: row.update(fn="gone.tar.bz2")])
def test_an_archive_without_a_sum_or_without_a_file_is_refused(fake, edit):
    fake.rows = {name: dict(row) for name, row in fake.rows.items()}
    edit(fake.rows["python-3.8.99-0.tar.bz2"])
    real = fake.link

    def link(packages, prefix, file, row, really):
        real(packages, prefix, file, row, really)
        record = packages / file.removesuffix(".tar.bz2") / "info/repodata_record.json"
        record.write_text(json.dumps({"fn": file, **row}))

    fake.link = link
    with pytest.raises(DataError, match="not the package that its channel lists"):
        conda.provide(conda.wish("3.8", False, program=PROGRAM))


def test_an_edited_file_of_an_old_prefix_is_made_anew(fake):
    wanted = conda.wish("3.8", False, program=PROGRAM)
    provided = conda.provide(wanted)
    (wanted.prefix / "lib/where").write_text("elsewhere")
    with pytest.raises(DataError, match="not the file that conda's package python has"):
        conda.check_prefix(wanted.prefix)
    assert conda.provide(wanted) == provided and len(fake.asked) == 4


def test_what_is_not_the_python_that_was_asked_for_is_refused(fake):
    with pytest.raises(DataError, match="without Python 3.9"):
        conda.provide(conda.wish("3.9", False, program=PROGRAM))


def test_a_conda_that_fails_is_quoted(channel, monkeypatch):
    done = conda.proc.Done(1, "", "PackagesNotFoundError: python=3.8\n")
    monkeypatch.setattr(conda.proc, "run", lambda argv, **options: done)
    with pytest.raises(MachineError, match="PackagesNotFoundError") as caught:
        conda.provide(conda.wish("3.8", False, program=PROGRAM))
    assert "conda-forge" in caught.value.why


def test_a_conda_that_fetches_elsewhere_is_refused(channel, monkeypatch):
    monkeypatch.setattr(conda.proc, "run", lambda argv, **options: conda.proc.Done(0, "", ""))
    with pytest.raises(DataError, match="fetched nothing"):
        conda.provide(conda.wish("3.8", False, program=PROGRAM))


def test_the_program_is_the_one_named_else_the_first_on_path(tmp_path, monkeypatch):
    for name in ("mamba", "conda", "mine"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert conda.find({}) == tmp_path / "mamba"
    assert conda.find({"CONDA_EXE": str(tmp_path / "mine"), "MAMBA_EXE": "/nowhere/x"}) == tmp_path / "mine"
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(MachineError, match="no conda, mamba or micromamba"):
        conda.find({})


RATTLER = '''
"""conda's command line, as far as it is used, on py-rattler."""
import argparse, asyncio, json, os, shutil, sys
from pathlib import Path
from urllib.parse import unquote, urlsplit
import rattler

parser = argparse.ArgumentParser()
parser.add_argument("verb")
for name in ("--yes", "--override-channels", "--download-only", "--offline"):
    parser.add_argument(name, action="store_true")
parser.add_argument("--prefix")
parser.add_argument("--channel", action="append")
parser.add_argument("specs", nargs="*")
told = parser.parse_intermixed_args()

async def main():
    channels = [rattler.Channel(each) for each in told.channel]
    records = await rattler.solve(channels, told.specs, platforms=["linux-64", "noarch"])
    packages = Path(os.environ["CONDA_PKGS_DIRS"])
    for each in records:  # conda keeps archives and what repodata.json says of them; rattler keeps neither
        archive = Path(unquote(urlsplit(str(each.url)).path))
        shutil.copy(archive, packages / archive.name)
        info = packages / archive.name[:-len(".tar.bz2")] / "info"
        info.mkdir(parents=True, exist_ok=True)
        record = {"fn": archive.name, "sha256": each.sha256.hex()}
        (info / "repodata_record.json").write_text(json.dumps(record))
    if not told.download_only:
        cache = str(packages) + ".rattler"
        await rattler.install(records, target_prefix=told.prefix, cache_dir=cache, show_progress=False)

asyncio.run(main())
'''


@pytest.fixture(scope="session")
def rattler(tmp_path_factory) -> Path:
    """A program that solves and links with py-rattler."""
    folder = tmp_path_factory.mktemp("rattler")
    subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    argv = [
        uv(),
        "pip",
        "install",
        "--quiet",
        "--python",
        folder / "venv/bin/python",
        *configured().arguments(),
    ]
    done = subprocess.run(
        [*argv, "py-rattler>=0.28,<0.29"], env=configured().environment(), capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"py-rattler cannot be had here: {done.stderr[-200:]}")
    program = folder / "conda"
    program.write_text(f"#!{folder}/venv/bin/python\n{RATTLER}")
    program.chmod(0o755)
    return program


@pytest.mark.net
def test_rattler_makes_a_python_from_a_channel_on_the_disk(rattler, channel):
    wanted = conda.wish("3.8", True, 11, [channel.as_uri()], rattler)
    provided = conda.provide(wanted)
    said = subprocess.run([provided.python], capture_output=True, text=True)
    assert said.stdout == "3.8.99\n" and "gxx=11.4=0" in provided.packages
    assert (wanted.prefix / "lib/where").read_text() == f"{wanted.prefix}/lib\n"
    assert conda.provide(wanted) == provided


@pytest.mark.net
def test_a_tampered_package_that_rattler_takes_is_refused_here(rattler, channel):
    wanted = conda.wish("3.8", False, None, [channel.as_uri()], rattler)
    listed = (channel / "linux-64/repodata.json").read_text()
    FILES["python"]["bin/python"], kept = b"#!/bin/sh\necho evil\n", FILES["python"]["bin/python"]
    try:
        package(channel / "linux-64", "python", [])
    finally:
        FILES["python"]["bin/python"] = kept
    assert (channel / "linux-64/repodata.json").read_text() == listed
    own = {"CONDA_PKGS_DIRS": str(channel.parent), "PATH": "/usr/bin:/bin"}
    elsewhere = replace(wanted, prefix=channel.parent / "elsewhere")
    subprocess.run([str(word) for word in elsewhere.argv()], env=own, check=True)
    said = subprocess.run([channel.parent / "elsewhere/bin/python"], capture_output=True, text=True)
    assert said.stdout == "evil\n"  # the program itself did not look
    with pytest.raises(DataError, match="not the package that its channel lists"):
        conda.provide(wanted)
    assert not wanted.prefix.exists()
