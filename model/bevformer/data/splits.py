"""Which scenes train and which validate: the official names."""

from typing import FrozenSet, Tuple

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
    try:
        from nuscenes.utils import splits
    except ImportError as error:
        raise DataError(
            "the scenes of %s are listed in the nuscenes-devkit, which cannot be imported: %s"
            % (version, error),
            do="Install it into this environment: pip install nuscenes-devkit",
        ) from error
    if version == "v1.0-test":
        return frozenset(splits.test), frozenset()
    return frozenset(splits.train), frozenset(splits.val)
