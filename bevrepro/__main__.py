"""`python -m bevrepro`."""

import sys

from bevrepro.core import interrupts

interrupts.keep()  # importing the rest is when Ctrl-C is most easily lost

from bevrepro.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
