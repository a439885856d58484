"""Sync: when on the engine's clock each packet of a live source is on; its arrival, drift and jumps, decided once.

It decides the one offset from a publisher's time stamps to server time; it refuses to know what packets contain, who
decodes them, and what time it is: arrivals come in with the packets.

Theory of operation
-------------------
* Server time = time stamp + offset. Picture and sound of a source have the same offset, so lip sync inside it survives.
  The first packet is on when it arrives: its dts ↦ its arrival. A picture with B-frames behind it is on later by as
  much as its pts is behind its dts: when it can be decoded.
* **Transit** of a packet = arrival - dts. Nobody can know how much of it is clock and how much is path; but its minimum
  over a while is the path at its best, and the offset should be just that: then the best packets are in time, and what
  others are late is absorbed by the mixers' latency. Where picture and sound have different minima (an encoder that
  sends one of them ahead), the later one counts. A kind with less than `ENOUGH` packets in that while does not count
  beside another that has them: a large keyframe alone, or a slide show, says little about the path.
* **Bundles.** MPEG-TS carries up to 0.35 s of sound in one piece, and other senders bundle too: the last packet of a
  bundle has the best transit, the first one the worst, and it is the first one that must be in time. So a packet that
  came with others, later than it by more than the time that has passed since them, counts as at most `LATE` better than
  the latest of these within `BUNDLE` of time stamps. Bundles of less than `LATE` change nothing, nor does such jitter.
* **The beginning.** An encoder may begin with half a second in one burst, and the first packet is a keyframe, large and
  slow: that burst is no bundle, and is forgotten when its kind comes again. In the first `SETTLING` the offset follows
  the minima: at once where they are more than `LATE` away, else as fast as drift is followed, since sound cannot jump
  unheard as pictures can, and would be apart from them for as long as it takes to catch up. A reader that comes in the
  middle begins with the packets since the last keyframe; they have their true arrivals, so it finds the offset that
  everybody else has.
* **Drift.** Minima are taken over windows of `WINDOW`. The offset follows the minimum of the last `WINDOWS`
  when that is more than `DEAD_BAND` away, never faster than `SLEW`. When a whole window was later than `LATE`, or the
  minimum is earlier than `EARLY`, the offset is set anew at once, counted as a re-sync. Decoders can go on after it.
  Packets that only count as late, as some of a bundle, must do so in all `WINDOWS`: a path that bundles now and then,
  as radio links do, would be set anew again and again.
* A stall of the network is no drift: after it the waiting packets come in one burst, the last of them in time.
* **Jumps.** Time stamps of one kind that go back by more than `BACK`, or ahead by more than `AHEAD` so that
  the packet would be on later than that from now, begin a new *line*: a new offset, from this packet's arrival. A pause
  in which the publisher's clock went on is none. A kind that jumps onto a line that another kind is on joins it; one
  that has not jumped yet stays on the old line. A source whose picture and sound never agree thus has two lines.
* All in integer nanoseconds; nothing is added up, so nothing runs away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from engine.timebase import SECOND

MS: Final = 1_000_000
WINDOW: Final = SECOND
WINDOWS: Final = 4  # one second of a radio link has no good minimum; in 4 s a clock drifts by 0.8 ms at 200 ppm
SETTLING: Final = 2 * SECOND
ENOUGH: Final = 5  # packets
DEAD_BAND: Final = 2 * MS
SLEW: Final = 5000  # ppm: 0.5 %, never audible
GENTLY: Final = 2 * SECOND  # a correction takes at least this long
LATE: Final = 40 * MS
EARLY: Final = 500 * MS
FIRST: Final = 50 * MS  # what comes within this of the first packet is one burst
BUNDLE: Final = SECOND // 2
BUNDLED: Final = 64  # packets
BACK: Final = SECOND
AHEAD: Final = 2 * SECOND


class Placed(NamedTuple):
    """When a packet is on, in ns of server time; whether a new line begins with it for its kind."""

    time: int
    began: bool


class Sync:
    """Maps one source's time stamps to server time. Give it every packet, in order of arrival."""

    def __init__(self) -> None:
        self.resyncs = 0  # offsets set anew because of drift
        self.jumps = 0  # lines begun because of time stamps
        self._last: dict[str, tuple[_Line, int]] = {}  # of each kind: its line, and the dts of its last packet

    def place(self, kind: str, *, pts: int, dts: int, arrival: int) -> Placed:
        """When a packet is on. All in ns; `arrival` on the engine's clock, not decreasing."""
        line, began = self._line(kind, dts, arrival)
        self._last[kind] = line, dts
        self.resyncs += line.observe(kind, arrival - dts, arrival)
        return Placed(pts + line.offset, began)

    def time(self, kind: str, pts: int) -> int | None:
        """When a picture or sound of that time stamp is on by the present offset; None where its kind never came."""
        last = self._last.get(kind)
        return None if last is None else pts + last[0].offset

    def restart(self) -> None:
        """The publisher has gone; the next packet begins a new line. Not counted as a jump."""
        self._last.clear()

    @property
    def correction(self) -> int:
        """By how many ns drift has moved the offset since the line began; above 0 = the source became later."""
        return max((line.offset - line.origin for line, _ in self._last.values()), key=abs, default=0)

    def _line(self, kind: str, stamp: int, arrival: int) -> tuple[_Line, bool]:
        """The line of a packet, and whether it is a new one for its kind."""
        last = self._last.get(kind)
        if last is not None and not _is_jump(last, stamp, arrival):
            return last[0], False
        for line, _ in self._last.values():
            if (last is None or line is not last[0]) and abs(arrival - stamp - line.offset) <= AHEAD:
                return line, True
        self.jumps += last is not None
        return _Line(arrival - stamp, arrival), True


class _Line:
    """A run of time stamps with one offset, corrected by what arrives."""

    def __init__(self, transit: int, arrival: int) -> None:
        self.offset = self.origin = self._goal = transit
        self._speed = 0  # ppm
        self._moved = arrival
        self._settled = arrival + SETTLING
        self._window = arrival
        self._lowest: dict[str, int] = {}  # transit of each kind in this window; while settling, since the first burst
        self._bare: dict[str, int] = {}  # the same whether bundled or not, with the first burst
        self._packets: dict[str, int] = {}
        self._began = arrival
        self._before: dict[str, deque[tuple[int, int]]] = {}  # of each kind, without the first burst: transit, arrival
        self._past: deque[tuple[dict[str, int], dict[str, int]]] = deque(maxlen=WINDOWS)

    def observe(self, kind: str, transit: int, arrival: int) -> bool:
        """Takes a packet into account; returns whether that set the offset anew."""
        resync = False
        self._slew(arrival)
        if arrival >= max(self._settled, self._window + WINDOW):
            resync = self._judge()
            self._window = arrival
            self._lowest, self._bare, self._packets = {}, {}, {}
        self._bare[kind] = min(transit, self._bare.get(kind, transit))
        transit = self._bundled(kind, transit, arrival)
        self._lowest[kind] = min(transit, self._lowest.get(kind, transit))
        self._packets[kind] = self._packets.get(kind, 0) + 1
        if arrival < self._settled:
            self._settle(arrival)
        return resync

    def _bundled(self, kind: str, transit: int, arrival: int) -> int:
        """The transit that counts for a packet, which may be one of a bundle."""
        if arrival - self._began < FIRST:
            return transit
        if kind not in self._before:
            self._before[kind] = deque(maxlen=BUNDLED)
            self._lowest.pop(kind, None)
        before = self._before[kind]
        while before and arrival - transit - before[0][1] + before[0][0] > BUNDLE:
            before.popleft()
        latest = max((late for late, came in before if arrival - came < late - transit), default=transit)
        before.append((transit, arrival))
        return max(transit, latest - LATE)

    def _slew(self, arrival: int) -> None:
        step = max(0, arrival - self._moved) * self._speed // 1_000_000
        self._moved = arrival
        way = self._goal - self.offset
        self.offset += max(-step, min(step, way))

    def _settle(self, arrival: int) -> None:
        self.origin = self._goal = _transit(self._lowest, self._packets)
        self._speed, self._window = SLEW, arrival
        if abs(self._goal - self.offset) > LATE:
            self.offset = self._goal

    def _judge(self) -> bool:
        """Decides at the end of a window where the offset should go; returns whether it went there at once."""
        self._past.append((self._lowest, self._packets))
        latest, best = _transit(self._lowest, self._packets), _lowest_of(self._past)
        late, error = _transit(self._bare, self._packets) - self.offset, best - self.offset
        if late > LATE or error < -EARLY or (error > LATE and len(self._past) == WINDOWS):
            self.offset = self._goal = latest if late > LATE else best
            self._past.clear()
            return True
        if abs(error) > DEAD_BAND:
            self._goal = best
            self._speed = min(SLEW, max(1, abs(error) * 1_000_000 // GENTLY))
        return False


def _transit(lowest: Mapping[str, int], packets: Mapping[str, int]) -> int:
    """The later one of the kinds' minima; of those with enough packets, or of the one with the most."""
    kinds = [kind for kind in lowest if packets[kind] >= ENOUGH] or [max(packets, key=lambda kind: packets[kind])]
    return max(lowest[kind] for kind in kinds)


def _lowest_of(windows: deque[tuple[dict[str, int], dict[str, int]]]) -> int:
    lowest: dict[str, int] = {}
    packets: dict[str, int] = {}
    for minima, counts in windows:
        for kind, transit in minima.items():
            lowest[kind] = min(transit, lowest.get(kind, transit))
            packets[kind] = packets.get(kind, 0) + counts[kind]
    return _transit(lowest, packets)


def _is_jump(last: tuple[_Line, int], stamp: int, arrival: int) -> bool:
    line, before = last
    step = stamp - before
    return step < -BACK or (step > AHEAD and stamp + line.offset - arrival > AHEAD)
