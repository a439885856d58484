"""Names of hosts: the addresses that the system says, and one thread a name, also when nobody answers."""

import socket
import threading

import pytest
import trio

from engine.resolver import Resolver
from engine.sinks.push import Patience, Push
from engine.stream import Publisher
from tests.engine.clips import packets
from tests.engine.peers import listening, new_hub
from tests.waiting import until

QUICK = Patience(connect=0.05, stall=1, retry=0.01, retry_most=0.02)


class Names:
    """Servers of names that are silent until they are `back`, about names that end with "silent"; 127.0.0.1 then."""

    def __init__(self):
        self.back = threading.Event()
        self.asked, self.at_work, self.most = 0, 0, 0
        self._lock = threading.Lock()

    def __call__(self, host, *arguments):
        if not host.endswith(b"silent"):
            return socket.getaddrinfo(host, *arguments)
        with self._lock:
            self.asked += 1
            self.at_work += 1
            self.most = max(self.most, self.at_work)
        self.back.wait(30)
        with self._lock:
            self.at_work -= 1
        return socket.getaddrinfo("127.0.0.1", *arguments)


@pytest.fixture
async def names():
    found = Names()
    trio.socket.set_custom_hostname_resolver(Resolver(found))
    yield found
    found.back.set()


async def test_a_name_has_the_addresses_that_the_system_says(names):
    asked = ("localhost", 80, socket.AF_INET, socket.SOCK_STREAM)
    assert await trio.socket.getaddrinfo(*asked) == socket.getaddrinfo(*asked)
    with pytest.raises(socket.gaierror):
        await trio.socket.getaddrinfo("nobody.invalid", "no port")
    numbers = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    assert await trio.socket.getnameinfo(("127.0.0.1", 80), numbers) == ("127.0.0.1", "80")


async def test_names_that_nobody_answers_for_have_one_thread_each_and_keep_no_other_waiting(names):
    async def ask(host):
        with trio.move_on_after(0.02):
            await trio.socket.getaddrinfo(host, 80)

    shared = trio.to_thread.current_default_thread_limiter()
    for _ in range(3):
        async with trio.open_nursery() as nursery:
            for n in range(2 * int(shared.total_tokens)):
                nursery.start_soon(ask, f"{n % 2}.silent")
    with trio.fail_after(30):
        await until(lambda: names.at_work == 2)
        assert (names.asked, shared.borrowed_tokens) == (2, 0)
        assert await trio.socket.getaddrinfo("localhost", 80)
        names.back.set()
        await until(lambda: names.at_work == 0)
        for n in range(2):
            assert await trio.socket.getaddrinfo(f"{n}.silent", 80)


async def test_a_push_tries_again_without_a_further_lookup_and_connects_when_names_are_answered(media, names):
    here, there, tries = new_hub(), new_hub(), []
    async with listening(there) as server:
        publication = here.publish("live/x", Publisher(kind="test"))
        url = f"rtmp://server.silent:{server.port}/app/y"
        push = Push(here, "live/x", url, id="1", patience=QUICK, changed=lambda: tries.append(push.status()))
        publication.send(packets(media.path("plain"))[0])
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(push.run)
                await until(lambda: [status.state for status in tries].count("retrying") >= 5)
                assert "no connection within" in push.status().error
                assert (names.asked, names.at_work) == (1, 1)
                names.back.set()
                await until(lambda: push.status().state == "pushing")
                nursery.cancel_scope.cancel()
    assert names.most == 1
