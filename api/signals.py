"""What a signal does while nothing has begun that must be ended in order: the process is over, without a word.

It refuses to know commands, and imports next to nothing: what is imported later is most of a start.
"""

import os
import signal

ASKING = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


def end_at_once() -> None:
    """From now on, but for those that whoever started us has ignored. Of a container's first process none ends it else.

    A KeyboardInterrupt would be a traceback, or be lost where it is raised in the middle of somebody's bookkeeping.
    """
    for number, default in ASKING.items():
        if signal.getsignal(number) is default:
            signal.signal(number, _end)


def raise_interrupts() -> None:
    """From now on an interrupt is a KeyboardInterrupt again, behind which files are removed that are half written."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, _frame: object) -> None:
    os._exit(128 + number)
