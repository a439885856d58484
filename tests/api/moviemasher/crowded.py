"""`python -m tests.api.moviemasher.crowded` is `api.moviemasher.child`, but each of its processes is the last one."""

import sys

from api.moviemasher.child import main
from engine import child
from tests.engine.crowded import crowd


def last(arguments):
    """Looks into a file, with no other thread."""
    crowd()
    return main(arguments)


if __name__ == "__main__":
    sys.exit(child.main(last))
