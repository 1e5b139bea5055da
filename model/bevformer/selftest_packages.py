"""Which packages are here, from their files alone, and which of them do not go together.

Distributions are what pip lists (mmcv-full), modules what is imported (mmcv).
"""

import glob
import importlib
import importlib.util
import json
import os
import platform
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

from .selftest_told import Absent, Told, Wrong

# module -> the distributions that bring it, the usual one first
OWNERS: Dict[str, Tuple[str, ...]] = {
    "torch": ("torch",),
    "numpy": ("numpy",),
    "mmcv": ("mmcv-full", "mmcv", "mmcv-lite"),
    "mmdet": ("mmdet",),
    "mmseg": ("mmsegmentation",),
    "mmdet3d": ("mmdet3d",),
}
OPENMMLAB = ("mmcv", "mmdet", "mmseg", "mmdet3d")
MMCV_2_FROM = (1, 1)  # of mmdet3d: its gates ask for mmcv 2 from 1.1.0rc0 (mmdet3d/__init__.py at its tags)
NUMBA_FROM, NUMPY_FROM = (0, 57), (1, 24)  # the first numba that loads beside that NumPy
RECEIPT = "bevrepro-env.json"


@dataclass(frozen=True)
class Asked:
    """What the environment was built for; target None where it is none of bevrepro's."""

    target: Optional[str]
    families: FrozenSet[str]  # devkit, openmmlab, mmcv: the first words of its checks
    for_gpu: bool = True  # False where its operators were compiled without CUDA, as the target has it

    def wants(self, check: str) -> bool:
        return check.split("-")[0] in self.families


def asked_for(prefix: str = sys.prefix) -> Asked:
    """From the receipt of this environment."""
    try:
        with open(os.path.join(prefix, RECEIPT), encoding="utf-8") as stream:
            told = json.load(stream)
        names = [str(row["name"]) for row in told["selftest"]]
        families = frozenset(name.split("-")[0] for name in names)
        return Asked(str(told["target"]), families, told.get("cuda") is not None)
    except (OSError, ValueError, KeyError, TypeError):
        return Asked(None, frozenset())


def installed(path: Optional[Sequence[str]] = None) -> Dict[str, str]:
    """Distribution in lower case with hyphens -> version; of two of a name the one that is imported."""
    found: Dict[str, str] = {}
    for each in metadata.distributions(**({} if path is None else {"path": list(path)})):
        name = each.metadata["Name"]
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), each.version or "")
    return found


def place_of(module: str) -> Optional[str]:
    """The folder that `import module` takes it from; None where there is none."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    return folders[0] if folders else spec.origin


def check_versions() -> Told:
    """Python and what the model plane may meet, with where each lies.  Nothing is imported."""
    here = installed()
    rows: List[Dict[str, Any]] = [
        {"module": "python", "version": platform.python_version(), "from": "", "path": sys.executable}
    ]
    for module, owners in OWNERS.items():
        path = place_of(module)
        mine = [name for name in owners if name in here] if path else []
        version = (here[mine[0]] if mine else "of unknown version") if path else None
        rows.append({"module": module, "version": version, "from": " and ".join(mine), "path": path})
    named = ("%s %s" % (row["module"], row["version"] or "absent") for row in rows)
    return Told(", ".join(named), rows)


def compiled_operators(folder: Optional[str]) -> Optional[List[str]]:
    """The files of mmcv's compiled operators in its folder; None without mmcv."""
    if folder is None:
        return None
    files = glob.glob(os.path.join(glob.escape(folder), "_ext*"))
    return sorted(os.path.basename(path) for path in files if path.endswith((".so", ".pyd")))


def contradictions(here: Mapping[str, str], operators: Optional[Sequence[str]], place: str = "") -> List[str]:
    """A sentence or two for everything installed that does not go together.

    here: as `installed`; operators and place: mmcv's files of compiled operators, and its folder.
    """
    full = here.get("mmcv-full")
    plain = next((name for name in ("mmcv", "mmcv-lite") if name in here), None)
    mmcv = "mmcv-full %s" % full if full else "%s %s" % (plain, here.get(plain or "", ""))
    said = []
    if full and plain:
        said.append(_twice(plain, here[plain], full))
    if "mmdet3d" in here and _numbers(here["mmdet3d"]) >= MMCV_2_FROM:
        said.append(_newer(here["mmdet3d"], mmcv if full or plain else "no mmcv"))
    if operators == []:
        said.append(_without_operators(mmcv, place, here))
    numba, numpy = here.get("numba"), here.get("numpy")
    if numba and numpy and _numbers(numba) < NUMBA_FROM and _numbers(numpy) >= NUMPY_FROM:
        said.append(
            "numba %s does not load beside NumPy %s (initialization of _internal failed), and mmdet3d "
            'imports it. python -m pip install "numpy<1.24"' % (numba, numpy)
        )
    return said


def check_openmmlab_imports() -> str:
    """mmcv with its operators, mmdet, mmsegmentation and mmdet3d, as BEVFormer's code imports them."""
    missing = [name for name in OPENMMLAB if place_of(name) is None]
    here = installed()
    mmcv = place_of("mmcv")
    wrong = contradictions(here, compiled_operators(mmcv), mmcv or "")
    if missing and not wrong:
        raise Absent("no %s here" % ", ".join(missing))
    from . import mm

    try:
        found = mm.import_openmmlab()
    except Exception as error:  # what a broken package raises
        heard = "%s: %s" % (type(error).__name__, error)
        if wrong:
            raise Wrong(" ".join(wrong) + " Importing them says: " + heard) from error
        raise Wrong(heard + hint(heard)) from error
    if wrong:
        raise Wrong(" ".join(wrong))
    return ", ".join("%s %s" % pair for pair in found.items())


def refuse_without_operators() -> None:
    """Absent without mmcv; Wrong where it came without compiled operators."""
    folder = place_of("mmcv")
    if folder is None:
        raise Absent("no mmcv here")
    here = installed()
    if compiled_operators(folder) == []:
        mine = [name for name in OWNERS["mmcv"] if name in here]
        raise Wrong(_without_operators(" and ".join("%s %s" % (n, here[n]) for n in mine), folder, here))


def hint(heard: str) -> str:
    """What an import's message means, where that is known."""
    if "undefined symbol" in heard:
        return ". It was compiled for another torch: build it again beside this one, without pip's cache."
    if "_ext" in heard and "No module named" in heard:
        return ". Its compiled file is for another Python than %s." % platform.python_version()
    return ""


def _twice(plain: str, version: str, full: str) -> str:
    return (
        "%s %s and mmcv-full %s are both installed: they own the same folder, so that what is imported is a "
        "mixture of both. python -m pip uninstall -y %s mmcv-full, then install mmcv-full %s alone."
        % (plain, version, full, plain, full)
    )


def _newer(mmdet3d: str, mmcv: str) -> str:
    return (
        "mmdet3d %s is made for mmcv 2 and mmengine, which BEVFormer's code does not know; here is %s. "
        'python -m pip install --no-deps "mmdet3d>=1.0.0rc0,<1.1"' % (mmdet3d, mmcv)
    )


def _without_operators(mmcv: str, place: str, here: Mapping[str, str]) -> str:
    package = "mmcv-full" if "mmcv-full" in here else "mmcv"
    version = here.get("mmcv-full") or here.get("mmcv") or here.get("mmcv-lite") or ""
    wanted = package if _numbers(version) >= (2,) else "mmcv-full"
    return (
        "%s: no compiled operators, there is no _ext*.so in %s. A build in isolation sees no torch, leaves "
        "them out without a word, and pip keeps that wheel. python -m pip uninstall -y mmcv mmcv-full "
        "mmcv-lite; python -m pip cache remove 'mmcv*'; "
        "MMCV_WITH_OPS=1 python -m pip install --no-build-isolation %s==%s"
        % (mmcv, place or "its folder", wanted, version)
    )


def _numbers(version: str) -> Tuple[int, ...]:
    """(1, 0, 0) of 1.0.0rc6."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()
