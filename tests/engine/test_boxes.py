"""The boxes of init segments and fragments, byte by byte; what a player makes of them is in test_fmp4."""

from fractions import Fraction

import pytest

from engine.boxes import Run, Sample, fragment, init_segment, time_scale
from engine.packet import Track
from tests.engine.clips import boxes, decode_times, inside
from tests.engine.peers import ASC, AVCC

SOUND = Track(kind="audio", codec="aac", extradata=ASC, time_base=Fraction(1, 48000))
PICTURE = Track(kind="video", codec="h264", extradata=AVCC, time_base=Fraction(1, 30))


@pytest.mark.parametrize(
    ("time_base", "scale"),
    [
        (Fraction(1, 30), (1020, 34)),
        (Fraction(1001, 30_000), (30_000, 1001)),
        (Fraction(1, 1000), (1000, 1)),
        (Fraction(1), (1000, 1000)),
        (Fraction(1, 48_000), (48_000, 1)),
    ],
    ids=str,
)
def test_time_scales_are_exact_and_fine(time_base, scale):
    assert time_scale(time_base) == scale
    assert Fraction(scale[1], scale[0]) == time_base


def test_boxes_of_an_init_segment():
    init = init_segment([PICTURE, SOUND])
    assert [kind for kind, _ in boxes(init)] == ["ftyp", "moov"]
    assert [kind for kind, _ in boxes(inside(init, "moov")[0])] == ["mvhd", "trak", "trak", "mvex"]
    assert [body[12:16] for body in inside(init, "moov", "trak", "mdia", "mdhd")] == [
        (1020).to_bytes(4, "big"),
        (48_000).to_bytes(4, "big"),
    ]
    (stsd, _) = inside(init, "moov", "trak", "mdia", "minf", "stbl", "stsd")
    ((kind, entry),) = boxes(stsd[8:])
    assert kind == "avc1"
    assert boxes(entry[78:]) == [("avcC", AVCC)]


def test_boxes_of_a_fragment():
    pictures = [Sample(b"picture0", 7, 0, keyframe=True, duration=34), Sample(b"picture1", 41, -3, False, 68)]
    sounds = [Sample(b"sound%d" % n, 1024 * n, 0, keyframe=True, duration=1024) for n in range(3)]
    data = fragment(5, [Run(1, "video", 340, pictures), Run(2, "audio", 2**32, sounds)])
    assert [kind for kind, _ in boxes(data)] == ["moof", "mdat"]
    assert [kind for kind, _ in boxes(inside(data, "moof")[0])] == ["mfhd", "traf", "traf"]
    assert inside(data, "moof", "mfhd") == [bytes((0, 0, 0, 0, 0, 0, 0, 5))]
    assert decode_times(data) == [340, 2**32]
    assert inside(data, "mdat") == [b"picture0picture1sound0sound1sound2"]
    trun, more = inside(data, "moof", "traf", "trun")
    numbers = [int.from_bytes(trun[at : at + 4], "big") for at in range(0, len(trun), 4)]
    at = data.index(b"picture0")
    assert numbers == [0x01000F01, 2, at, 34, 8, 0x02000000, 0, 68, 8, 0x01010000, 2**32 - 3]
    assert int.from_bytes(more[8:12], "big") == at + 16
