"""Takes the times out of an environment's receipt, which are all that differs between two equal builds.

Run inside the image by bevrepro's own Python: python settle.py PREFIX SOURCE_DATE_EPOCH
"""

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bevrepro.env.receipt import read_receipt, write_receipt

NOTE = "made in a container image, whose equal builds have equal digests: the times are left out"


def timeless(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    return tuple({**row, "seconds": 0.0} for row in rows)


def main(prefix: str, epoch_s: str) -> None:
    build = Path(prefix).resolve()
    receipt = read_receipt(build)
    settled = replace(
        receipt,
        steps=timeless(receipt.steps),
        selftest=timeless(receipt.selftest),
        built_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(epoch_s))),
        notes=(*receipt.notes, NOTE),
    )
    write_receipt(settled, build)


if __name__ == "__main__":
    main(*sys.argv[1:])
