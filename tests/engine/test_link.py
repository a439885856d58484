"""A session on a stream: what several tasks say stays whole, dead peers are noticed, the first outcome counts."""

import gc
import weakref

import pytest
import trio
from trio.testing import memory_stream_one_way_pair, memory_stream_pair

from engine.errors import RemoteProtocolError
from engine.link import CREDIT, SMALL_CHUNK, TURN, Link, race
from engine.rtmp import Accepted, Connect, Metadata, Opened, Ping, Publish, State, StreamEnded, amf, chunk, flv
from engine.rtmp.chunk import Message
from engine.rtmp.session import VALUES, Session


async def joined(ours, theirs):
    """A client that publishes to a server over two streams."""
    client, server = Link(ours, Session("client"), stall=1), Link(theirs, Session("server"), stall=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, server)
        assert await client.hear() == Opened()
        for request in (Connect("live"), Publish("x")):
            await client.say(request)
            assert await client.hear() == Accepted()
    return client, server


async def answer(server):
    for _ in (Opened, Connect, Publish):
        if not isinstance(await server.hear(), Opened):
            await server.say(Accepted())


async def test_what_several_tasks_say_stays_whole_and_in_order():
    with trio.fail_after(30):
        client, server = await joined(*memory_stream_pair())
        heard = []

        async def say(kind, count):
            make = flv.video_packet if kind == "video" else flv.audio_packet
            extra = {"pts": 0, "keyframe": True} if kind == "video" else {}
            for n in range(count):
                await client.say(make(bytes((n,)) * 100_000, dts=n, **extra), Metadata({"n": float(n)}))

        async def hear():
            while len(heard) < 40:
                heard.append(await server.hear())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            nursery.start_soon(say, "video", 10)
            nursery.start_soon(say, "audio", 10)
    for kind in (flv.Video, flv.Audio):
        assert [event.data[:1] * 100_000 == event.data for event in heard if isinstance(event, kind)] == [True] * 10
        assert [event.dts for event in heard if isinstance(event, kind)] == list(range(10))
    assert client.sent_bytes == server.session.received_bytes


async def test_nothing_is_said_in_another_state():
    client, server = await joined(*memory_stream_pair())
    assert await client.say(StreamEnded(), state=State.PUBLISHING)
    sent = client.sent_bytes
    assert not await client.say(flv.audio_packet(b"late", dts=0), state=State.PUBLISHING)
    assert client.sent_bytes == sent
    assert await server.hear() == StreamEnded()


class Full(trio.abc.SendStream):
    """Takes so many bytes, then no more."""

    def __init__(self, room):
        self.room = room

    async def send_all(self, data):
        self.room -= len(data)
        if self.room < 0:
            await trio.sleep_forever()

    async def wait_send_all_might_not_block(self):
        pass

    async def aclose(self):
        pass


async def test_a_peer_that_takes_no_more_is_noticed():
    session = Session("client")
    _, receive = memory_stream_one_way_pair()
    link = Link(trio.StapledStream(Full(100_000), receive), session, stall=0.05)
    session.receive_data(b"\3" + bytes(2 * 1536))
    assert await link.hear() == Opened()
    padding = {"padding": "x" * 50_000}
    await link.say(Connect("live", properties=padding))
    sent = link.sent_bytes
    with trio.fail_after(30), pytest.raises(trio.TooSlowError):
        await link.say(*[Ping(n) for n in range(10_000)])
    assert link.sent_bytes == sent > 50_000


async def test_silence_and_unfinished_messages_have_limits():
    ours, theirs = memory_stream_pair()
    _, server = await joined(ours, theirs)
    with pytest.raises(trio.TooSlowError):
        await server.hear(timeout=0.01)
    begun = chunk.encode(Message(chunk.VIDEO, 1, 0, bytes(5000)), on=6, chunk_size=65536)[:4000]
    await ours.send_all(begun)
    with pytest.raises(trio.TooSlowError):
        await server.hear(timeout=0.01, at_most=4000)
    await ours.send_all(bytes(500))
    with pytest.raises(RemoteProtocolError, match="an unfinished message of more than 4000 bytes"):
        await server.hear(at_most=4000)


async def has_heard(server, ours, data):
    """Sends bytes to a server that somebody listens to; returns the time at which it has them."""
    want = server.session.received_bytes + len(data)
    await ours.send_all(data)
    while server.session.received_bytes < want:
        await trio.sleep(0.05)
    return trio.current_time()


NOTHING = chunk.encode(Message(chunk.AUDIO, 1, 0, b""), on=4, chunk_size=128)
SOUND = chunk.encode(Message(chunk.AUDIO, 1, 0, b"\xaf\1"), on=4, chunk_size=128)


def command(*values):
    return chunk.encode(Message(chunk.COMMAND, 1, 0, amf.encode(*values)), on=3, chunk_size=65536)


async def hear_all(server):
    while True:
        await server.hear()


@pytest.mark.parametrize(
    ("said", "charged"),
    [
        (NOTHING * 500, 500),
        ((NOTHING * 49 + SOUND) * 10, 420),
        (command("getStreamLength", 2, *[None] * 498), 500),
        (command("what", 2, *[None] * 500) * 100, 100),
    ],
    ids=["nothing", "a sound now and then", "a command of many values", "commands that nobody knows"],
)
async def test_who_says_next_to_nothing_in_many_small_chunks_is_heard_slowly(autojump_clock, nursery, said, charged):
    ours, theirs = memory_stream_pair()
    _, server = await joined(ours, theirs)
    nursery.start_soon(hear_all, server)
    began = trio.current_time()
    for n in range(8):
        spent = await has_heard(server, ours, said) - began
        assert spent == pytest.approx(max(0, n * charged * SMALL_CHUNK - CREDIT), abs=0.2)
    nursery.cancel_scope.cancel()


async def test_a_sound_now_and_then_does_not_pay_for_all_the_small_chunks_that_come_at_once():
    ours, theirs = memory_stream_pair()
    _, server = await joined(ours, theirs)
    await ours.send_all((NOTHING * 900 + SOUND) * 2)
    assert isinstance(await server.hear(), flv.Audio)
    with pytest.raises(RemoteProtocolError, match="small chunks that say nothing"):
        await server.hear()


async def test_others_have_their_turns_while_much_is_heard(nursery):
    ours, theirs = memory_stream_pair()
    _, server = await joined(ours, theirs)
    turns = []

    async def take_turns():
        while True:
            turns.append(len(turns))
            await trio.lowlevel.checkpoint()

    nursery.start_soon(take_turns)
    await ours.send_all(SOUND * 3000)
    assert len([await server.hear() for _ in range(3000)]) == 3000
    assert len(turns) > 3000 // TURN
    nursery.cancel_scope.cancel()


async def test_who_sends_media_or_acknowledges_is_heard_at_once(autojump_clock, nursery):
    ours, theirs = memory_stream_pair()
    _, server = await joined(ours, theirs)
    began = trio.current_time()
    word = chunk.encode(chunk.control(chunk.ACKNOWLEDGEMENT, 1), on=2, chunk_size=128)
    await ours.send_all((word * 5 + SOUND * 50) * 100)
    assert len([await server.hear() for _ in range(5000)]) == 5000
    assert trio.current_time() == began
    nursery.start_soon(server.hear)
    for second in range(1, 100):
        await trio.sleep_until(began + second)
        assert await has_heard(server, ours, word * 100) == pytest.approx(began + second, abs=0.1)
    nursery.cancel_scope.cancel()


async def test_a_recordings_list_of_keyframes_delays_no_publisher(autojump_clock):
    ours, theirs = memory_stream_pair()
    client, server = await joined(ours, theirs)
    began = trio.current_time()
    title = Metadata({"keyframes": {"times": [float(n) for n in range(9900)]}, "width": 64.0})
    await client.say(title, flv.audio_packet(b"x", dts=0))
    assert await server.hear() == title
    await client.say(flv.audio_packet(b"y", dts=20))
    assert [(await server.hear()).data for _ in range(2)] == [b"x", b"y"]
    assert trio.current_time() == began


async def test_who_sends_such_lists_all_the_time_is_heard_slowly(autojump_clock, nursery):
    ours, theirs = memory_stream_pair()
    client, server = await joined(ours, theirs)
    nursery.start_soon(hear_all, server)
    began = trio.current_time()
    data = client.session.send(Metadata({"times": [float(n) for n in range(9000)]}))
    for n in range(8):
        spent = await has_heard(server, ours, data) - began
        assert spent == pytest.approx(max(0, n * (9003 // VALUES - 8) * SMALL_CHUNK - CREDIT), abs=0.2)
    nursery.cancel_scope.cancel()


async def test_the_first_to_end_ends_a_race():
    async def lose():
        await trio.sleep_forever()

    async def win():
        pass

    async def fail():
        raise KeyError("why")

    with trio.fail_after(1):
        await race(lose, win, lose)
        with pytest.raises(KeyError, match="why"):
            await race(lose, fail)
        with trio.move_on_after(0.01) as scope:
            await race(lose, lose)
    assert scope.cancelled_caught


class Large(bytearray):
    """Bytes that can be watched."""


async def test_what_two_who_failed_in_a_race_held_is_free_at_once():
    held = []

    async def fail():
        large = Large(1000)
        held.append(weakref.ref(large))
        await trio.sleep(0)
        raise KeyError("why")

    gc.disable()
    try:
        with pytest.raises(KeyError, match="why"):
            await race(fail, fail)
        await trio.sleep(0.01)
        assert [each() for each in held] == [None, None]
    finally:
        gc.enable()
