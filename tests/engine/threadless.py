"""`python -m tests.engine.threadless` is `engine.child`, but its renders get no other thread."""

import sys

from engine import child, command
from tests.engine.crowded import crowd


def alone(arguments):
    """Renders, with one thread."""
    crowd()
    return command.main(arguments)


if __name__ == "__main__":
    sys.exit(child.main(alone))
