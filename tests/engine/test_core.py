"""The engine: who owns what, and what ends it. Real streams and sockets, in real time, all short."""

import re
import socket
import time
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec
import pytest
import trio

from engine import core
from engine.config import Settings
from engine.core import Engine
from engine.errors import AlreadyExists, InUse, InvalidSpec, NotFound, Overloaded
from engine.frame import black
from engine.program import Held
from engine.sinks.hls import DISCONTINUITIES
from engine.sinks.still import encode_still
from engine.spec import ARRIVAL_MS, AudioFormat, EventSpec, MixerSpec, PullSpec, Raster
from engine.stream import Publisher
from engine.timebase import SECOND
from engine.tree import AudioSourceNode, CompositorNode, RenderTree, SolidColorNode, VideoSourceNode
from tests.engine.clips import packets
from tests.engine.slowdisk import slow_image
from tests.media import encode
from tests.threads import no_threads
from tests.waiting import until

SPEC = EventSpec(
    name="show", path="live", stream_name="mix", mixer=MixerSpec(raster=Raster(64, 36)), latency_ms=20, sub_mixes=2
)
PATTERN = PullSpec(pattern="count?size=64x36")
PNG = encode_still(black(16, 10))


@asynccontextmanager
async def engine(tmp_path, *, strict=True, **settings):
    made = Engine(Settings(data=str(tmp_path), rtmp_port=0, **settings), strict=strict)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(made.run)
            yield made
            await made.close()
            nursery.cancel_scope.cancel()


def states(made):
    return {status.name: status.publisher for status in made.streams()}


async def test_an_event_publishes_until_it_is_deleted_and_its_name_is_free_then(tmp_path):
    async with engine(tmp_path) as made:
        for _ in range(2):
            event = await made.create_event(SPEC)
            assert made.event("show") is event
            assert made.events() == [event]
            with pytest.raises(AlreadyExists, match="show"):
                await made.create_event(SPEC)
            with made._hub.read("live/mix_1") as reader:
                assert (await reader.receive())[0].keyframe
            assert states(made) == {"live/mix": "mix", "live/mix_1": "mix"}
            await made.delete_event("show")
            assert states(made) == {}
            with pytest.raises(NotFound):
                made.event("show")


async def test_a_playlist_says_that_it_has_ended_and_the_next_one_has_higher_numbers(tmp_path):
    async with engine(tmp_path) as made:
        await made.create_event(SPEC)
        first = made.hls("live/mix")
        await until(first.is_ready)
        await made.delete_event("show")
        made._hls["live/mix"].scope.cancel()  # it has waited long enough
        await until(lambda: first.ended)
        assert made.hls("live/mix") is first
        assert "#EXT-X-ENDLIST" in await first.playlist()
        numbers = [segment.number for segment in first._segmenter.segments]
        await made.create_event(SPEC)
        again = made.hls("live/mix")
        await until(again.is_ready)
        assert again._segmenter.segments[0].number > numbers[-1]
        assert "#EXT-X-DISCONTINUITY\n" not in await again.playlist()


async def playlist(made, film):
    publication = made._hub.publish("live/cam", Publisher(kind="rtmp"))
    server = made.hls("live/cam")
    await until(lambda: made.status().streams[0].readers)
    for packet in film:
        publication.send(packet)
    return await server.playlist()


async def test_the_numbers_of_a_playlist_go_on_when_the_server_is_started_again(tmp_path, media):
    since = time.time_ns() - core.HLS_EPOCH * SECOND  # a server that began before now has used lower ones
    async with engine(tmp_path) as made:
        text = await playlist(made, packets(media.path("plain"), times=2))
    sequence, discontinuities = (int(each) for each in re.findall(r"-SEQUENCE:(\d+)", text))
    assert since * core.HLS_NUMBERS // SECOND <= sequence < 2**31  # players may count in 32 bits
    assert (
        discontinuities == sequence % DISCONTINUITIES
    )  # others than before, but few: a player may keep a list of them


async def test_a_playlist_has_the_date_of_the_systems_clock(tmp_path, media):
    before = datetime.now(UTC)
    async with engine(tmp_path) as made:
        text = await playlist(made, packets(media.path("plain"), times=2, arrival=made.now()))
    (first, *_) = re.findall(r"#EXT-X-PROGRAM-DATE-TIME:(.+)", text)
    assert before - timedelta(seconds=1) <= datetime.fromisoformat(first) <= datetime.now(UTC)


async def test_an_event_that_cannot_be_forwarded_is_not_made(tmp_path):
    async with engine(tmp_path) as made:
        with pytest.raises(InvalidSpec, match="spaces"):
            await made.create_event(msgspec.structs.replace(SPEC, stream_name="my mix", forward="127.0.0.1"))
        assert (made.events(), states(made), made.pushes()) == ([], {}, [])


async def test_an_event_that_is_over_takes_no_tree(tmp_path):
    async with engine(tmp_path) as made:
        event = await made.create_event(SPEC)
        await made.delete_event("show")
        with pytest.raises(NotFound, match="show"):
            event.put([RenderTree()])


async def test_who_asks_for_the_end_of_an_event_may_hang_up(tmp_path):
    async with engine(tmp_path) as made:
        await made.create_event(SPEC)
        with trio.CancelScope() as scope:
            scope.cancel()
            await made.delete_event("show")
        assert made.events() == []
        assert states(made) == {}


async def test_a_pattern_is_a_stream_that_a_mix_shows_and_a_jpeg_can_be_had_of_both(tmp_path):
    async with engine(tmp_path) as made:
        await made.put_source("live/p", PATTERN)
        event = await made.create_event(SPEC)
        event.put([RenderTree(root_video_node=CompositorNode(nodes=(VideoSourceNode(stream_guid="live/p"),)))])
        # It is opened before it is on the air, and is a source of the mix from then on.
        await until(lambda: (p := event.status().sub_mixes[0].sources.get("live/p")) is not None and p.shown > 5)
        for name in ("live/p", "live/mix"):
            assert (await made.picture(name)).startswith(b"\xff\xd8")
        with pytest.raises(NotFound, match="live/none"):
            await made.picture("live/none")


async def test_however_many_ask_for_a_jpeg_of_a_mix_at_once_it_is_made_once_and_later_anew(tmp_path):
    async with engine(tmp_path) as made:
        event, found = await made.create_event(SPEC), []

        async def ask():
            found.append(await made.picture("live/mix"))

        await until(lambda: event.picture("live/mix") is not None)
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask)
        assert len({id(each) for each in found}) == 1
        event.put([RenderTree(root_video_node=SolidColorNode(red=1.0, green=1.0, blue=1.0, alpha=1.0))])
        with trio.fail_after(20):
            while await made.picture("live/mix") == found[0]:
                await trio.sleep(0.005)


async def test_a_source_is_replaced_by_the_next_one_of_its_name_and_others_are_protected(tmp_path):
    async with engine(tmp_path, max_streams=2) as made:
        await made.put_source("live/p", PATTERN)
        await until(lambda: states(made).get("live/p") == "pattern")
        await made.put_source("live/p", PullSpec(pattern="bars?size=32x18"))
        await until(lambda: states(made).get("live/p") == "pattern")
        assert [status.url for status in made.pulls()] == ["pattern:bars?size=32x18"]
        made._hub.publish("live/cam", Publisher(kind="rtmp"))
        with pytest.raises(AlreadyExists):
            await made.put_source("live/cam", PATTERN)
        await made.put_source("live/q", PATTERN)
        with pytest.raises(Overloaded, match="2 sources"):
            await made.put_source("live/r", PATTERN)
        await made.remove_stream("live/p")
        await until(lambda: "live/p" not in states(made))
        with pytest.raises(NotFound):
            await made.remove_stream("live/p")


async def test_a_source_that_is_refused_ends_none(tmp_path):
    async with engine(tmp_path, max_streams=2) as made:
        await made.put_source("live/p", PATTERN)
        await made.put_source("live/cam", PullSpec(url=str(tmp_path / "later.mp4")))
        await until(lambda: {status.state for status in made.pulls()} == {"publishing", "retrying"})
        stand_in = made._hub.publish("live/cam", Publisher(kind="rtmp"))
        before = made.pulls()
        with pytest.raises(AlreadyExists, match="live/cam"):
            await made.put_source("live/cam", PATTERN)
        with pytest.raises(Overloaded, match="2 sources"):
            await made.put_source("live/q", PATTERN)
        assert (made.pulls(), states(made)) == (before, {"live/p": "pattern", "live/cam": "rtmp"})
        stand_in.close()
        await made.put_source("live/cam", PATTERN)  # in place of the other: there are no more of them
        await until(lambda: states(made) == {"live/p": "pattern", "live/cam": "pattern"})
        await made.close()
        with pytest.raises(Overloaded, match="not running"):
            await made.put_source("live/p", PATTERN)
        assert states(made) == {"live/p": "pattern", "live/cam": "pattern"}


async def test_of_sources_put_at_once_under_one_name_one_stays_and_can_be_removed(tmp_path):
    async with engine(tmp_path) as made:
        await made.put_source("live/p", PATTERN)
        await until(lambda: states(made).get("live/p") == "pattern")
        urls = [f"bars?size={width}x18" for width in (32, 64, 96)]
        async with trio.open_nursery() as nursery:
            for url in urls:
                nursery.start_soon(made.put_source, "live/p", PullSpec(pattern=url))
        (status,) = made.pulls()
        await until(lambda: "live/p" in states(made) and made._hub.published("live/p").status().video is not None)
        assert status.url == f"pattern:bars?size={made._hub.published('live/p').status().video.width}x18"
        await made.remove_stream("live/p")
        await until(lambda: "live/p" not in states(made))
        assert made.pulls() == []


async def test_a_pattern_that_no_stream_can_be_is_refused_and_its_name_stays_free(tmp_path):
    async with engine(tmp_path) as made:
        with pytest.raises(InvalidSpec, match="no pattern"):
            await made.put_source("live/p", PullSpec(pattern="hail"))
        assert (made.pulls(), states(made)) == ([], {})
        await made.put_source("live/p", PullSpec(pattern="count?size=64x36&rate=120"))
        await until(lambda: states(made) == {"live/p": "pattern"})
        assert made.pulls()[0].state == "publishing"


async def test_a_pattern_that_failed_says_so_and_whose_name_it_is_keeps_it(tmp_path):
    async with engine(tmp_path) as made:
        await made.put_source("live/p", PATTERN)
        camera = made._hub.publish("live/p", Publisher(kind="rtmp", stop=lambda: camera.close()))
        await until(lambda: made.pulls()[0].state == "failed")
        assert made.pulls()[0].error == 'stream "live/p" is already published (rtmp)'
        assert states(made) == {"live/p": "rtmp"}
        await made.remove_stream("live/p")
        assert (made.pulls(), states(made)) == ([], {})


async def test_a_camera_that_has_the_name_of_a_film_that_is_over_is_shown_the_door_with_it(tmp_path):
    encode(tmp_path / "film.mp4")
    async with engine(tmp_path) as made:
        await made.put_source("live/film", PullSpec(url=str(tmp_path / "film.mp4")))
        await until(lambda: made.pulls()[0].state == "ended")
        camera = made._hub.publish("live/film", Publisher(kind="rtmp", stop=lambda: camera.close()))
        await made.remove_stream("live/film")
        assert (made.pulls(), states(made)) == ([], {})


async def test_a_camera_that_takes_the_name_of_a_source_as_soon_as_that_ends_stays(tmp_path):
    encode(tmp_path / "film.mp4")
    async with engine(tmp_path) as made, trio.open_nursery() as nursery:
        shown_the_door = []

        async def follow():
            while made._hub.is_published("live/film"):
                await trio.lowlevel.checkpoint()
            made._hub.publish("live/film", Publisher(kind="rtmp", stop=lambda: shown_the_door.append(True)))

        await made.put_source("live/film", PullSpec(url=str(tmp_path / "film.mp4"), loop=True))
        await until(lambda: made._hub.is_published("live/film"))
        nursery.start_soon(follow)
        await made.remove_stream("live/film")
        await until(lambda: states(made) == {"live/film": "rtmp"})
        assert not shown_the_door


async def test_a_mix_that_has_the_name_of_a_source_stays_when_that_is_removed(tmp_path):
    async with engine(tmp_path) as made:
        await made.put_source("live/mix", PullSpec(url=str(tmp_path / "later.mp4")))
        await until(lambda: made.pulls()[0].state == "retrying")
        await made.create_event(SPEC)
        await made.remove_stream("live/mix")
        assert (made.pulls(), states(made)) == ([], {"live/mix": "mix", "live/mix_1": "mix"})
        with pytest.raises(InUse, match="show"):
            await made.remove_stream("live/mix")


async def test_no_event_begins_while_the_engine_stops_and_none_of_it_is_left(tmp_path):
    async with engine(tmp_path) as made:
        await made.close()
        with pytest.raises(Overloaded):
            await made.create_event(SPEC)
        assert (made.events(), states(made)) == ([], {})


async def test_a_mix_cannot_be_removed_as_a_stream_a_publisher_is_shown_the_door(tmp_path):
    async with engine(tmp_path) as made:
        await made.create_event(SPEC)
        with pytest.raises(InUse, match="show"):
            await made.remove_stream("live/mix")
        asked = []
        made._hub.publish("live/cam", Publisher(kind="rtmp", stop=partial(asked.append, 1)))
        await made.remove_stream("live/cam")
        assert asked == [1]


async def test_a_recording_ends_with_the_engine_and_its_file_is_whole(tmp_path):
    async with engine(tmp_path, max_recordings=1) as made:
        await made.put_source("live/p", PATTERN)
        await until(lambda: states(made).get("live/p") == "pattern")
        started = await made.start_recording("live/p")
        with pytest.raises(Overloaded):
            await made.start_recording("live/p")
        with pytest.raises(NotFound):
            await made.stop_recording("live/q", started.id)
        await until(lambda: made.recordings("live/p")[0].bytes > 0)
        await made.close()
        (status,) = made.recordings()
        assert status.state == "done"
        assert (tmp_path / "recordings" / status.file).stat().st_size == status.bytes
        with pytest.raises(Overloaded):
            await made.start_recording("live/p")  # it is stopping


async def test_recordings_and_uploads_do_not_wait_for_lists_of_images(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/slow.png").write_bytes(PNG)
    with slow_image(monkeypatch, "slow.png") as slow:
        async with engine(tmp_path) as made, trio.open_nursery() as nursery:
            await made.put_source("live/p", PATTERN)
            for _ in range(core.DISK_THREADS):
                nursery.start_soon(made.images)
            await slow.begun.wait()
            await until(lambda: "live/p" in states(made))
            recording = await made.start_recording("live/p")
            await until(lambda: made.recordings()[0].bytes)
            assert (await made.stop_recording("live/p", recording.id)).state == "done"
            assert await made.add_image("logo.png", PNG) == "logo.png"
            assert slow.readers == 1
            slow.release()


async def test_a_push_is_listed_until_it_is_removed(tmp_path):
    async with engine(tmp_path, max_pushes=1) as made:
        status = await made.add_push("live/p", f"rtmp://127.0.0.1:{made.rtmp_port}/copy/p")
        assert [push.id for push in made.pushes("live/p")] == [status.id]
        with pytest.raises(Overloaded):
            await made.add_push("live/p", "rtmp://127.0.0.1/a/b")
        await made.put_source("live/p", PATTERN)
        await until(lambda: states(made).get("copy/p") == "rtmp")
        await made.remove_push("live/p", status.id)
        assert made.pushes() == []
        with pytest.raises(NotFound):
            await made.remove_push("live/p", status.id)
        with pytest.raises(InvalidSpec):
            await made.add_push("live/p", "ftp://nowhere")


async def test_a_push_to_a_name_is_looked_up_in_no_thread_that_others_share(tmp_path):
    async with engine(tmp_path) as made:
        shared = trio.to_thread.current_default_thread_limiter()
        for n in range(int(shared.total_tokens)):
            shared.acquire_on_behalf_of_nowait(n)
        await made.put_source("live/p", PATTERN)
        await made.add_push("live/p", f"rtmp://localhost:{made.rtmp_port}/copy/p")
        await until(lambda: states(made).get("copy/p") == "rtmp")


async def test_with_an_event_end_its_own_pushes_and_no_others(tmp_path):
    spec = msgspec.structs.replace(SPEC, forward="127.0.0.1")
    async with engine(tmp_path) as made:
        await made.create_event(spec)
        other = await made.add_push("live/mix", f"rtmp://127.0.0.1:{made.rtmp_port}/backup/mix")
        own = [push for push in made.pushes() if push.id != other.id]
        assert [push.stream for push in own] == ["live/mix", "live/mix_1"]
        await made.remove_push("live/mix", own[0].id)
        await made.delete_event("show")
        assert [push.id for push in made.pushes()] == [other.id]


async def test_a_mix_is_forwarded_under_its_name_and_the_push_ends_with_the_event(tmp_path):
    async with engine(tmp_path / "origin") as origin, engine(tmp_path, forward_port=origin.rtmp_port) as made:
        await made.create_event(
            EventSpec(name="f", path="live", stream_name="mix", mixer=SPEC.mixer, forward="127.0.0.1")
        )
        await until(lambda: states(origin).get("live/mix") == "rtmp")
        await made.delete_event("f")
        assert made.pushes() == []
        await until(lambda: "live/mix" not in states(origin))


async def test_news_come_in_order_and_of_one_thing_only_the_last(tmp_path):
    async with engine(tmp_path) as made, aclosing(made.news()) as news:
        found = []

        async def read():
            async for each in news:
                found.append((each.subject, each.id, each.state))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await made.create_event(SPEC)
            await until(lambda: ("event", "show", "on air") in found)
            await made.delete_event("show")
            await until(lambda: ("event", "show", "ended") in found and ("stream", "live/mix", "gone") in found)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def told(made):
    """What the news say from now on, as it comes: (subject, id, state, stream, error)."""
    found = []

    async def read():
        async with aclosing(made.news()) as news:
            async for each in news:
                found.append(msgspec.structs.astuple(each))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await until(lambda: made._news)
        yield found
        nursery.cancel_scope.cancel()


async def test_a_removed_pattern_is_gone_as_a_stream_and_ended_as_what_is_pulled(tmp_path):
    async with engine(tmp_path) as made, told(made) as found:
        await made.put_source("live/p", PATTERN)
        await until(lambda: found)
        made.hls("live/p")  # which is nobody's business
        await made.remove_stream("live/p")
        await made.create_event(SPEC)
        await until(lambda: ("event", "show", "on air", "", "") in found)
        assert [each for each in found if "live/p" in each] == [
            ("stream", "live/p", "published", "", ""),
            ("stream", "live/p", "gone", "", ""),
            ("pull", "live/p", "ended", "", ""),
        ]


async def test_what_fails_is_told_as_failed_and_why(tmp_path):
    async with engine(tmp_path) as made, told(made) as found:
        (tmp_path / "recordings").write_text("in the way")
        await made.create_event(SPEC)
        id = (await made.start_recording("live/mix")).id  # noqa: A001
        await until(lambda: made.recordings()[0].state == "failed")
        (tmp_path / "a.mp4").write_text("no film")
        await made.put_source("live/p", PullSpec(url=str(tmp_path / "a.mp4")))
        unheard = MixerSpec(raster=Raster(64, 36), audio=AudioFormat(rate=9000))
        await made.create_event(EventSpec(name="odd", path="live", stream_name="odd", mixer=unheard))
        await until(
            lambda: {each[:2] for each in found if each[2] == "failed"} >= {("pull", "live/p"), ("event", "odd")}
        )
        errors = {each[:2]: each[3:] for each in found if each[2] == "failed"}
        assert errors["recording", id] == ("live/mix", made.recordings()[0].error)
        assert errors["pull", "live/p"] == ("", made.pulls()[0].error)
        assert errors["event", "odd"] == ("", made.event("odd").error)
        assert all(error for _, error in errors.values())
        assert not [each for each in found if each[2] == "ended"]


@pytest.mark.parametrize("step", [86_400 * SECOND, -86_400 * SECOND])
async def test_a_system_clock_that_is_set_moves_no_slot_and_no_source(tmp_path, monkeypatch, step):
    tree = RenderTree(
        root_video_node=VideoSourceNode(stream_guid="live/p"), root_audio_node=AudioSourceNode(stream_guid="live/p")
    )
    async with engine(tmp_path) as made:
        await made.put_source("live/p", PATTERN)
        event = await made.create_event(SPEC)
        event.put([tree])

        def shown():
            return getattr(event.status().sub_mixes[0].sources.get("live/p"), "shown", 0)

        await until(lambda: shown() > 10)
        before, seen, now = event.status(), shown(), time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: now() + step)
        monkeypatch.setattr(time, "time", lambda: (now() + step) / SECOND)
        await until(lambda: shown() > seen + 20)
        after = event.status()
    hour = 3600 * SPEC.mixer.fps  # no machine stands still for so long
    (old, *_), (new, *_) = before.sub_mixes, after.sub_mixes
    assert 0 < after.slots - before.slots < hour
    assert new.mixer.lagged - old.mixer.lagged < hour
    assert new.sources["live/p"].jumps == old.sources["live/p"].jumps == 0


async def test_that_a_stream_is_published_is_one_line_of_the_log_which_says_by_whom(tmp_path, media, caplog):
    caplog.set_level("INFO")
    film = str(media.path("plain"))
    async with engine(tmp_path) as made:
        await made.put_source("live/film", PullSpec(url=film, loop=True))
        await made.create_event(msgspec.structs.replace(SPEC, sub_mixes=1))
        await until(lambda: states(made) == {"live/film": "pull", "live/mix": "mix"})
        (line,) = (each for each in caplog.messages if "live/film" in each)
        assert line == f"stream live/film: published (pull {film})"
        assert "stream live/mix: published (mix show)" in caplog.messages
        caplog.clear()
        await made.add_push("live/film", f"rtmp://127.0.0.1:{made.rtmp_port}/live/copy")
        await until(lambda: states(made).get("live/copy") == "rtmp")
        (line,) = (each for each in caplog.messages if "live/copy" in each)
        assert re.fullmatch(r"stream live/copy: published \(rtmp 127\.0\.0\.1:\d+\)", line)
        (camera,) = (status for status in made.streams() if status.publisher == "rtmp")
        assert camera.peer in line


async def test_the_slots_that_an_event_lags_are_in_the_log_as_sums(tmp_path, caplog):
    async with engine(tmp_path) as made:
        event = await made.create_event(SPEC)
        await until(lambda: event.status().sub_mixes[0].mixer.mixed > 3)
        time.sleep(0.3)  # in which nobody gets to do anything
        await until(lambda: event.lagged > 0)

        def told():
            lines = [each for each in caplog.messages if each.startswith("event show: ") and "lagged" in each]
            return [int(re.fullmatch(r"event show: (\d+) lagged.* in \d+ s", each)[1]) for each in lines]

        await until(lambda: sum(told()) == event.lagged)


async def test_the_packets_that_slow_readers_lose_are_in_the_log_as_sums(tmp_path, media, monkeypatch, caplog):
    monkeypatch.setattr("engine.stream.QUEUE_PACKETS", 20)
    first, *film = packets(media.path("plain"))
    async with engine(tmp_path) as made:
        publication = made._hub.publish("live/cam", Publisher(kind="pattern"))
        await made.add_push("live/cam", f"rtmp://127.0.0.1:{made.rtmp_port}/live/copy")
        publication.send(first)
        await until(lambda: made.pushes()[0].state == "pushing")
        await made.start_recording("live/cam")
        await until(lambda: made.streams()[0].readers == 2)
        for packet in film:  # at once
            publication.send(packet)
        (push,), (recording,) = made.pushes(), made.recordings()
        assert push.dropped > 20 < recording.dropped
        lines = {
            f"stream live/cam: {push.dropped + recording.dropped} packets lost by slow readers",
            f"live/cam: push {push.id}: {push.dropped} packets dropped",
            f"live/cam: recording {recording.id}: {recording.dropped} packets dropped",
        }
        await until(lambda: lines <= {re.sub(r" in \d+ s$", "", each) for each in caplog.messages})


async def test_an_event_that_a_bug_ends_has_failed(tmp_path, caplog):
    class Broken(Held):
        def tree_at(self, t):
            return super().tree_at(t) if t == 0 else 1 / 0

    async with engine(tmp_path, strict=False) as made, told(made) as found:
        event = await made.create_event(SPEC)
        event.play(Broken(RenderTree()), sources={})
        await until(lambda: [each for each in found if each[:3] == ("event", "show", "failed")])
        assert (event.status().state, states(made)) == ("failed", {})
        assert "ZeroDivisionError" in caplog.text


async def test_every_state_of_a_push_is_told(tmp_path):
    async with AsyncExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))  # and does not listen
        made = await stack.enter_async_context(engine(tmp_path, publish_key="sesame"))
        found = await stack.enter_async_context(told(made))
        refused = await made.add_push("live/p", f"rtmp://127.0.0.1:{made.rtmp_port}/copy/p")
        let_in = await made.add_push("live/p", f"rtmp://127.0.0.1:{made.rtmp_port}/copy/p?key=sesame")
        unheard = await made.add_push("live/p", f"rtmp://127.0.0.1:{deaf.getsockname()[1]}/a/b")

        def last(push):
            return [each[2:] for each in found if each[:2] == ("push", push.id)][-1:]

        await until(lambda: [last(push) for push in (refused, let_in, unheard)] == [[("waiting", "live/p", "")]] * 3)
        await made.put_source("live/p", PATTERN)
        await until(lambda: last(let_in) == [("pushing", "live/p", "")])
        await until(lambda: {each[1] for each in found if each[2] == "retrying"} == {refused.id, unheard.id})
        errors = {each[1]: each[4] for each in found if each[2] == "retrying"}
        assert "the publish key is not right" in errors[refused.id]
        assert "cannot be reached" in errors[unheard.id]
        for push in (refused, let_in, unheard):
            await made.remove_push("live/p", push.id)
        await until(lambda: [last(push) for push in (refused, let_in, unheard)] == [[("ended", "live/p", "")]] * 3)


async def test_a_status_tells_all(tmp_path):
    async with engine(tmp_path) as made:
        event = await made.create_event(SPEC)
        event.put([RenderTree(root_video_node=SolidColorNode(red=1, green=0, blue=0, alpha=1))])
        await until(lambda: made.status().events[0].sub_mixes[0].encoder.encoded > 2)
        status = made.status().events[0]
        assert (status.name, status.state, status.width, status.latency_ms) == ("show", "on air", 64, 34 + ARRIVAL_MS)
        assert status.slots >= status.sub_mixes[0].mixer.mixed


async def test_what_runs_goes_on_when_there_is_no_thread_for_a_while(tmp_path):
    async with engine(tmp_path) as made:
        event = await made.create_event(SPEC)
        await made.put_source("live/cam", PATTERN)
        recording = await made.start_recording("live/mix")
        with made._hub.read("live/mix") as mix, made._hub.read("live/cam") as cam:
            await mix.receive()
            await cam.receive()
            async with no_threads():
                await trio.sleep(0.3)
            mixed, newest = event.status().sub_mixes[0].mixer.mixed, made.now()
            await until(lambda: event.status().sub_mixes[0].mixer.mixed > mixed + 5)
            for reader in (mix, cam):
                while (await reader.receive())[-1].arrival < newest:
                    pass
        assert event.status().state == "on air"
        assert (await made.stop_recording("live/mix", recording.id)).state == "done"
