"""What is recorded plays, wherever it is cut off; a disk that is slow, wedged or full costs only the recording."""

import resource
import subprocess
import sys
from collections import deque
from contextlib import asynccontextmanager, contextmanager
from fractions import Fraction
from functools import partial
from io import BytesIO
from itertools import pairwise

import av
import pytest
import trio
import trio.testing

from engine import fmp4
from engine.packet import Packet, Track
from engine.sinks import record
from engine.sinks.record import Recording
from engine.stream import END, Hub
from tests.engine.clips import NS, boxes, interrupted, packets, pictures, publish, sounds, until_the_second_keyframe
from tests.media import Audio, Video, encode
from tests.threads import no_threads

MS = Fraction(1, 1000)


@pytest.fixture
def hub():
    return Hub(lambda: 0)


async def settle(recording, state):
    """Until the recording is in a state."""
    with trio.fail_after(30):
        while recording.status().state != state:
            await trio.sleep(0.01)


async def to_end(reader):
    """Takes all that comes at once, until the publisher goes."""
    while END not in await reader.receive():
        pass


async def written(recording, size):
    with trio.fail_after(30):
        while recording.status().bytes < size:
            await trio.sleep(0.01)


@asynccontextmanager
async def begun(hub, path, limiter=None):
    """(publication, its recording, which waits for the first packet, and the scope that it runs in)."""
    publication = publish(hub)
    recording = Recording(hub, "live/cam", path, id="1", limiter=limiter or trio.CapacityLimiter(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recording.run)
        await trio.testing.wait_all_tasks_blocked()
        yield publication, recording, nursery.cancel_scope


async def recorded(hub, path, film):
    """The recording of a film, from its first packet until its publisher goes."""
    with trio.fail_after(30):
        async with begun(hub, path) as (publication, recording, _):
            for packet in film:
                publication.send(packet)
            publication.close()
    return recording


def playable(data):
    """Until when a player gets pictures from a file that may be cut off, s."""
    last = Fraction(0)
    try:
        with av.open(BytesIO(data)) as container:
            for packet in container.demux(video=0):
                for frame in packet.decode():
                    last = max(last, frame.pts * frame.time_base)
    except av.error.InvalidDataError:
        pass  # how the cut shows
    return last


@contextmanager
def file_limit(size):
    """Files of this process can be no larger, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("units", [None, MS])
async def test_a_recording_is_the_film(hub, media, tmp_path, units):
    film = packets(media.path("plain"), times=2, units=units, durations=units is None, start=100)
    recording = await recorded(hub, tmp_path / "new" / "a.mp4", film)
    data = (tmp_path / "new" / "a.mp4").read_bytes()
    assert [number for _, number in pictures(data)] == [*range(60), *range(60)]
    assert abs(len(sounds(data)) - sum(not each.is_video for each in film)) <= 4  # sound from before the picture
    status = recording.status()
    assert (status.state, status.error, status.id, status.file, status.files) == ("done", "", "1", "a.mp4", ["a.mp4"])
    assert status.bytes == len(data)
    assert 3990 <= status.duration_ms <= 4100
    assert not list((tmp_path / "new").glob("*_2*"))


async def test_fragments_are_a_gop_long_and_never_more_than_a_second(hub, media, tmp_path):
    await recorded(hub, tmp_path / "a.mp4", packets(media.path("video_only"), times=2))
    long = encode(tmp_path / "long.mp4", Video(gop=400), Audio(), seconds=4)
    await recorded(hub, tmp_path / "b.mp4", packets(long))
    counts = [sum(kind == "moof" for kind, _ in boxes((tmp_path / name).read_bytes())) for name in ("a.mp4", "b.mp4")]
    assert counts[0] == 4
    assert counts[1] in (4, 5)  # sound may make a second full first


async def test_sound_that_begins_late_costs_no_picture(hub, tmp_path):
    path = encode(tmp_path / "film.mp4", Video(gop=60), Audio(), seconds=4)
    film = [each for each in packets(path) if each.is_video or each.arrival >= NS]
    recording = await recorded(hub, tmp_path / "a.mp4", film)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.mp4", "a_2.mp4"))
    assert recording.status().files == ["a.mp4", "a_2.mp4"]
    assert [number for _, number in pictures(first) + pictures(second)] == list(range(120))
    assert sounds(second)


async def test_wherever_it_is_cut_off_it_plays_to_within_the_last_second(hub, media, tmp_path):
    await recorded(hub, tmp_path / "a.mp4", packets(media.path("plain"), times=3))
    data = (tmp_path / "a.mp4").read_bytes()
    starts, at = [], 0
    for kind, body in boxes(data):
        starts += [at] if kind == "moof" else []
        at += 8 + len(body)
    for n, (start, stop) in enumerate(pairwise([*starts[1:], len(data)]), 1):
        for cut in (start, start + 5, start + 60, (start + stop) // 2, stop - 1):
            assert playable(data[:cut]) >= Fraction(n, 2) - Fraction(1, 10), cut


async def test_it_plays_after_kill_9(media, tmp_path):
    program = """
import sys, trio, trio.testing
from engine.sinks.record import Recording
from engine.stream import Hub, Publisher
from pathlib import Path
from tests.engine.clips import packets

async def main(source, target):
    hub = Hub(lambda: 0)
    publication = hub.publish("live/cam", Publisher(kind="pattern"))
    recording = Recording(hub, "live/cam", Path(target), id="1", limiter=trio.CapacityLimiter(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recording.run)
        await trio.testing.wait_all_tasks_blocked()
        for packet in packets(source, times=2):
            publication.send(packet)
        while recording.status().duration_ms < 3000:
            await trio.sleep(0.01)
        print("ready", flush=True)
        await trio.sleep_forever()

trio.run(main, *sys.argv[1:])
"""
    path = tmp_path / "a.mp4"
    command = [sys.executable, "-c", program, str(media.path("plain")), str(path)]
    async with trio.open_nursery() as nursery:
        with trio.fail_after(30):
            child = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, check=False))
            try:
                assert (await child.stdout.receive_some()).startswith(b"ready")
            finally:
                child.kill()
            await child.wait()
    assert playable(path.read_bytes()) > Fraction(28, 10)


async def test_it_begins_with_the_present_keyframe_and_stops_when_told(hub, media, tmp_path):
    publication = publish(hub)
    film = packets(media.path("plain"), start=9)
    recording = Recording(hub, "live/cam", tmp_path / "a.mp4", id="1", limiter=trio.CapacityLimiter(1))
    assert (recording.status().state, recording.status().file, recording.status().files) == ("waiting", "a.mp4", [])
    for packet in film[:80]:
        publication.send(packet)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recording.run)
        await settle(recording, "recording")
        for packet in film[80:120]:
            publication.send(packet)
        recording.stop()
        recording.stop()
        await settle(recording, "done")
        publication.send(film[120])
    shown = pictures((tmp_path / "a.mp4").read_bytes())
    assert len(shown) == sum(each.is_video for each in film[:120]) - shown[0][1]
    assert shown[0][1] in (15, 30)
    assert hub.published("live/cam").status().readers == 0


async def test_stopped_before_anything_came_there_is_no_file(hub, tmp_path):
    async with begun(hub, tmp_path / "a.mp4") as (_, recording, _):
        recording.stop()
    assert recording.status().state == "done"
    assert not list(tmp_path.iterdir())


async def test_a_shutdown_saves_what_has_come(hub, media, tmp_path):
    async with begun(hub, tmp_path / "a.mp4") as (publication, recording, scope):
        for packet in packets(media.path("video_only")):
            publication.send(packet)
        await settle(recording, "recording")
        scope.cancel()
    assert recording.status().state == "done"
    assert len(pictures((tmp_path / "a.mp4").read_bytes())) == 30


async def test_a_shutdown_saves_what_waited_for_others_to_write(hub, media, tmp_path):
    limiter = trio.CapacityLimiter(1)
    limiter.acquire_on_behalf_of_nowait("another recording")
    async with begun(hub, tmp_path / "a.mp4", limiter) as (publication, recording, scope):
        for packet in packets(media.path("video_only")):
            publication.send(packet)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        limiter.release_on_behalf_of("another recording")
    assert recording.status().state == "done"
    assert len(pictures((tmp_path / "a.mp4").read_bytes())) == 30


async def test_a_shutdown_saves_what_waited_for_a_thread(hub, media, tmp_path):
    async with begun(hub, tmp_path / "a.mp4") as (publication, recording, scope), no_threads():
        for packet in packets(media.path("video_only")):
            publication.send(packet)
        await settle(recording, "recording")
        scope.cancel()
    assert recording.status().state == "done"
    assert len(pictures((tmp_path / "a.mp4").read_bytes())) == 30


async def test_other_tracks_begin_another_file(hub, media, tmp_path):
    larger = encode(tmp_path / "larger.mp4", Video(size=(128, 72)), None, seconds=1)
    film = packets(media.path("video_only")) + packets(larger, start=1)
    recording = await recorded(hub, tmp_path / "a.mp4", film)
    assert recording.status().files == ["a.mp4", "a_2.mp4"]
    for name, width in (("a.mp4", 64), ("a_2.mp4", 128)):
        with av.open(str(tmp_path / name)) as container:
            assert [frame.width for frame in container.decode(video=0)] == [width] * 30
    assert recording.status().bytes == sum((tmp_path / name).stat().st_size for name in ("a.mp4", "a_2.mp4"))
    assert 1990 <= recording.status().duration_ms <= 2100


@pytest.mark.parametrize("bframes", [0, 2])
async def test_sound_that_changes_with_the_picture_is_there_from_its_first_packet_on(hub, tmp_path, bframes):
    film = interrupted(tmp_path, bframes=bframes)
    recording = await recorded(hub, tmp_path / "a.mp4", film)
    assert recording.status().files == ["a.mp4", "a_2.mp4"]
    for name, shot in (("a.mp4", (0, 1)), ("a_2.mp4", (1, 2))):
        data = (tmp_path / name).read_bytes()
        own = [each for each in film if not each.is_video and shot[0] <= fmp4.seconds(each) < shot[1]]
        assert [number for _, number in pictures(data)] == list(range(30))
        assert len(sounds(data)) == len(own)


@pytest.mark.parametrize("end", ["gone", "stopped", "shut down"])
async def test_a_keyframe_that_waits_for_its_sound_is_in_the_recording_at_the_end(hub, tmp_path, end):
    with trio.fail_after(30):
        async with begun(hub, tmp_path / "a.mp4") as (publication, recording, scope):
            for packet in until_the_second_keyframe(tmp_path):
                publication.send(packet)
            await trio.testing.wait_all_tasks_blocked()
            {"gone": publication.close, "stopped": recording.stop, "shut down": scope.cancel}[end]()
    assert [len(pictures((tmp_path / name).read_bytes())) for name in ("a.mp4", "a_2.mp4")] == [30, 1]


@pytest.mark.parametrize("other", [False, True], ids=["to the end", "another file"])
async def test_the_last_picture_stays_while_there_is_sound(hub, media, tmp_path, other):
    """A camera is off, its microphone is on: what was told to be written is written."""
    plain = media.path("plain")
    film = [each for each in packets(plain, times=4) if not each.is_video or each.pts * each.track.time_base < 2]
    longer = [each.pts * each.track.time_base for each in film][-1]
    if other:
        film += packets(encode(tmp_path / "larger.mp4", Video(size=(128, 72)), None, seconds=1), start=8)
    recording = await recorded(hub, tmp_path / "a.mp4", film)
    assert recording.status().duration_ms == pytest.approx(1000 * (longer + other), abs=100)
    with av.open(str(tmp_path / "a.mp4")) as container:
        (picture,) = container.streams.video
        assert float(picture.duration * picture.time_base) == pytest.approx(float(longer), abs=0.1)


async def test_on_a_full_disk_it_stops_with_an_error_and_what_is_there_plays(hub, media, tmp_path, caplog):
    film = packets(media.path("plain"), times=10)
    with file_limit(20_000):
        recording = await recorded(hub, tmp_path / "a.mp4", film)
    status = recording.status()
    assert status.state == "failed"
    assert status.error == f'recording "a.mp4": file too large after {status.bytes} bytes'
    assert caplog.messages == [f"live/cam: {status.error}"]
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < len(data) == status.bytes <= 20_000
    assert pictures(data)[-1][0] * 1000 == pytest.approx(status.duration_ms, abs=550)


@pytest.mark.parametrize("room", [0, 500])
async def test_a_disk_that_was_full_before_has_no_file_of_it(hub, media, tmp_path, room):
    film = packets(media.path("video_only"))
    with file_limit(room):
        recording = await recorded(hub, tmp_path / "a.mp4", film)
    assert (recording.status().state, recording.status().files) == ("failed", [])
    assert recording.status().error == 'recording "a.mp4": file too large after 0 bytes'
    assert not list(tmp_path.iterdir())


async def test_a_further_file_that_the_disk_does_not_take_is_not_there_and_those_before_it_play(hub, media, tmp_path):
    filler = {"x264-params": "nal-hrd=cbr:bitrate=1000:vbv-maxrate=1000:vbv-bufsize=1000"}  # its first GOP has 60 kB
    larger = encode(tmp_path / "larger.mp4", Video(size=(128, 72), options=filler), None, seconds=1)
    film = packets(media.path("video_only")) + packets(larger, start=1)
    with file_limit(10_000):
        recording = await recorded(hub, tmp_path / "new" / "a.mp4", film)
    assert (recording.status().state, recording.status().files) == ("failed", ["a.mp4"])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.mp4"]
    data = (tmp_path / "new" / "a.mp4").read_bytes()
    assert (len(pictures(data)), len(data)) == (30, recording.status().bytes)


async def test_a_full_disk_costs_other_readers_nothing(hub, media, tmp_path):
    film = packets(media.path("plain"))
    with hub.read("live/cam") as reader, file_limit(5_000):
        recording = await recorded(hub, tmp_path / "a.mp4", film)
        assert recording.status().state == "failed"
        assert reader.dropped == 0


async def test_a_file_that_exists_is_kept(hub, media, tmp_path):
    (tmp_path / "a.mp4").write_text("precious")
    recording = await recorded(hub, tmp_path / "a.mp4", packets(media.path("plain")))
    assert recording.status().error == 'recording "a.mp4": file exists after 0 bytes'
    assert (tmp_path / "a.mp4").read_text() == "precious"


async def test_a_codec_that_mp4_cannot_hold_fails_with_its_name(hub, tmp_path):
    track = Track(kind="audio", codec="speex")
    film = [Packet(track, b"x", pts=n, dts=n, arrival=n * NS // 50) for n in range(60)]
    recording = await recorded(hub, tmp_path / "a.mp4", film)
    assert recording.status().state == "failed"
    assert "speex" in recording.status().error


async def test_sound_that_mp4_cannot_hold_is_left_out_and_that_is_said_once(hub, media, tmp_path, caplog):
    phone = Track(kind="audio", codec="pcm_mulaw", rate=8000, channels=1)
    film = packets(media.path("video_only"))
    for n in range(50):
        film.append(Packet(phone, bytes(160), pts=20 * n, dts=20 * n, arrival=n * NS // 50))
    film.sort(key=lambda packet: packet.arrival)
    recording = await recorded(hub, tmp_path / "a.mp4", film)
    assert (recording.status().state, recording.status().left_out) == ("done", "audio in pcm_mulaw")
    assert caplog.messages == ['live/cam: audio in pcm_mulaw is left out of recording "a.mp4"']
    assert len(pictures((tmp_path / "a.mp4").read_bytes())) == 30


async def test_a_slow_disk_loses_packets_up_to_a_keyframe_and_goes_on(hub, media, tmp_path):
    publication = publish(hub)
    disk = trio.CapacityLimiter(1)
    recording = Recording(hub, "live/cam", tmp_path / "a.mp4", id="1", limiter=disk)
    film = packets(media.path("video_only"), times=90)
    most = 0
    with hub.read("live/cam") as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recording.run)
            nursery.start_soon(to_end, other)
            await trio.testing.wait_all_tasks_blocked()
            for packet in film[:40]:
                publication.send(packet)
            await written(recording, 1)
            async with disk:  # somebody else has it
                for packet in film[40:2640]:
                    publication.send(packet)
                    await trio.lowlevel.checkpoint()
                    most = max(most, recording.status().waiting)
            for packet in film[2640:]:
                publication.send(packet)
            publication.close()
        assert other.dropped == 0
    assert recording.status().state == "done"
    assert recording.status().dropped > 0
    assert most > 1000
    assert recording.status().waiting == 0
    shown = pictures((tmp_path / "a.mp4").read_bytes())
    assert all(
        after - before <= Fraction(1, 10) for (before, _), (after, _) in pairwise(shown)
    )  # a long gap is cut out
    assert len(shown) + recording.status().dropped == len(film)


async def test_a_wedged_disk_does_not_hold_up_a_stop(hub, media, tmp_path, autojump_clock):
    publication = publish(hub)
    disk = trio.CapacityLimiter(1)
    recording = Recording(hub, "live/cam", tmp_path / "a.mp4", id="1", limiter=disk)
    async with trio.open_nursery() as nursery, disk:
        nursery.start_soon(recording.run)
        await trio.testing.wait_all_tasks_blocked()
        for packet in packets(media.path("plain")):
            publication.send(packet)
        await trio.testing.wait_all_tasks_blocked()
        recording.stop()
        with trio.fail_after(record.STOPPING + 0.5):
            while recording.status().state in ("waiting", "recording"):
                await trio.sleep(0.1)
    assert recording.status().error == 'recording "a.mp4": the disk took no data for 2 s'


def test_a_write_that_nobody_waits_for_closes_its_file(tmp_path):
    disk = record._Disk(tmp_path / "a.mp4")
    disk.is_abandoned = True
    disk.write(deque([record._Piece(b"abc", True, Fraction(1))]))
    assert disk._file is None
    assert (tmp_path / "a.mp4").read_bytes() == b"abc"
