"""`bevrepro` and `python -m bevrepro`: Ctrl-C is answered from the first import to the last moment."""

import sys

from bevrepro.core import interrupts


def main() -> int:
    """Run the command of sys.argv and return its exit code."""
    interrupts.keep()
    try:
        try:  # importing is when Ctrl-C is most easily lost
            from bevrepro.cli import main as command

            code = command()
        except KeyboardInterrupt:
            code = interrupts.say()
        interrupts.settle()
    except KeyboardInterrupt:  # while the sentence was said
        code = interrupts.INTERRUPTED
        interrupts.settle()
    return code


if __name__ == "__main__":
    sys.exit(main())
