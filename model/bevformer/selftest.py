"""Does this environment compute what it should?  `python -m bevformer.selftest CHECK ...`: JSON lines."""

import importlib
import json
import math
import sys
import time
from typing import Sequence


class Wrong(Exception):
    """A check that ran and gave other numbers than it should."""


# Imported only when asked for: the devkit's check needs no torch.
CHECKS = {
    "torch": "selftest_ops:check_torch",
    "bundled-operators": "selftest_ops:check_bundled_operators",
    "devkit": "selftest:check_devkit",
    "openmmlab-imports": "selftest:check_openmmlab_imports",
    "mmcv-operators": "selftest_ops:check_mmcv_operators",
}


def main(argv: Sequence[str]) -> int:
    """Run the checks in order; 1 where one failed."""
    bad = 0
    for name in argv:
        started_s, ok = time.time(), True
        try:
            module, _, function = CHECKS[name].partition(":")
            said = getattr(importlib.import_module("bevformer." + module), function)()
        except Exception as error:  # a broken package raises what it likes
            ok, said = False, "%s: %s" % (type(error).__name__, error)
            bad += 1
        row = {"name": name, "ok": ok, "seconds": round(time.time() - started_s, 3), "said": said}
        print(json.dumps(row), flush=True)
    return 1 if bad else 0


def check_devkit() -> str:
    """nuScenes' own evaluation can be imported, configured and asked for a distance."""
    factory = importlib.import_module("nuscenes.eval.detection.config").config_factory
    classes = factory("detection_cvpr_2019").class_names
    distance = importlib.import_module("nuscenes.eval.common.utils").center_distance
    box = importlib.import_module("nuscenes.eval.detection.data_classes").DetectionBox
    metres = float(distance(box(translation=(0.0, 0.0, 0.0)), box(translation=(3.0, 4.0, 9.0))))
    if len(classes) != 10 or not math.isclose(metres, 5.0):
        raise Wrong("%d classes and a distance of %g m instead of 10 and 5" % (len(classes), metres))
    importlib.import_module("nuscenes.eval.detection.evaluate")
    return "10 classes, evaluation importable"


def check_openmmlab_imports() -> str:
    """mmcv with its operators, mmdet, mmsegmentation and mmdet3d, as BEVFormer's code imports them."""
    from . import mm

    return ", ".join("%s %s" % pair for pair in mm.import_openmmlab().items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
