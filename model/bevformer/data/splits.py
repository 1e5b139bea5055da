"""Which scenes train and which validate: the official names."""

import ast
import importlib.util
import os
from typing import Dict, FrozenSet, Tuple

from bevformer.errors import DataError

# nuscenes.utils.splits.mini_train, mini_val
MINI_TRAIN = frozenset(
    (
        "scene-0061",
        "scene-0553",
        "scene-0655",
        "scene-0757",
        "scene-0796",
        "scene-1077",
        "scene-1094",
        "scene-1100",
    )
)
MINI_VAL = frozenset(("scene-0103", "scene-0916"))


def scene_names(version: str) -> Tuple[FrozenSet[str], FrozenSet[str]]:
    """(train, val) names; v1.0-test has all its scenes in the first.

    The 850 names of v1.0-trainval come from the nuscenes-devkit; DataError where it is not installed.
    """
    if version == "v1.0-mini":
        return MINI_TRAIN, MINI_VAL
    lists = _devkit_lists(version)
    if version == "v1.0-test":
        return lists["test"], frozenset()
    return lists["train_detect"] | lists["train_track"], lists["val"]


def _devkit_lists(version: str) -> Dict[str, FrozenSet[str]]:
    """The lists in nuscenes/utils/splits.py, read as text: importing it takes seconds and half of SciPy."""
    spec = importlib.util.find_spec("nuscenes")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = next((os.path.join(one, "utils", "splits.py") for one in folders), "")
    if not os.path.isfile(path):
        raise DataError(
            "the scenes of %s are listed in the nuscenes-devkit, which is not installed" % version,
            do="Install it into this environment: pip install nuscenes-devkit",
        )
    with open(path, encoding="utf-8") as file:
        body = ast.parse(file.read()).body
    found = {
        target.id: frozenset(ast.literal_eval(one.value))
        for one in body
        if isinstance(one, ast.Assign) and isinstance(one.value, ast.List)
        for target in one.targets
        if isinstance(target, ast.Name)
    }
    absent = [name for name in ("train_detect", "train_track", "val", "test") if name not in found]
    if absent:
        raise DataError(
            "%s does not list %s" % (path, ", ".join(absent)),
            do="Install the devkit again: nuscenes-devkit 1.1",
        )
    return found
