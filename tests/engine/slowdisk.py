"""A disk that takes its time with one image, as long as a test wants."""

import threading
from contextlib import contextmanager

import trio

from engine.sources import still

PATIENCE = 20  # seconds: a test that waits for what waits for the disk fails then, rather than never end


class SlowImage:
    """An image that is being read. `begun` is set when somebody reads it."""

    def __init__(self):
        self.begun = trio.Event()
        self.readers = 0  # that wait for the disk now
        self._go = threading.Event()

    def read(self):
        """Worker threads of Trio only."""
        self.readers += 1
        trio.from_thread.run_sync(self.begun.set)
        self._go.wait(PATIENCE)
        self.readers -= 1

    def release(self):
        """It can be read now."""
        self._go.set()


@contextmanager
def slow_image(monkeypatch, filename):
    """The image of that name cannot be read before it is released, or the end."""
    slow, read = SlowImage(), still._read

    def read_slowly(name, path):
        if name == filename:
            slow.read()
        return read(name, path)

    monkeypatch.setattr(still, "_read", read_slowly)
    try:
        yield slow
    finally:
        slow.release()
