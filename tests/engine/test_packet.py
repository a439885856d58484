"""Packets: times in ms are rounded and never drift, and what FLV cannot carry is said."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import SinkRejected
from engine.packet import Packet, Track, flv_extradata, flv_media, to_ms

H264 = Track(kind="video", codec="h264", extradata=b"\x01avcC", time_base=Fraction(1001, 30_000))
AAC = Track(kind="audio", codec="aac", extradata=b"\x11\x90", time_base=Fraction(1, 48_000))


@given(st.integers(-(10**12), 10**12), st.fractions(Fraction(1, 10**6), 1))
def test_a_time_in_ms_is_the_nearest(units, time_base):
    assert abs(to_ms(units, time_base) - units * time_base * 1000) <= Fraction(1, 2)


def test_a_packet_becomes_an_flv_body_with_its_times():
    packet = Packet(H264, b"\0\0\0\1x", pts=32, dts=30, arrival=0, keyframe=True)
    body = flv_media(packet)
    assert (body.dts, body.pts, body.keyframe, body.codec, body.data) == (1001, 1068, True, "h264", b"\0\0\0\1x")
    assert packet.shared is packet.shared  # made once for all readers
    sound = flv_media(Packet(AAC, b"aac", pts=48_000, dts=48_000, arrival=0))
    assert (sound.dts, sound.codec, sound.data) == (1000, "aac", b"aac")
    assert flv_extradata(H264, 7).data == b"\x01avcC"
    assert flv_extradata(AAC, 7).kind == "extradata"


@pytest.mark.parametrize("track", [Track(kind="video", codec="mjpeg"), Track(kind="audio", codec="pcm_s16le")])
def test_a_codec_that_flv_does_not_know_is_refused(track):
    with pytest.raises(SinkRejected, match=track.codec):
        flv_extradata(track, 0)
    with pytest.raises(SinkRejected, match=track.codec):
        _ = Packet(track, b"x", pts=0, dts=0, arrival=0).shared


def test_only_a_picture_that_needs_no_other_starts_a_gop():
    def starts(track, keyframe):
        return Packet(track, b"x", pts=0, dts=0, arrival=0, keyframe=keyframe).starts_gop

    assert [starts(H264, True), starts(H264, False), starts(AAC, True)] == [True, False, False]
