"""Waiting for what is going to be so, and not for longer than any machine takes."""

import trio


async def until(true):
    """Waits until something is true."""
    with trio.fail_after(30):
        while not true():
            await trio.sleep(0.005)
