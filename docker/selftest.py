"""Last step of every image, as the user who will run it: an image without a working torch is no image.

Run by bevrepro's own Python: python selftest.py PREFIX
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bevrepro.core.errors import UserError
from bevrepro.env import selftest, target
from bevrepro.env.receipt import read_receipt


def main(prefix: str) -> int:
    receipt = read_receipt(Path(prefix))
    checks = target.load(receipt.target).selftest
    with TemporaryDirectory() as folder:  # matplotlib's list of fonts, which holds times, goes away with it
        variables = {**os.environ, **receipt.environment, "HOME": folder, "TMPDIR": folder}
        results = selftest.run(Path(prefix) / "bin/python", checks, variables)
    for each in results:
        print(f"self-test, {each.name}: {'ok' if each.ok else 'FAILED'}, {each.said}")
    try:
        selftest.refuse_failures(results, "above")
    except UserError as error:
        print(f"bevrepro: {error.seen}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
