"""`python -m bevrepro`."""

import sys

from bevrepro.cli import main

if __name__ == "__main__":
    sys.exit(main())
