"""What tests of a whole live server are made with: its process, publishers and other peers as processes, players, HTTP.

It decides how peers behave, well or badly, and what is read from pictures and sound; it knows nothing of the engine but
its addresses. Peers speak through PyAV, in processes of their own: they can be stopped, and die as a real one does.
"""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

from tests.media import TONE, Audio, paint_number, plane, sound

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60  # seconds for anything that does happen, also on a machine that has much else to do

# Every peer does what a line on its standard input says, and ends when the test does.
PEER = """
import av, os, socket, stat, struct, sys, threading, time

def obey():
    word = sys.stdin.readline().strip()
    descriptors = [each for each in range(3, 100) if os.path.exists(f"/proc/self/fd/{each}")]
    for each in descriptors:
        if stat.S_ISSOCK(os.fstat(each).st_mode):
            sock = socket.socket(fileno=each)
            if word == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif word == "finish":
                sock.shutdown(socket.SHUT_WR)
            sock.detach()
    os._exit(0)

def say(*words):
    print(*words, flush=True)

threading.Thread(target=obey, daemon=True).start()
url, *rest = sys.argv[1:]
try:
    WORK
except (av.error.FFmpegError, OSError) as err:
    say("failed", err)
    os._exit(1)
os._exit(0)
"""

# A film in real time to an RTMP server, its packets as they are. "again": over and over.
PUBLISH = """
    path, again = rest
    output = av.open(url, "w", format="flv", options={"flush_packets": "1"}, timeout=10)
    begin, shift, tracks = None, 0, {}
    while True:
        with av.open(path) as film:
            tracks = tracks or {each.index: output.add_stream_from_template(each) for each in film.streams}
            if begin is None:
                output.start_encoding()
                say("on")
            end = 0
            for packet in film.demux():
                if packet.dts is None:
                    continue
                at = float(packet.dts * packet.time_base) + shift
                end = at + float(packet.duration * packet.time_base)
                begin = time.monotonic() - at if begin is None else begin
                time.sleep(max(0, begin + at - time.monotonic()))
                packet.stream = tracks[packet.stream_index]
                units = round(shift / packet.time_base)
                packet.dts, packet.pts = packet.dts + units, packet.pts + units
                output.mux(packet)
        if not again:
            break
        shift = end
    output.close()
    say("over")
"""

# Reads a stream, or waits for a publisher as a server ("listen"); says so at the first packet and at the end.
PLAY = """
    options = {"analyzeduration": "500000"} | dict.fromkeys(rest, "1")
    with av.open(url, format="flv", options=options) as film:
        count = 0
        try:
            for packet in film.demux():
                count += bool(packet.size)
                if count == 1:
                    say("on")
        except OSError:
            pass  # so libav's server calls it when a publisher has ended
    say("over", count)
"""

# A small disk in a mount namespace of the server's own, and in one of users where root is not who begins; where that is
# not allowed, a limit on the size of a file.
SMALL_DISK = """
import ctypes, os, resource
libc = ctypes.CDLL(None)
user, group = os.getuid(), os.getgid()
os.mkdir({data!r})
NEWNS, NEWUSER, REC_PRIVATE = 0x20000, 0x10000000, 0x4000 | 0x40000
try:
    mounted = libc.unshare(NEWNS | (NEWUSER if user else 0)) == 0
    if mounted and user:
        lines = ("setgroups", "deny"), ("uid_map", f"{{user}} {{user}} 1"), ("gid_map", f"{{group}} {{group}} 1")
        for kind, line in lines:
            with open("/proc/self/" + kind, "w") as file:
                file.write(line)
except OSError:
    mounted = False
mounted = mounted and libc.mount(b"none", b"/", None, REC_PRIVATE, None) == 0
mounted = mounted and libc.mount(b"tmpfs", {data!r}.encode(), b"tmpfs", 0, b"size={size}") == 0
if not mounted:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))
"""


def can_mount():
    """Whether a process here may have a small disk."""
    with TemporaryDirectory() as folder:
        script = SMALL_DISK.format(data=f"{folder}/disk", size=1 << 20) + "raise SystemExit(not mounted)"
        return subprocess.run([sys.executable, "-c", script]).returncode == 0


def environment(**variables):
    """Ours, without settings of a server, and with these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MASHTUN_")}
    return clean | {"PYTHONPATH": str(ROOT)} | variables


class Process:
    """A child that speaks in lines; killed at the latest at the end of the context."""

    def __init__(self, *command, log=subprocess.DEVNULL, **variables):
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=environment(**variables), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(PATIENCE)
        self.process.stdin.close()
        self.process.stdout.close()

    def line(self, seconds=PATIENCE):
        """The next line it says; "" when it has ended."""
        watch = threading.Timer(seconds, self.process.kill)
        watch.start()
        try:
            return self.process.stdout.readline().strip()
        finally:
            watch.cancel()

    def tell(self, word):
        os.write(self.process.stdin.fileno(), f"{word}\n".encode())

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=PATIENCE):
        """Its exit code."""
        return self.process.wait(seconds)


def peer(work, *arguments):
    return Process("-c", PEER.replace("    WORK\n", work), *arguments)


def publisher(url, path, *, again=False):
    """Publishes a film; says "on" once it is let in."""
    return peer(PUBLISH, url, path, "again" if again else "")


@contextmanager
def publishing(url, path, **options):
    with publisher(url, path, **options) as process:
        assert process.line() == "on"
        yield process


def player_process(url, *how):
    """Plays a stream and says "on" at its first packet, "over" at its end; how: "listen" for a publisher instead."""
    return peer(PLAY, url, *how)


class Server(Process):
    """``mashtun serve`` on free ports, its data in a folder. `before` is code that its process runs first.

    Ended well, the context is left with a look into the server's log: nothing in it may be a bug.
    """

    def __init__(self, folder, *, before="", **variables):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.log = folder, folder / "server.log"
        self.headers = {"Content-Type": "application/json"}
        command = ["-m", "api", "serve", "--port", 0, "--rtmp-port", 0, "--data", folder / "data"]
        then = "import os, sys; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        with self.log.open("wb") as log:
            super().__init__("-c", f"{before}\n{then}", *command, log=log, **variables)
        announced = self.line()
        found = re.fullmatch(r"mashtun: (http://127\.0\.0\.1:(\d+)/), (rtmp://127\.0\.0\.1:\d+/)", announced)
        if not found:
            super().__exit__()
            raise AssertionError(f"the server said {announced!r}\n{self.log.read_text()}")
        self.http, self.port, self.rtmp = found[1], int(found[2]), found[3]

    def __exit__(self, kind=None, *_):
        super().__exit__()
        if kind is None:
            assert "Traceback" not in self.log.read_text()

    def ask(self, method, path, body=None, *, headers=None):
        """Status and answer: JSON as what it says, anything else as bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, data, self.headers if headers is None else headers)
            response = connection.getresponse()
            answer = response.read()
            is_json = response.headers.get_content_type() == "application/json"
            return response.status, json.loads(answer) if is_json and answer else answer
        finally:
            connection.close()

    def done(self, method, path, body=None):
        """The answer of a request that succeeds."""
        status, answer = self.ask(method, path, body)
        assert status in (200, 201), (status, answer)
        return answer

    def event(self, name):
        """Its part of the status."""
        return next(each for each in self.done("GET", "/status")["events"] if each["name"] == name)

    def streams(self):
        """All of them, by name."""
        return {each["name"]: each for each in self.done("GET", "/streams/1.0/")}


def until(true, seconds=PATIENCE):
    """What a condition gives once it gives something."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"nothing within {seconds} s"
        time.sleep(0.05)
    return found


# --- films -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Film:
    """What a publisher sends: pictures numbered from `base` on within `window` (x, y, width, height; None: everywhere),
    grey around it, of one colour; a tone for each channel."""

    base: int = 1
    size: tuple[int, int] = (64, 36)
    rate: Fraction = Fraction(30)
    colour: tuple[int, int] = (128, 128)  # Cb, Cr
    window: tuple[int, int, int, int] | None = None
    bframes: int = 0
    audio: Audio | None = TONE
    coder: str = "twoloop"  # "fast" takes half the time, and some tones waver by half a dB
    noise: bool = False  # below the number: bytes that no encoder can save


def shoot(path, film, seconds):
    """Makes a film as an FLV file."""
    rng = np.random.default_rng(7)
    audio = film.audio
    with av.open(str(path), "w", format="flv") as container:
        pictures = picture_stream(container, film)
        # As exact as it can: its tricks with two channels are heard as a tone that wavers.
        exact = {"b": "192k", "aac_coder": film.coder, "aac_ms": "0", "aac_is": "0", "aac_pns": "0"}
        sounds = container.add_stream("aac", rate=audio.rate, layout=audio.layout, options=exact) if audio else None
        frame = av.VideoFrame(*film.size, "yuv420p")
        for index, level in enumerate((128, *film.colour)):
            plane(frame, index)[...] = level
        for second in range(seconds):
            for n in range(int(second * film.rate), int((second + 1) * film.rate)):
                luma = plane(frame)
                if film.noise:
                    luma[...] = rng.integers(16, 236, luma.shape)
                paint_number(luma if film.window is None else region(frame, *film.window), film.base + n)
                frame.pts, frame.time_base = n, 1 / film.rate
                container.mux(pictures.encode(frame))
            if sounds:
                samples = sound(audio, second * audio.rate, (second + 1) * audio.rate)
                block = av.AudioFrame.from_ndarray(samples, "fltp", audio.layout)
                block.rate, block.time_base, block.pts = audio.rate, Fraction(1, audio.rate), second * audio.rate
                container.mux(sounds.encode(block))
        for stream in filter(None, (pictures, sounds)):
            container.mux(stream.encode(None))
    return path


def picture_stream(container, film):
    options = {"preset": "ultrafast", "crf": "18", "sc_threshold": "0"}
    stream = container.add_stream("libx264", rate=film.rate, options=options)
    context = stream.codec_context
    context.width, context.height = film.size
    context.pix_fmt, context.time_base = "yuv420p", 1 / film.rate
    context.gop_size, context.max_b_frames, context.thread_count = round(film.rate), film.bframes, 1
    context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1  # BT.709, limited
    return stream


# --- players ---------------------------------------------------------------------------------------------------------


class Player:
    """Plays a URL or a file: `pictures` are (s, look(frame)), `sounds` (s, samples (C, n)) at `rate` Hz.

    seconds  of pictures after which it stops by itself.
    """

    def __init__(self, url, look, *, seconds=None):
        self.pictures, self.sounds, self.rate = [], [], 0
        self._url, self._look, self._seconds = url, look, seconds
        self._stopping, self._may_break, self._error = False, False, None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self._stopping = True
        self._thread.join(PATIENCE)
        if kind is None:
            self.check()

    def play(self):
        """All of it, in this thread."""
        self._run()
        self.check()
        return self

    def wait(self, seconds=PATIENCE):
        """For its end."""
        self._thread.join(seconds)
        self.check()
        return self

    def cut_off(self):
        """From now on its connection may break."""
        self._may_break = True

    def check(self):
        assert not self._thread.is_alive(), f"{self._url} still plays"
        if self._error is not None:
            raise self._error

    def _run(self):
        try:
            # A stream without sound would be waited for until a second of it was read, and for five by default.
            url = str(self._url) if isinstance(self._url, Path) else self._url
            with av.open(url, timeout=PATIENCE, options={"analyzeduration": "1000000"}) as container:
                self._play(container)
        except Exception as err:  # noqa: BLE001 – raised again by check
            if not (self._stopping or self._may_break):
                self._error = err

    def _play(self, container):
        for packet in container.demux():
            for frame in packet.decode():
                at = frame.pts * frame.time_base
                if isinstance(frame, av.VideoFrame):
                    self.pictures.append((at, self._look(frame)))
                else:
                    self.rate = frame.sample_rate
                    self.sounds.append((at, frame.to_ndarray()))
            played = self.pictures[-1][0] - self.pictures[0][0] if self.pictures else 0
            if self._stopping or (self._seconds and played >= self._seconds):
                return


def heard(player, start, stop):
    """The samples (C, n) of [start, stop) s, which must be whole."""
    first = player.sounds[0][0]
    blocks = [block for _, block in player.sounds]
    count = 0
    for at, block in player.sounds:
        assert abs(at - first - Fraction(count, player.rate)) < Fraction(1, 100), f"sound has a hole at {float(at)} s"
        count += block.shape[1]
    samples = np.concatenate(blocks, axis=1)
    begin, end = (round((t - first) * player.rate) for t in (start, stop))
    assert 0 <= begin < end <= samples.shape[1]
    return samples[:, begin:end]


def spectrum(samples):
    """Amplitudes (C, Hz × seconds) of sound."""
    window = np.blackman(samples.shape[1])
    return np.abs(np.fft.rfft(samples * window)) / window.sum() * 2


def tone(samples, rate, hz):
    """Amplitudes (C,) of a tone that may waver by a percent: to stay in step, a source is stretched by half of it."""
    seconds = samples.shape[1] / rate
    near = slice(round((hz * 0.99 - 10) * seconds), round((hz * 1.01 + 10) * seconds) + 1)
    return np.sqrt(np.square(spectrum(samples)[:, near]).sum(axis=1) / 1.7268)  # Blackman's noise bandwidth in bins


def region(frame, x, y, width, height):
    """A part of the luma of a picture."""
    return plane(frame)[y : y + height, x : x + width]


def stop(process):
    """Stops a process where it is, as a peer that hangs."""
    process.signal(signal.SIGSTOP)


def deaf_client(port, path):
    """A connection that asks for something over HTTP, and reads nothing of it."""
    client = socket.create_connection(("127.0.0.1", port), PATIENCE)
    client.sendall(f"GET /{path} HTTP/1.1\r\nHost: mashtun\r\n\r\n".encode())
    return client
