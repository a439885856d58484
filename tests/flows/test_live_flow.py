"""`mashtun serve` as a whole process: real publishers, players, clients and pushes, and what none may do to others."""

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.flows.live import (
    PATIENCE,
    SMALL_DISK,
    Film,
    Player,
    Process,
    Server,
    deaf_client,
    heard,
    player_process,
    publisher,
    publishing,
    region,
    shoot,
    spectrum,
    stop,
    tone,
    until,
)
from tests.media import Audio, Video, encode, plane, read_cells, read_number

pytestmark = [pytest.mark.flow, pytest.mark.live]

NTSC = Fraction(30_000, 1001)


def shown(guid, **fields):
    return {"node": "VideoSourceNode", "streamGuid": guid, **fields}


def place(x, y, width, height):
    return {"destX": x, "destY": y, "destWidth": width, "destHeight": height}


def tree(*video, sound=()):
    """A RenderTree; sound: (guid, gain, pan)."""
    voices = [{"node": "AudioSourceNode", "streamGuid": guid, "gain": gain, "pan": pan} for guid, gain, pan in sound]
    return {
        "rootVideoNode": {"node": "CompositorNode", "nodes": list(video)},
        "rootAudioNode": {"node": "SumNode", "nodes": voices},
    }


def create(server, event, width, height, **fields):
    """An event that publishes live/EVENT."""
    body = {"path": "live", "streamName": event, "width": width, "height": height, "bitRate": 2_000_000, **fields}
    server.done("POST", f"/brewmixer/1.0/{event}", body)


def put(server, event, *trees):
    return server.done("PUT", f"/brewmixer/1.0/{event}", list(trees))["slot"]


def sources(server, event):
    return server.event(event)["subMixes"][0]["sources"]


def seen(server, event, count):
    """Whether so many sources of an event have been seen."""
    return sum(each["shown"] > 0 for each in sources(server, event).values()) >= count


def enter_all(stack, contexts):
    """Enters contexts at the same time; returns what they give."""
    contexts = list(contexts)
    with ThreadPoolExecutor(len(contexts)) as pool:
        return list(pool.map(stack.enter_context, contexts))


def free_port():
    """One that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("stage")) as server:
        yield server


# --- four publishers, one program, four ways out ----------------------------------------------------------------------

SECONDS = 14
FILMS = {
    "a": Film(1 << 12, (320, 180), Fraction(30), (100, 150), bframes=2, audio=Audio(hz=(400, 500))),
    "b": Film(2 << 12, (160, 90), Fraction(25), (150, 100), audio=Audio(rate=44_100, layout="mono", hz=(700,))),
    "c": Film(3 << 12, (214, 120), NTSC, (100, 100), (54, 30, 106, 60), audio=Audio(layout="mono", hz=(1100,))),
    "d": Film(4 << 12, (428, 240), Fraction(24), (160, 140), audio=Audio(rate=22_050, hz=(1700, 1900))),
}
QUARTERS = {"a": (0, 0, 160, 90), "b": (160, 0, 160, 90), "c": (0, 90, 160, 90), "d": (160, 90, 160, 90)}
MIRRORED, CROPPED = "b", "c"
GAINS = {"a": (-6, 0), "b": (-10, -100), "c": (-8, 50), "d": (-20, 0)}
OUTPUTS = ("rtmp", "flv", "hls", "recording")
OBSERVED = 3  # seconds


def quarters(frame):
    """The numbers in the four quarters, 0 where there is none, and the colours around the middle of each."""
    numbers, colours = [], []
    for name, rect in QUARTERS.items():
        luma = region(frame, *rect)
        numbers.append(read_number(luma[:, ::-1] if name == MIRRORED else luma) or 0)
        x, y, width, height = (side // 2 for side in rect)
        inside = np.s_[y + height // 4 : y + height * 3 // 4, x + width // 4 : x + width * 3 // 4]
        colours.append(tuple(float(plane(frame, n)[inside].mean()) for n in (1, 2)))
    return tuple(numbers), colours


def program():
    nodes = []
    for name, (x, y, width, height) in QUARTERS.items():
        fields = place(x, y, -width if name == MIRRORED else width, height)
        if name == CROPPED:
            fields |= dict(zip(("sourceX", "sourceY", "sourceWidth", "sourceHeight"), FILMS[name].window, strict=True))
        nodes.append(shown(f"live/{name}", **fields))
    return tree(*nodes, sound=[(f"live/{name}", *gain) for name, gain in GAINS.items()])


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    with ThreadPoolExecutor(2) as pool:
        made = {name: pool.submit(shoot, folder / f"{name}.flv", film, SECONDS) for name, film in FILMS.items()}
        beep = Audio(layout="mono", hz=(1000,), beep=Fraction(1, 30))
        flash = pool.submit(encode, folder / "flash.flv", Video(flash=True), beep, seconds=SECONDS)
        return {name: each.result() for name, each in made.items()} | {"flash": flash.result()}


class Aired:
    """What players saw of a program, and what the server counted meanwhile."""

    def __init__(self, server, films):
        publishers = [publishing(f"{server.rtmp}live/{name}", path) for name, path in films.items()]
        create(server, "show", 320, 180, latency=500)
        put(server, "show", program())
        create(server, "sync", 64, 36, latency=500)
        put(server, "sync", tree(shown("live/flash"), sound=[("live/flash", 0, 0)]))
        with ExitStack() as stack:
            enter_all(stack, publishers)
            self._watch(server)
            for event in ("show", "sync"):
                server.done("DELETE", f"/brewmixer/1.0/{event}")

    def _watch(self, server):
        until(lambda: seen(server, "show", 4) and seen(server, "sync", 1))
        server.ask("GET", "/live/show/init_0.mp4")  # begins to make HLS
        time.sleep(2)  # sources settle: until then they may jump a little
        self.before, self.sync_before = server.event("show"), sources(server, "sync")["live/flash"]
        live = {
            "rtmp": Player(server.rtmp + "live/show", quarters),
            "flv": Player(server.http + "live/show.flv", quarters),
            "hls": Player(server.http + "live/show/index.m3u8", quarters),
        }
        self.sync = {"rtmp": Player(server.rtmp + "live/sync", lambda frame: plane(frame).mean())}
        recordings = {event: server.done("POST", f"/streams/1.0/live/{event}/recordings") for event in ("show", "sync")}
        with live["rtmp"], live["flv"], live["hls"], self.sync["rtmp"]:
            begun = until(lambda: [each for at, each in live["rtmp"].pictures if at * 30 >= self.before["slots"]])
            goal = begun[0][0][0] + 30 * OBSERVED
            until(lambda: all(player.pictures and player.pictures[-1][1][0][0] >= goal for player in live.values()))
        self.after, self.sync_after = server.event("show"), sources(server, "sync")["live/flash"]
        for event, each in recordings.items():
            done = server.done("DELETE", f"/streams/1.0/live/{event}/recordings/{each['id']}")
            assert (done["state"], done["error"], done["dropped"]) == ("done", "", 0)
        files = {event: server.folder / "data" / "recordings" / each["file"] for event, each in recordings.items()}
        self.players = live | {"recording": Player(files["show"], quarters).play()}
        self.sync["recording"] = Player(files["sync"], lambda frame: plane(frame).mean()).play()

    def slots(self, output):
        """Slot → numbers of the four quarters, as an output showed them; those without a clock of their own are laid
        beside RTMP's, whose time stamps are the event's."""
        found = {round(at * 30): numbers for at, (numbers, _) in self.players[output].pictures}
        if output in ("rtmp", "flv"):
            return found
        places = {numbers: slot for slot, numbers in self.slots("rtmp").items()}
        first = next(slot for slot, numbers in found.items() if numbers in places)
        shift = places[found[first]] - first
        return {slot + shift: numbers for slot, numbers in found.items()}


@pytest.fixture(scope="module")
def aired(stage, films):
    return Aired(stage, films)


@pytest.mark.parametrize("output", OUTPUTS)
def test_every_output_shows_every_quarter_in_its_place(aired, output):
    pictures = aired.players[output].pictures[-30 * OBSERVED :]
    assert len(pictures) == 30 * OBSERVED
    for _, (numbers, colours) in pictures:
        assert [number >> 12 for number in numbers] == [1, 2, 3, 4]
        for colour, film in zip(colours, FILMS.values(), strict=True):
            assert colour == pytest.approx(film.colour, abs=4)


@pytest.mark.parametrize("output", OUTPUTS)
def test_every_output_shows_the_same_at_the_same_slot(aired, output):
    expected, found = aired.slots("rtmp"), aired.slots(output)
    both = expected.keys() & found.keys()
    assert len(both) >= 30
    assert [found[slot] for slot in sorted(both)] == [expected[slot] for slot in sorted(both)]


def counted(aired, *path):
    """By how much a counter of the event has grown from before to after."""
    numbers = []
    for status in (aired.before, aired.after):
        value = status["subMixes"][0]
        for name in path:
            value = value[name]
        numbers.append(value)
    return numbers[1] - numbers[0]


@pytest.mark.parametrize("output", OUTPUTS)
def test_slots_follow_each_other(aired, output):
    times = [at for at, _ in aired.players[output].pictures]
    assert times == sorted(times)
    slots = sorted(slot for slot in aired.slots(output) if slot >= aired.before["slots"])
    missing = slots[-1] - slots[0] + 1 - len(slots)
    assert missing <= counted(aired, "mixer", "lagged") + counted(aired, "encoder", "skipped")


@pytest.mark.parametrize("name", FILMS)
def test_every_picture_of_a_source_is_shown_in_its_turn(aired, name):
    """One more a slot, or as the rates have it; but for repeats and losses, which are counted."""
    place = list(FILMS).index(name)
    shown = [(slot, each[place]) for slot, each in sorted(aired.slots("recording").items())]
    shown = [(slot, number) for slot, number in shown if slot >= aired.before["slots"]]
    steps = [b - a for (_, a), (_, b) in pairwise(shown)]
    span = shown[-1][0] - shown[0][0]
    expected = span * FILMS[name].rate / 30
    held, dropped = (counted(aired, "sources", f"live/{name}", each) for each in ("held", "dropped"))
    assert min(steps) >= 0
    assert abs(sum(steps) - expected) <= 2
    assert steps.count(0) <= span - expected + 1 + held
    assert sum(step - 1 for step in steps if step > 1) <= dropped + held + span - len(steps)


def flaws(second):
    """The tones of the program that are not at their level in a second of sound, and whatever else is in it."""
    rest = spectrum(second)
    wrong = []
    for name, (gain, pan) in GAINS.items():
        hz = FILMS[name].audio.hz
        angle = np.pi / 4 * (1 + pan / 100)
        for channel, weight in enumerate((np.cos(angle), np.sin(angle))):
            amplitude = 0.5 * 10 ** (gain / 20) * weight * np.sqrt(2)
            pitch = hz[min(channel, len(hz) - 1)]
            if amplitude > 1e-6:
                off = 20 * np.log10(tone(second, 48_000, pitch)[channel] / amplitude)
                wrong += [(name, channel, off)] if abs(off) > 0.5 else []
                rest[channel][pitch - 40 : pitch + 41] = 0
    loudest = 20 * np.log10(rest[:, 100:].max())
    return wrong + ([("rest", loudest)] if loudest > -45 else [])


@pytest.mark.parametrize("output", OUTPUTS)
def test_every_output_has_every_tone_at_its_level_and_nothing_else(aired, output):
    """In every second, unless samples came too late, which is counted; then in one at least."""
    player = aired.players[output]
    assert player.rate == 48_000
    stop = player.sounds[-1][0]
    wrong = [flaws(heard(player, stop - n, stop - n + 1)) for n in range(1, OBSERVED + 1)]
    missing = sum(counted(aired, "sources", f"live/{name}", "missing") for name in FILMS)
    assert not all(wrong), wrong
    assert missing or not any(wrong), wrong


@pytest.mark.parametrize("output", ["rtmp", "recording"])
def test_picture_and_sound_are_together(aired, output):
    """Within a frame, but where its picture came too late to be shown at its slot, which is counted."""
    player = aired.sync[output]
    flashes = [at for at, mean in player.pictures if mean > 200]
    flashes = [at for n, at in enumerate(flashes) if n == 0 or at - flashes[n - 1] > Fraction(1, 2)]
    first, stop = player.sounds[0][0], player.sounds[-1][0]
    loud = np.abs(heard(player, first, stop)[0])
    loud = loud[: len(loud) // 48 * 48].reshape(-1, 48).max(axis=1) > 0.25
    beeps = [first + Fraction(int(n), 1000) for n in np.flatnonzero(np.diff(loud.astype(int)) == 1)]
    beeps = [at for n, at in enumerate(beeps) if n == 0 or at - beeps[n - 1] > Fraction(1, 2)]
    both = [(flash, beep) for flash in flashes for beep in beeps if abs(flash - beep) < Fraction(1, 2)]
    assert len(both) >= OBSERVED - 1
    apart = [float(flash - beep) for flash, beep in both if abs(flash - beep) > Fraction(1, 30)]
    late = sum(aired.sync_after[each] - aired.sync_before[each] for each in ("held", "dropped"))
    assert len(apart) <= min(late, len(both) // 2), apart


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fat(tmp_path_factory):
    """Two seconds of pictures in a stream that fills every buffer soon."""
    film = Film(size=(320, 180), window=(0, 0, 320, 36), audio=None, noise=True)
    return shoot(tmp_path_factory.mktemp("fat") / "fat.flv", film, 2)


def cells(frame):
    return read_cells(plane(frame))


@contextmanager
def recording(folder):
    """A server that records a mix of a counting pattern, the player of it, and the file."""
    with Server(folder) as server:
        server.done("PUT", "/streams/1.0/live/count", {"pattern": "count?size=320x180&rate=30"})
        create(server, "mix", 320, 180)
        put(server, "mix", tree(shown("live/count"), sound=[("live/count", 0, 0)]))
        until(lambda: seen(server, "mix", 1))
        started = server.done("POST", "/streams/1.0/live/mix/recordings")
        with Player(server.rtmp + "live/mix", cells) as player:
            yield server, player, server.folder / "data" / "recordings" / started["file"]


def recorded_ms(server):
    return server.streams()["live/mix"]["recordings"][0]["durationMs"]


def whole(path, player):
    """The pictures of a recording that has all its sound, and every picture that a player of the same stream got."""
    film = Player(path, cells).play()
    recorded, played = ({number: round(at * 30) for at, number in each.pictures} for each in (film, player))
    both = sorted(recorded.keys() & played.keys())[1:-1]  # but for a picture that is held where one of them begins
    assert len(both) >= 30
    assert [number for number in played if both[0] <= number <= both[-1]] == both
    assert len({played[number] - recorded[number] for number in both}) == 1  # each at its time
    heard(film, film.sounds[0][0], film.sounds[-1][0])
    assert abs(film.pictures[-1][0] - film.sounds[-1][0]) <= Fraction(1, 10)
    return [number for _, number in film.pictures]


def test_sigterm_ends_it_within_five_seconds_with_the_recording_whole(tmp_path, fat):
    """Also while a client takes nothing of what it asked for."""
    with (
        recording(tmp_path / "server") as (server, player, path),
        publishing(server.rtmp + "live/fat", fat, again=True),
    ):
        with deaf_client(server.port, "live/fat.flv"):
            until(lambda: recorded_ms(server) >= 2000)  # its buffers are full by then
            server.signal(signal.SIGTERM)
            assert server.wait(5) == 0
        player.wait()
        assert whole(path, player)[-1] >= player.pictures[-1][1]


# Nobody who only offers HTTP/2 gets it: a client that left in the middle of an answer kept its stream for ever.
UPGRADE = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
SMALL_WINDOW = b"HTTP2-Settings: AAQAAABk\r\n\r\n"  # 100 bytes
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5)  # with empty settings


@pytest.mark.parametrize(("asks", "status"), [(UPGRADE + SMALL_WINDOW, b"200"), (PREFACE, b"404")], ids=("h2c", "h2"))
def test_http_2_is_not_spoken_and_who_offers_it_does_not_keep_the_server(tmp_path, asks, status):
    with Server(tmp_path) as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
                client.sendall(asks)
                assert client.recv(12) == b"HTTP/1.1 " + status
        server.signal(signal.SIGTERM)
        assert server.wait(5) == 0


FEW = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 120))
"""


def test_viewers_leave_descriptors_to_cameras(tmp_path, fat):
    with Server(tmp_path, before=FEW) as server, ExitStack() as viewers:
        answers = []
        for _ in range(120):
            viewer = viewers.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE))
            viewer.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            with suppress(ConnectionError):
                answers.append(viewer.recv(12))
        assert [each for each in answers if each] == [b"HTTP/1.1 200"] * (120 // 3)
        with publishing(server.rtmp + "live/fat", fat):
            pass
        assert server.log.read_text().count("http: 40 connections, more are refused") == 1


def test_film_is_not_deflated_for_browsers(tmp_path):
    offer = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    offer += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    offer += b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    with Server(tmp_path) as server:
        server.done("PUT", "/streams/1.0/live/bars", {"pattern": "bars?size=64x36"})
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
            client.sendall(b"GET /live/bars.ws HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n")
            answer = client.makefile("rb")
            head = b"".join(iter(answer.readline, b"\r\n"))
            assert head.startswith(b"HTTP/1.1 101")
            assert b"permessage-deflate" not in head
            assert answer.read(1) == b"\x81"  # a text, as it is


def test_what_was_recorded_until_a_kill_plays(tmp_path):
    with recording(tmp_path / "server") as (server, player, path):
        until(lambda: recorded_ms(server) >= 1500)
        player.cut_off()
        server.signal(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        player.wait()
        assert whole(path, player)[-1] >= player.pictures[-1][1] - 33  # within its last second, and what was on its way


# --- trouble ----------------------------------------------------------------------------------------------------------

HELD = 1  # seconds: MASHTUN_PATIENCE
TILES = {"finished": (0, 0), "reset": (160, 0), "silent": (0, 90), "steady": (160, 90)}
GONE = ("finished", "reset", "silent")
TILE_HZ = dict(zip(TILES, (400, 700, 1100, 1700), strict=True))
AGAIN = 9  # what those who return show, <<12
TILE_FILMS = {
    name: (Film(n + 1 << 12, audio=Audio(layout="mono", hz=(hz,)), coder="fast"), 8 if name in GONE else 30)
    for n, (name, hz) in enumerate(TILE_HZ.items())
} | {"again": (Film(AGAIN << 12, audio=Audio(layout="mono"), coder="fast"), 8)}


def tiles(frame):
    return {name: read_number(region(frame, x, y, 160, 90)) for name, (x, y) in TILES.items()}


def fat_number(frame):
    return read_number(region(frame, 0, 0, 320, 36))


class Trouble:
    """Everything goes wrong at once for a dozen seconds, while two streams are recorded and one is played."""

    def __init__(self, folder, fat):
        with ThreadPoolExecutor(2) as pool:
            made = {name: pool.submit(shoot, folder / f"{name}.flv", *film) for name, film in TILE_FILMS.items()}
            self._films = {name: each.result() for name, each in made.items()} | {"fat": fat}
        with Server(folder / "server", MASHTUN_PATIENCE=str(HELD)) as self.server, ExitStack() as self._stack:
            self._begin()
            self._break()
            self._return()
            self._end()

    def _publishing(self, name, film):
        return publishing(f"{self.server.rtmp}live/{name}", self._films[film], again=True)

    def _begin(self):
        server = self.server
        self.urls = {name: f"rtmp://127.0.0.1:{free_port()}/live/{name}" for name in ("late", "hung")}
        self.hung_server = self._stack.enter_context(player_process(self.urls["hung"], "listen"))
        create(server, "show", 320, 180, latency=300)
        nodes = [shown(f"live/{name}", **place(x, y, 160, 90)) for name, (x, y) in TILES.items()]
        put(server, "show", tree(*nodes, sound=[(f"live/{name}", -6, 0) for name in TILES]))
        contexts = [self._publishing(name, name) for name in (*TILES, "fat")]
        self._publishers = dict(zip((*TILES, "fat"), enter_all(self._stack, contexts), strict=True))
        until(lambda: seen(server, "show", 4))
        self.player = self._stack.enter_context(Player(server.rtmp + "live/fat", fat_number))
        self.recordings = {
            name: server.done("POST", f"/streams/1.0/live/{name}/recordings") for name in ("show", "fat")
        }
        self.pushes = {"hung": self._push("fat", self.urls["hung"])}
        until(lambda: self.player.pictures)

    def _push(self, stream, url):
        return self.server.done("POST", f"/streams/1.0/live/{stream}/pushes", {"url": url})["id"]

    def _break(self):
        server, stack = self.server, self._stack
        stop(self._publishers["silent"])
        assert self.hung_server.line() == "on"
        stop(self.hung_server)
        stack.enter_context(deaf_client(server.port, "live/fat.flv"))
        hung = stack.enter_context(player_process(server.rtmp + "live/fat"))
        assert hung.line() == "on"
        stop(hung)
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        deaf_url = f"rtmp://127.0.0.1:{deaf.getsockname()[1]}/live/deaf"
        self.pushes |= {"deaf": self._push("fat", deaf_url), "late": self._push("show", self.urls["late"])}
        self.refused_push = until(lambda: (push := self.push("late"))["state"] == "retrying" and push)
        self._publishers["finished"].tell("finish")
        self._publishers["reset"].tell("reset")
        second = stack.enter_context(publisher(f"{server.rtmp}live/steady", self._films["again"]))
        self.second = second.line()
        self.listener = stack.enter_context(player_process(self.urls["late"], "listen"))

    def _return(self):
        time.sleep(HELD + 1)
        enter_all(self._stack, [self._publishing(name, "again") for name in ("finished", "reset")])
        until(lambda: self.server.streams()["live/silent"]["publisher"] is None)
        before = self._shown("silent")
        self._stack.enter_context(self._publishing("silent", "again"))
        until(lambda: self._shown("silent") >= before + 30)

    def _shown(self, name):
        return sources(self.server, "show")[f"live/{name}"]["shown"]

    def _end(self):
        server = self.server
        self.final = until(lambda: (fat := server.streams()["live/fat"])["readers"] <= 2 and fat)
        self.final_pushes = {name: self.push(name) for name in self.pushes}
        for name, each in self.recordings.items():
            self.recordings[name] = server.done("DELETE", f"/streams/1.0/live/{name}/recordings/{each['id']}")
        server.done("DELETE", "/brewmixer/1.0/show")
        self.listener_said = self.listener.line(), self.listener.line()
        files = {name: server.folder / "data" / "recordings" / each["file"] for name, each in self.recordings.items()}
        with Player(files["show"], tiles) as self.show, Player(files["fat"], fat_number) as self.fat:
            self.show.wait()
            self.fat.wait()

    def push(self, name):
        pushes = [push for stream in self.server.streams().values() for push in stream["pushes"]]
        return next(push for push in pushes if push["id"] == self.pushes[name])

    def tile(self, name):
        """(slot, number) of a tile in the recording; 0: black."""
        return [(round(at * 30), numbers[name]) for at, numbers in self.show.pictures]


@pytest.fixture(scope="module")
def trouble(tmp_path_factory, fat):
    return Trouble(tmp_path_factory.mktemp("trouble"), fat)


@pytest.mark.parametrize("name", GONE)
def test_a_publisher_that_is_gone_is_held_for_the_patience_and_then_not_drawn(trouble, name):
    slots = trouble.tile(name)
    last = max(number for _, number in slots if number and number < AGAIN << 12)
    began = last + min(slot - number for slot, number in slots if last - 15 <= number <= last)  # had none come late
    black = next(slot for slot, number in slots if slot > began and number == 0)
    assert black - began == pytest.approx(30 * HELD + 1, abs=2)
    sounding = heard(trouble.show, Fraction(began + 6, 30), Fraction(black - 1, 30))
    assert tone(sounding, 48_000, TILE_HZ[name])[0] < 0.002
    assert tone(sounding, 48_000, TILE_HZ["steady"])[0] == pytest.approx(0.25, rel=0.06)


@pytest.mark.parametrize("name", GONE)
def test_a_publisher_that_returns_is_shown_within_a_group_of_pictures(trouble, name):
    again = [number - (AGAIN << 12) for _, number in trouble.tile(name) if number >= AGAIN << 12][:60]
    assert again[0] < 30
    assert again == sorted(again)
    assert len(again) >= 20
    assert len(set(again)) >= 0.9 * len(again)


def test_a_second_publisher_of_a_name_is_refused_and_the_first_unharmed(trouble):
    assert trouble.second.startswith("failed")
    slots = trouble.tile("steady")
    slots = slots[next(n for n, (_, number) in enumerate(slots) if number) :]
    numbers = [number for _, number in slots]
    assert {number >> 12 for number in numbers} == {4}
    assert numbers == sorted(numbers)
    first, last = (min(slot - number for slot, number in part) for part in (slots[:90], slots[-90:]))
    assert abs(last - first) <= 2  # but for those that came late


def test_peers_that_hang_cost_others_nothing(trouble):
    """A player that stopped, an HTTP client that reads nothing, servers of pushes that read nothing or stopped."""
    for film in (trouble.fat, trouble.player):
        numbers = [number for _, number in film.pictures]
        assert len(numbers) >= 300
        assert all((b - a) % 60 == 1 for a, b in pairwise(numbers))
    assert [(each["state"], each["dropped"]) for each in trouble.recordings.values()] == [("done", 0)] * 2
    assert trouble.recordings["show"]["error"] == trouble.recordings["fat"]["error"] == ""


def test_peers_that_hang_are_let_go(trouble):
    assert trouble.final["readers"] == 2  # the recording, and the player that plays


def test_a_push_goes_on_trying(trouble):
    """Where nobody listens yet; where somebody listens and does not answer; where the server hangs later."""
    assert "refused" in trouble.refused_push["error"]
    late, deaf, hung = (trouble.final_pushes[name] for name in ("late", "deaf", "hung"))
    assert (late["state"], late["error"], late["connects"], late["dropped"]) == ("pushing", "", 1, 0)
    assert trouble.listener_said[0] == "on"
    assert int(trouble.listener_said[1].removeprefix("over ")) > 100  # packets
    assert deaf["state"] in ("retrying", "connecting")
    assert "did not answer within 5 s" in deaf["error"]
    assert deaf["connects"] == 0
    assert hung["state"] in ("retrying", "connecting")
    assert hung["connects"] == 1
    assert hung["bytes"] > 0


# --- habits of the vendor's pages -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def count(stage):
    """The name of a stream that counts."""
    stage.done("PUT", "/streams/1.0/live/count", {"pattern": "count?size=320x180&rate=30"})
    return "live/count"


def test_a_page_of_the_vendor_gets_what_it_expects(stage, count):
    """Numbers as strings and with fractions, fields that nobody knows, a PUT at once, streams that are not there."""
    body = {"event": "page", "path": "live", "streamName": "page", "width": "320", "height": "180", "frameRate": "30"}
    body |= {"bitRate": "1000000", "subMixes": "1", "doForward": False, "streamType": "mix"}
    assert stage.ask("POST", "/brewmixer/1.0/page", body)[0] == 201
    nodes = [
        {"node": "SolidColorNode", "red": "1", "green": 0, "blue": 0, "alpha": 1},
        shown("live/stream1", destX="0", destY="0", destWidth="320", destHeight="180"),
        shown(count, sourceX="0", sourceWidth=-1, **{key: str(at) for key, at in place(159.6, 0, 160.2, 90).items()}),
        shown("live/stream2", destX=10, destY=10, destWidth=100, destHeight=50),
    ]
    sound = [("live/stream1", "0", "0"), (count, "-6.0", 0), ("live/stream2", -100, -100)]
    status, answer = stage.ask("PUT", "/brewmixer/1.0/page", {"rootNodes": [tree(*nodes, sound=sound)]})
    assert (status, list(answer)) == (200, ["slot"])
    assert stage.streams()["live/page"]["publisher"] == "mix"
    with Player(stage.rtmp + "live/page", page_picture, seconds=2) as player:
        player.wait()
    (first, _), (last, colours) = player.pictures[0][1], player.pictures[-1][1]
    assert 30 <= last - first <= 70
    assert colours == pytest.approx((63, 102, 240), abs=6)  # red in Y'CbCr: nothing lies on it
    stage.done("DELETE", "/brewmixer/1.0/page")


def page_picture(frame):
    corner = (np.s_[20:60, 20:140], np.s_[10:30, 10:70], np.s_[10:30, 10:70])
    colours = tuple(float(plane(frame, n)[part].mean()) for n, part in enumerate(corner))
    return read_cells(region(frame, 160, 0, 160, 90)), colours


FLOOD = 200  # PUTs of each of four clients


def dragged(count, n):
    """The body of the n-th PUT of somebody who drags a source."""
    node = shown(count, **place(n % 160, n % 90, 160, 90))
    return json.dumps({"rootNodes": [tree(node, sound=[(count, -(n % 30), n % 200 - 100)])]}).encode()


@contextmanager
def lag(server, event):
    """A list that gets at the end the share of the event's slots that lagged meanwhile."""
    before, shares = server.event(event), []
    yield shares
    after = server.event(event)
    slots = after["slots"] - before["slots"]
    mixers = [each["subMixes"][0]["mixer"] for each in (before, after)]
    lagged, mixed = (mixers[1][counter] - mixers[0][counter] for counter in ("lagged", "mixed"))
    # All are accounted for, but for those of the latency that are just being mixed, of which none is counted yet.
    assert abs(slots - lagged - mixed) <= 10
    shares.append(lagged / slots)


def drag_and_flood(stage, path, count):
    """Shares of lagged slots in quiet, while a source is dragged, and while four clients do so as fast as they can."""
    with lag(stage, "drag") as quiet:
        time.sleep(1.5)
    with lag(stage, "drag") as drag:
        for n in range(20):  # ten a second
            assert stage.ask("PUT", path, dragged(count, n))[0] == 200
            time.sleep(0.1)
    with lag(stage, "drag") as flood, ThreadPoolExecutor(4) as pool:
        answered = 0
        floods = [pool.submit(send_puts, stage.port, path, count) for _ in range(4)]
        while not all(each.done() for each in floods):
            assert stage.ask("GET", "/status")[0] == 200
            answered += 1
        for each in floods:
            each.result()
    assert answered >= FLOOD / 20  # nobody waits for the end of the flood
    return *quiet, *drag, *flood


def test_a_flood_of_puts_does_not_hurt_the_mix(stage, count):
    create(stage, "drag", 320, 180)
    path = "/brewmixer/1.0/drag"
    assert stage.ask("PUT", path, dragged(count, 0))[0] == 200
    until(lambda: seen(stage, "drag", 1))

    rounds = []
    for _ in range(8):  # others use this machine too, but hardly always in the drag or the flood alone
        quiet, drag, flood = drag_and_flood(stage, path, count)
        rounds.append((quiet, drag, flood))
        if max(drag, flood) <= quiet + 0.1:
            break
    else:
        pytest.fail(f"shares of lagged slots in quiet, drag and flood: {rounds}")
    put(stage, "drag", tree(shown(count)))
    with Player(stage.rtmp + "live/drag", cells) as player:
        until(lambda: rises([number for _, number in player.pictures[-15:]]))
    stage.done("DELETE", path)


def rises(numbers):
    return len(numbers) > 10 and all(0 < b - a < 5 for a, b in pairwise(numbers))


def send_puts(port, path, count):
    """Sends them one after the other over one connection."""
    bodies = [dragged(count, n) for n in range(100)]
    head = f"PUT {path} HTTP/1.1\r\nHost: mashtun\r\nContent-Type: application/json\r\nContent-Length: "
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        for n in range(FLOOD):
            client.sendall(requests[n % len(requests)])
            answer = b""
            while not answer.endswith(b"}"):
                answer += client.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 "), answer


# --- a full disk, and who may come in ---------------------------------------------------------------------------------

FULL = 500_000  # bytes; the database of jobs takes the half of it
USER = {"MASHTUN_USERNAME": "master", "MASHTUN_PASSWORD": "brüh", "MASHTUN_PUBLISH_KEY": "sesame"}


def basic(name, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    before = SMALL_DISK.format(data=str(folder / "data"), size=FULL)
    with Server(folder, before=before, **USER) as server:
        server.headers |= basic("master", "brüh")
        yield server


def test_a_full_disk_ends_the_recording_and_not_the_mix(guarded, fat):
    create(guarded, "mix", 320, 180, bitRate=600_000)
    put(guarded, "mix", tree(shown("live/fat")))
    with (
        publishing(f"{guarded.rtmp}live/fat?key=sesame", fat, again=True),
        Player(guarded.rtmp + "live/mix", fat_number) as player,
    ):
        until(lambda: seen(guarded, "mix", 1) and player.pictures)
        guarded.done("POST", "/streams/1.0/live/mix/recordings")
        failed = until(lambda: (each := guarded.streams()["live/mix"]["recordings"][0])["state"] == "failed" and each)
        at, _ = player.pictures[-1]
        until(lambda: player.pictures[-1][0] > at + 1)
        assert len({number for time, number in player.pictures if time > at}) > 15  # and it moves
    assert failed["file"] in failed["error"]
    assert "space" in failed["error"] or "too large" in failed["error"]
    assert 0 < failed["bytes"] <= FULL
    status, data = guarded.ask("GET", f"/recordings/{failed['file']}")
    assert status == 200
    film = Player(io.BytesIO(data), fat_number).play()
    (first, _), *_, (last, _) = film.pictures
    assert (last - first) * 1000 == pytest.approx(failed["durationMs"], abs=67)  # two pictures
    slots = [round(at * 30) for at, _ in player.pictures]
    mixer = guarded.event("mix")["subMixes"][0]
    assert slots[-1] - slots[0] + 1 - len(slots) <= mixer["mixer"]["lagged"] + mixer["encoder"]["skipped"]


@pytest.mark.parametrize("wrong", [{}, basic("master", "x"), basic("x", "brüh"), {"Authorization": "Bearer brüh"}])
def test_nobody_comes_in_without_the_password(guarded, wrong):
    for method, path in (
        ("GET", "/status"),
        ("POST", "/brewmixer/1.0/x"),
        ("PUT", "/streams/1.0/live/x"),
        ("GET", "/"),
    ):
        status, answer = guarded.ask(method, path, {}, headers=wrong)
        assert status == 401
        assert "password" in answer["error"]
    assert guarded.ask("GET", "/status")[0] == 200


def test_health_and_playback_are_open(guarded):
    assert guarded.ask("GET", "/healthz", headers={})[0] == 200
    assert guarded.ask("GET", "/live/nothing.flv", headers={})[0] == 404


def test_a_container_is_healthy_also_where_there_is_a_proxy_for_everything_else(guarded):
    dockerfile = Path(__file__).parents[2].joinpath("Dockerfile").read_text()
    words = json.loads(re.search(r"^HEALTHCHECK .*?CMD (\[.*?\])$", dockerfile, re.DOTALL | re.MULTILINE)[1])
    proxy = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}
    check = partial(subprocess.run, [sys.executable, *words[1:]], capture_output=True, timeout=PATIENCE)
    assert check(env=os.environ | proxy | {"MASHTUN_PORT": str(guarded.port)}).returncode == 0
    elsewhere = check(env=os.environ | {"MASHTUN_PORT": "1"})
    assert b"refused" in elsewhere.stderr
    for host, healthy in (("127.0.0.1", True), ("0.0.0.0", True), ("::", True), ("127.0.0.2", False), ("::1", False)):
        asked = check(env=os.environ | {"MASHTUN_PORT": str(guarded.port), "MASHTUN_HOST": host})
        assert (asked.returncode == 0) is healthy, host
    linked = check(env=os.environ | {"MASHTUN_PORT": "tcp://10.0.0.1:1"})  # by Kubernetes, to a service of our name
    assert b"refused" in linked.stderr or linked.returncode == 0


def test_a_publisher_needs_the_key(guarded, fat):
    for query in ("", "?key=x", "?kez=sesame"):
        with publisher(f"{guarded.rtmp}live/cam{query}", fat) as process:
            assert process.line().startswith("failed")
    with publishing(f"{guarded.rtmp}live/cam?key=sesame", fat):
        assert until(lambda: guarded.streams()["live/cam"]["publisher"]) == "rtmp"


def test_it_does_not_listen_to_everybody_without_a_password(tmp_path):
    arguments = ["-m", "api", "serve", "--host", "0.0.0.0", "--port", 0, "--rtmp-port", 0, "--data", tmp_path / "data"]
    with (tmp_path / "log").open("wb") as log, Process(*arguments, log=log) as process:
        assert process.line() == ""
        assert process.wait() == 1
    sentence = (tmp_path / "log").read_text()
    assert sentence.startswith("mashtun: ")
    assert sentence.count("\n") == 1
    for word in ("0.0.0.0", "username", "password"):
        assert word in sentence
