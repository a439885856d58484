"""A server under test and those around it: its process, its API, who pushes to it and who watches its mix.

Pictures that carry their number and the time at which each was sent and seen tell how long they took. What is to be
measured, and what is good, is `live`'s business.
"""

import http.client
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import av
import numpy as np

from bench import measure
from bench.measure import RunError

FPS = 30
CELLS = 16  # black and white, most significant bit first, in two rows along the bottom
GREY, BLACK, WHITE = 128, 16, 235
LEAD = 1  # slots that the first picture is behind time stamp 0, so that AAC's run-up has one that is not negative
TICK = os.sysconf("SC_CLK_TCK")
PATIENCE = 20.0  # seconds for anything to begin


class Usage(NamedTuple):
    """What a process has used up to a moment: wall and CPU seconds; its resident size now, in bytes."""

    wall: float
    cpu: float
    rss_bytes: int


class Checked(Protocol):
    """Something that should be going on."""

    def check(self) -> None:
        """Raises RunError when it is not."""


class Child:
    """A process that runs until `stop`; a context manager.

    heard  gets each line of stdout, in a thread of its own; without it stdout is only kept for an error's sentence.
    """

    def __init__(self, *argv: str, heard: Callable[[str], None] | None = None) -> None:
        self._name = Path(argv[0]).name
        self._log = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 – closed by stop
        out = subprocess.PIPE if heard else self._log
        self._process = subprocess.Popen(
            argv, cwd=measure.ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=self._log, text=True
        )
        self._listening = threading.Thread(target=self._listen, args=[heard], daemon=True)
        self._listening.start()

    def _listen(self, heard: Callable[[str], None] | None) -> None:
        for line in self._process.stdout or ():
            assert heard is not None
            heard(line)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask it to end, and make it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listening.join()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def check(self) -> None:
        """Raises RunError when it has ended."""
        code = self._process.poll()
        if code is not None:
            self._log.seek(0)
            raise RunError(f"{self._name} ended, exit status {code}: {measure.last_line(self._log.read())}")

    def usage(self) -> Usage:
        """What it has used so far. Raises RunError when it has ended."""
        self.check()
        place = Path(f"/proc/{self._process.pid}")
        times = (place / "stat").read_text().rpartition(")")[2].split()[11:13]
        resident = int((place / "statm").read_text().split()[1])
        return Usage(time.monotonic(), sum(map(int, times)) / TICK, resident * os.sysconf("SC_PAGE_SIZE"))


class Server:
    """A `mashtun serve` of its own on free ports; a context manager.

    options  of its command line, besides.
    http     host and port of its API.
    rtmp     where to push to and read from, without the slash and the stream's name.
    child    its process.
    """

    def __init__(self, *options: str) -> None:
        self.http = self.rtmp = ""
        self._options = options
        self._stack = ExitStack()

    def __enter__(self) -> "Server":
        announced: list[str] = []
        with ExitStack() as stack:
            data = stack.enter_context(tempfile.TemporaryDirectory(prefix="mashtun-bench-"))
            argv = (sys.executable, "-m", "api.__main__", "serve", "--port", "0", "--rtmp-port", "0", "--data", data)
            argv += self._options
            self.child = stack.enter_context(Child(*argv, heard=announced.append))
            wait_for(lambda: announced, "the server's start", alive=[self.child])
            found = re.search(r"http://([^/]+)/, (rtmp://[^/]+)/", announced[0])
            if found is None:
                raise RunError(f"no addresses in {announced[0]!r}")
            self.http, self.rtmp = found.groups()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The answer's JSON; None when it is empty. Raises RunError."""
        sent = None if body is None else json.dumps(body)
        try:
            with closing(http.client.HTTPConnection(self.http, timeout=PATIENCE)) as door:
                door.request(method, path, sent, {"Content-Type": "application/json"})
                answer = door.getresponse()
                text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.child.check()
            raise RunError(f"{method} {path}: {error!r}") from error
        if answer.status >= 300:
            raise RunError(f"{method} {path}: {answer.status} {text[:200]!r}")
        return json.loads(text) if text else None

    def create(self, *, width: int, height: int, bit_rate: int, latency: int | None = None) -> None:
        """The event of which all else here speaks; it publishes `live/mix`. latency: ms, None: what events have."""
        stream: dict[str, object] = {"path": "live", "streamName": "mix", "width": width, "height": height}
        stream |= {} if latency is None else {"latency": latency}
        self.ask("POST", "/brewmixer/2.0/mixers/bench", {**stream, "frameRate": FPS, "bitRate": bit_rate})

    def put(self, pictures: Sequence[dict[str, object]], sounds: Sequence[dict[str, object]] = ()) -> int:
        """Show these nodes from the next slot on; the number of that slot."""
        tree = {
            "rootVideoNode": {"node": "CompositorNode", "nodes": pictures},
            "rootAudioNode": {"node": "SumNode", "nodes": sounds},
        }
        answer: dict[str, int] = self.ask("PUT", "/brewmixer/2.0/mixers/bench", [tree])
        return answer["slot"]

    def event(self) -> Any:
        """The event's state, as in /status. Raises RunError when it is not on air."""
        status = self.ask("GET", "/status")["events"][0]
        if status["state"] != "on air":
            raise RunError(f"the event is {status['state']} {status['error']}".strip())
        return status


class Camera:
    """Pushes pictures that carry their number in real time, until `stop`; a context manager.

    sent  number → when the picture was handed over, monotonic seconds.
    """

    def __init__(self, url: str, *, width: int, height: int) -> None:
        self.sent: dict[int, float] = {}
        self._url = url
        self._size = width, height
        self._thread = _Thread(self._push)

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.stop()

    def _push(self, stopping: threading.Event) -> None:
        picture = np.full((self._size[1] * 3 // 2, self._size[0]), GREY, np.uint8)
        x264 = {"preset": "ultrafast", "tune": "zerolatency", "g": str(2 * FPS), "sc_threshold": "0"}
        # libav would gather pictures in its own buffer
        with av.open(self._url, "w", format="flv", options={"flush_packets": "1"}) as out:
            stream = out.add_stream("libx264", rate=FPS, options=x264)
            stream.width, stream.height = self._size
            stream.pix_fmt = "yuv420p"
            stream.bit_rate = 2_000_000
            began = time.monotonic()
            for n in itertools.count():
                if stopping.wait(max(0.0, began + n / FPS - time.monotonic())):
                    return
                _paint(picture[: self._size[1]], n)
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")):
                    self.sent[n & 0xFFFF] = time.monotonic()
                    out.mux(packet)

    def check(self) -> None:
        """Raises RunError when it could not push."""
        self._thread.check()


class Sight(NamedTuple):
    """A picture of the mix: when it came, monotonic seconds; its slot; the number it shows; its corner's brightness."""

    when: float
    slot: int
    number: int
    corner: float


class Viewer:
    """Watches a stream as it comes, until `stop`; a context manager."""

    def __init__(self, url: str) -> None:
        self.seen: list[Sight] = []
        self._url = url
        self._thread = _Thread(self._watch)

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.stop()

    def _watch(self, stopping: threading.Event) -> None:
        with av.open(self._url, options={"fflags": "nobuffer"}, timeout=PATIENCE) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_type = "NONE"  # others decode a picture only when the next ones are there
            assert stream.time_base is not None
            for packet in container.demux(stream):
                when = time.monotonic()
                for frame in packet.decode():
                    y = frame.to_ndarray()[: frame.height, : frame.width]
                    slot = round((frame.pts or 0) * stream.time_base * FPS) - LEAD
                    self.seen.append(
                        Sight(when, slot, _number(y), float(y[: frame.height // 8, -frame.width // 8 :].mean()))
                    )
                if stopping.is_set():
                    return

    def check(self) -> None:
        """Raises RunError when it could not watch."""
        self._thread.check()


class _Thread:
    """Runs work in a thread, which looks whether it is to stop; keeps why it failed."""

    def __init__(self, work: Callable[[threading.Event], None]) -> None:
        self.stopping = threading.Event()
        self._fault = ""
        self._thread = threading.Thread(target=self._run, args=[work], daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[threading.Event], None]) -> None:
        try:
            work(self.stopping)
        except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
            self._fault = repr(error)

    def stop(self) -> None:
        self.stopping.set()
        self._thread.join(PATIENCE)

    def check(self) -> None:
        if self._fault:
            raise RunError(self._fault)


def _cells(y: Any) -> list[Any]:
    """The cells of a luma plane, most significant first."""
    height, width = y.shape[0] // 6, y.shape[1] // (CELLS // 2)
    top = y.shape[0] - 2 * height
    return [
        y[top + row * height : top + (row + 1) * height, x : x + width]
        for row in range(2)
        for x in range(0, width * (CELLS // 2), width)
    ]


def _paint(y: Any, n: int) -> None:
    for bit, cell in enumerate(_cells(y)):
        cell[:] = WHITE if n >> (CELLS - 1 - bit) & 1 else BLACK


def _number(y: Any) -> int:
    return sum((float(cell.mean()) > GREY) << (CELLS - 1 - bit) for bit, cell in enumerate(_cells(y)))


def wait_for(done: Callable[[], object], what: str, *, alive: Sequence[Checked]) -> None:
    """Raises RunError when it is not done within PATIENCE, or somebody is gone."""
    end = time.monotonic() + PATIENCE
    while not done():
        for each in alive:
            each.check()
        if time.monotonic() > end:
            raise RunError(f"{what} took more than {PATIENCE:g} s")
        time.sleep(0.05)


def pause(seconds: float, alive: Sequence[Checked]) -> None:
    """Raises RunError when somebody is gone then."""
    time.sleep(seconds)
    for each in alive:
        each.check()
