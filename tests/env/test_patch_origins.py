"""Every set against the very archive of the package index that its hashes were taken from."""

import ast
import hashlib
import re
import subprocess
import sys
import zipfile

import pytest

from bevrepro.env import patching, patchset
from bevrepro.env.index import configured
from bevrepro.env.lockfile import Pin
from bevrepro.env.sdists import obtain, unpack
from tests.env.patch_sets import contents

NAMED = {
    name: re.search(r"(\S+\.(?:tar\.gz|whl)).*sha256 (\w{64})", patchset.load(name).origin, re.DOTALL)
    for name in patchset.names()
}
# torch's wheel has 881 MB; its set was tried on an installed one.
SMALL = {name: match.groups() for name, match in NAMED.items() if match and not name.startswith("torch-")}


def original(name, folder):
    """The unpacked archive of the index, its sha256 checked."""
    file, sha256 = SMALL[name]
    found = patchset.load(name)
    if file.endswith(".tar.gz"):
        return unpack(obtain(Pin(found.package, found.version, None, (sha256,)), configured()), folder)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    subprocess.run([*pip, f"{found.package}=={found.version}"], check=True, capture_output=True)
    assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == sha256
    with zipfile.ZipFile(folder / file) as archive:
        archive.extractall(folder / "tree")
    return folder / "tree"


@pytest.mark.net
@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_set_fits_its_archive_and_comes_off_again(name, tmp_path, monkeypatch):
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))
    found, tree = patchset.load(name), original(name, tmp_path / "source")
    before = contents(tree)
    assert set(patching.apply(found, tree).files) == set(found.chains)
    for path in found.chains:
        if path.endswith(".py"):
            ast.parse((tree / path).read_text(), feature_version=(3, 8))
    assert set(patching.state(found, tree).values()) == {"applied"}
    patching.revert(found, tree)
    assert contents(tree) == before


def test_most_sets_are_held_to_their_archive():
    assert len(SMALL) >= 5
