"""Packets of real films, as a publisher sends them, and what a player finds in the fragments made of them.

It decides nothing about the engine: films come from tests.media, and PyAV is the player. Pictures that say a number are
for what encodes.
"""

import io

import av
import numpy as np

from engine.frame import VideoFrame, i420_views
from engine.packet import Packet, Track
from engine.sources.pattern import paint_cells
from engine.stream import Publisher
from tests.media import Audio, Video, encode, plane, read_cells, read_number

NS = 10**9
RATES = (48_000, 44_100)  # of sound, in Hz


def publish(hub):
    """live/cam on a hub."""
    return hub.publish("live/cam", Publisher(kind="pattern"))


def numbered(n, mixer):
    """A picture of a mixer that says n, as its cells."""
    width, height = mixer.raster.width, mixer.raster.height
    buffer = np.full((height * 3 // 2, width), 128, np.uint8)
    planes = i420_views(buffer, width, height)
    paint_cells(planes[0], n)
    return VideoFrame(*planes, buffer=buffer)


def packets(path, *, times=1, units=None, durations=True, start=0, arrival=0):
    """The packets of a film as they are decoded, arriving just then.

    times      play it so often, one behind the other, with the same tracks
    units      the time base of both tracks; None: the container's
    durations  whether packets say how long they are
    start      s, added to all times of media
    arrival    ns, added to all times of arrival
    """
    with av.open(str(path)) as container:
        made = [packet for packet in container.demux() if packet.dts is not None]
        made.sort(key=lambda packet: packet.dts * packet.time_base)
        tracks = {each.stream_index: _track(each.stream, units) for each in made}
        film = [(each, bytes(each)) for each in made]
    paced = [each for each in made if tracks[each.stream_index].kind == "video"] or made
    length = paced[-1].dts * paced[-1].time_base + paced[-1].duration * paced[-1].time_base
    length -= paced[0].dts * paced[0].time_base
    return [
        _packet(each, data, tracks[each.stream_index], start + turn * length, durations, arrival)
        for turn in range(times)
        for each, data in film
        # Sound begins before 0, where another turn ends.
        if turn == 0 or tracks[each.stream_index].kind == "video" or each.dts >= 0
    ]


def unseen(film, off, back):
    """The film of a camera that is off for some seconds, whose microphone is not."""
    return [each for each in film if not (each.is_video and off <= each.pts * each.track.time_base < back)]


def interrupted(folder, *, bframes=0):
    """A film of one second and another one of as much: a larger picture, and behind it sound of another rate."""
    sizes = (64, 36), (128, 72)
    shots = [
        encode(folder / f"{rate}.mp4", Video(size=size, gop=30, bframes=bframes), Audio(rate=rate), seconds=1)
        for size, rate in zip(sizes, RATES, strict=True)
    ]
    film = [
        each
        for n, shot in enumerate(shots)
        for each in packets(shot, start=n)
        if each.is_video or n <= each.dts * each.track.time_base < n + 1
    ]
    return sorted(film, key=lambda each: each.dts * each.track.time_base)


def until_the_second_keyframe(folder):
    """The beginning of an interrupted film, up to the first picture of the other one, whose sound has not come."""
    film = interrupted(folder)
    keyframes = [n for n, each in enumerate(film) if each.starts_gop]
    return film[: keyframes[1] + 1]


def _track(stream, units):
    context = stream.codec_context
    return Track(
        kind=stream.type,
        codec=context.name,
        extradata=bytes(context.extradata or b""),
        time_base=units or stream.time_base,
    )


def _packet(packet, data, track, start, durations, arrival):
    def unit(t):
        return round((t * packet.time_base + start) / track.time_base)

    return Packet(
        track,
        data,
        pts=unit(packet.pts),
        dts=unit(packet.dts),
        arrival=arrival + int((packet.dts * packet.time_base + start) * NS),
        keyframe=packet.is_keyframe,
        duration=round(packet.duration * packet.time_base / track.time_base) if durations else 0,
    )


def pictures(data):
    """(s, number) of all pictures in an MP4, in the order shown."""
    with av.open(io.BytesIO(data)) as container:
        return [(frame.pts * frame.time_base, read_number(plane(frame, 0))) for frame in container.decode(video=0)]


def sounds(data):
    """(s, samples) of all blocks of sound in an MP4."""
    with av.open(io.BytesIO(data)) as container:
        return [(frame.pts * frame.time_base, frame.samples) for frame in container.decode(audio=0)]


def decoded(packets, kind):
    """(pts, frame) of one kind."""
    chosen = [packet for packet in packets if packet.track.kind == kind]
    track = chosen[0].track
    assert all(packet.track is track for packet in chosen)
    context = av.CodecContext.create(track.codec, "r")
    context.extradata = track.extradata
    frames = []
    for each in chosen:
        packet = av.Packet(each.data)
        packet.pts, packet.dts, packet.time_base = each.pts, each.dts, track.time_base
        frames += context.decode(packet)
    return [(frame.pts, frame) for frame in frames + context.decode(None)]


def shown(packets):
    """(pts, number) of the pictures that an encoder made of `numbered` ones."""
    return [(pts, read_cells(plane(frame))) for pts, frame in decoded(packets, "video")]


def boxes(data):
    """(kind, body) of the boxes in a row."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        assert size >= 8
        assert at + size <= len(data)
        found.append((data[at + 4 : at + 8].decode(), data[at + 8 : at + size]))
        at += size
    return found


def inside(data, *path):
    """The bodies of all boxes of a path: ``inside(fragment, "moof", "traf", "tfdt")``."""
    bodies = [data]
    for kind in path:
        bodies = [body for each in bodies for name, body in boxes(each) if name == kind]
    return bodies


def decode_times(fragment):
    """The tfdt of each track, in its units."""
    return [int.from_bytes(body[4:], "big") for body in inside(fragment, "moof", "traf", "tfdt")]
