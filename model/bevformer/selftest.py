"""Does this environment compute what it should?

    python -m bevformer.selftest [--json]      all of it: versions, operators, parity, 20 training steps
    python -m bevformer.selftest CHECK ...     these alone, as JSON lines: what `bevrepro env build` runs

The exit code is 1 where a check failed.  What is not installed is told as absent; that is a failure where it
was asked for, by name or by the target that this environment was built for.
"""

import argparse
import faulthandler
import importlib
import importlib.util
import json
import math
import sys
import time
from typing import Any, Callable, Dict, Sequence

from .errors import UserError
from .selftest_show import headline, show, summary
from .selftest_told import Absent, Told, Wrong

# Imported only when asked for: the first and the devkit's need no torch.
CHECKS = {
    "versions": "selftest_packages:check_versions",
    "torch": "selftest_ops:check_torch",
    "bundled-operators": "selftest_ops:check_bundled_operators",
    "devkit": "selftest:check_devkit",
    "openmmlab-imports": "selftest_packages:check_openmmlab_imports",
    "mmcv-compiled": "selftest_mmcv:check_mmcv_compiled",
    "mmcv-operators": "selftest_mmcv:check_mmcv_operators",
    "mmcv-parity": "selftest_mmcv:check_mmcv_parity",
    "training": "selftest_train:check_training",
}
ALL = tuple(name for name in CHECKS if name != "mmcv-operators")  # mmcv-parity compares the same, and more
Row = Dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Run the checks in order; 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m bevformer.selftest", description=__doc__.split("\n")[0])
    parser.add_argument("checks", nargs="*", metavar="CHECK", help="of: %s (default: all)" % ", ".join(ALL))
    parser.add_argument(
        "--json", action="store_true", help="a JSON object per line, as named checks print it"
    )
    args = parser.parse_args(argv)
    if not faulthandler.is_enabled():
        faulthandler.enable(2)  # a library of another machine ends the interpreter: this says in which check
    if args.checks:
        rows = [_run(name, True, _print_json) for name in args.checks]
    else:
        rows = _run_all(_print_json if args.json else show, sys.stderr.write if args.json else print)
    return 0 if all(row["ok"] for row in rows) else 1


def _run_all(tell: Callable[[Row], None], say: Callable[[str], Any]) -> Sequence[Row]:
    from .selftest_packages import asked_for

    asked = asked_for()
    if tell is show:
        say(headline(asked))
    rows = [_run(name, asked.wants(name), tell) for name in ALL]
    if tell is show:
        say(summary(rows))
    return rows


def _print_json(row: Row) -> None:
    print(json.dumps(row), flush=True)


def _run(name: str, wanted: bool, tell: Callable[[Row], None]) -> Row:
    """One check.  wanted: what is absent fails."""
    started_s, more = time.time(), {}  # type: float, Row
    try:
        module, _, function = CHECKS[name].partition(":")
        told = getattr(importlib.import_module("bevformer." + module), function)()
        told = told if isinstance(told, Told) else Told(told)
        ok, said, more = True, told.said, {"rows": told.rows} if told.rows else {}
    except Absent as error:
        ok, said, more = not wanted, str(error), {"absent": True}
    except Wrong as error:
        ok, said, more = False, str(error), {"rows": error.rows} if error.rows else {}
    except UserError as error:
        ok, said = False, " ".join(str(error).split())
    except Exception as error:  # a broken package raises what it likes
        ok, said = False, "%s: %s" % (type(error).__name__, error)
    row = {"name": name, "ok": ok, "seconds": round(time.time() - started_s, 3), "said": said}
    row.update(more)
    tell(row)
    return row


def check_devkit() -> str:
    """nuScenes' own evaluation can be imported, configured and asked for a distance."""
    if importlib.util.find_spec("nuscenes") is None:
        raise Absent("no nuscenes-devkit here")
    factory = importlib.import_module("nuscenes.eval.detection.config").config_factory
    classes = factory("detection_cvpr_2019").class_names
    distance = importlib.import_module("nuscenes.eval.common.utils").center_distance
    box = importlib.import_module("nuscenes.eval.detection.data_classes").DetectionBox
    metres = float(distance(box(translation=(0.0, 0.0, 0.0)), box(translation=(3.0, 4.0, 9.0))))
    if len(classes) != 10 or not math.isclose(metres, 5.0):
        raise Wrong("%d classes and a distance of %g m instead of 10 and 5" % (len(classes), metres))
    importlib.import_module("nuscenes.eval.detection.evaluate")
    return "10 classes, evaluation importable"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
