"""The door of jobs over a running queue."""

import pytest

from api.nexrender import Door
from api.queue import JobQueue
from engine.config import Settings
from tests.api.auditing import audit, new_database
from tests.api.door import Client, Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def start(tmp_path, nursery, clock):
    """Gives (client, queue) over a running queue with these settings."""
    queues = []

    async def started(*, data=tmp_path, **settings):
        new_database(tmp_path / "mashtun.db")
        configured = Settings(data=str(data), **settings)
        queue = JobQueue(configured, wall=clock, steady=clock)
        await nursery.start(queue.run)
        queues.append(queue)
        return Client(Door(queue, configured)), queue

    yield started
    for queue in queues:
        audit(queue._store)


@pytest.fixture
async def client(start):
    return (await start())[0]
