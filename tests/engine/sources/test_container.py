"""What is opened, and which streams are meant: the same in a mix, in a stream and where packets are copied."""

import pytest

from engine.config import Settings
from engine.errors import SourceMalformed, SourceUnsupported
from engine.sources.avfile import MediaFile
from engine.sources.coded import CodedFilm
from engine.sources.container import best_stream, open_container
from engine.sources.demux import Demuxer
from engine.spec import AudioFormat
from tests.media import Audio, Video, encode

SETTINGS = Settings()


@pytest.fixture
def unknown(tmp_path):
    """A film whose picture is in a codec that nobody knows, with sound."""
    path = encode(tmp_path / "film.mkv", Video(), Audio())
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XVC"))
    return str(path)


def test_a_stream_without_a_decoder_is_not_the_best_one(unknown):
    with open_container("cam", unknown, SETTINGS) as container:
        assert best_stream(container, "video") is None
        assert best_stream(container, "audio").codec_context.name == "aac"


def test_a_film_whose_picture_nobody_can_decode_is_heard_live_and_refused_in_a_render(unknown):
    demuxer = Demuxer("cam", unknown, SETTINGS, now=lambda: 0)
    assert {packet.track.codec for packet in demuxer.read()} == {"aac"}
    demuxer.close()
    with pytest.raises(SourceUnsupported, match='source "cam": no decoder for its picture'):
        MediaFile("cam", unknown, sound=AudioFormat(), settings=SETTINGS)
    with pytest.raises(ValueError, match="no picture"):
        CodedFilm("cam", unknown, settings=SETTINGS)


def test_a_format_that_is_not_taken_is_refused(media):
    with pytest.raises(SourceMalformed, match="not media of a format that is taken"):
        open_container("cam", str(media.path("plain")), SETTINGS, options={"format_whitelist": "flv"})


def test_a_protocol_that_libav_does_not_know_is_named():
    with pytest.raises(SourceUnsupported, match="no such protocol as gopherx"):
        open_container("cam", "gopherx://127.0.0.1/film", SETTINGS)


@pytest.mark.parametrize("url", ["/dev/null", "file:/dev/null", "file:///dev/null"])
def test_a_device_is_no_file_however_it_is_written(url):
    with pytest.raises(SourceUnsupported, match='source "cam": not a file'):
        open_container("cam", url, SETTINGS)
