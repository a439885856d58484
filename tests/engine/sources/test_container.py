"""What is opened, and which streams are meant: the same in a mix, in a stream and where packets are copied."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from engine.config import Settings
from engine.errors import SourceMalformed, SourceUnsupported
from engine.sources.avfile import MediaFile
from engine.sources.coded import CodedFilm
from engine.sources.container import best_stream, open_container
from engine.sources.demux import Demuxer
from engine.spec import AudioFormat
from tests.media import Audio, Video, encode, heif

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


@pytest.mark.parametrize("quiet", [0, 1])
def test_of_equal_sounds_the_first_is_heard_however_loud_it_begins(tmp_path, quiet):
    path = tmp_path / "languages.ts"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 48_000)).astype(np.float32)
    with av.open(path, "w") as film:
        tracks = [film.add_stream("aac", rate=48_000, layout="mono", bit_rate=128_000) for _ in range(2)]
        for n, track in enumerate(tracks):
            frame = av.AudioFrame.from_ndarray(noise * (0.001 if n == quiet else 1), format="fltp", layout="mono")
            frame.sample_rate = 48_000
            film.mux(track.encode(frame))
            film.mux(track.encode(None))
    with open_container("cam", str(path), SETTINGS) as container:
        assert container.streams.best("audio").index == 1 - quiet  # libav's estimate of their rates
        assert best_stream(container, "audio").index == 0


def test_a_sound_of_which_nothing_comes_is_not_taken_for_one_that_is_there(tmp_path):
    path = tmp_path / "one.mkv"
    with av.open(path, "w") as film:
        _, track = (film.add_stream("aac", rate=48_000, layout="mono") for _ in range(2))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        film.mux([*track.encode(frame), *track.encode(None)])
    with open_container("cam", str(path), SETTINGS) as container:
        assert best_stream(container, "audio").index == 1


def variants(folder, *listed):
    """A master playlist of films of a second, each (its picture's size or None, the rate stated, its sound's Hz)."""
    lines = ["#EXTM3U"]
    for n, (size, rate, hz) in enumerate(listed):
        video = None if size is None else Video(size=size)
        encode(folder / f"{n}.m3u8", video, Audio(rate=hz), hls_segment_filename=str(folder / f"{n}-%d.ts"))
        lines += [f"#EXT-X-STREAM-INF:BANDWIDTH={rate}", f"{n}.m3u8"]
    (folder / "master.m3u8").write_text("\n".join([*lines, ""]))
    return str(folder / "master.m3u8")


@pytest.mark.parametrize("glance", [False, True])
@pytest.mark.parametrize(
    ("listed", "taken"),
    [
        ([(None, 900_000, 32_000), ((64, 36), 400_000, 44_100), ((128, 72), 300_000, 48_000)], 48_000),
        ([((64, 36), 200_000, 32_000), ((64, 36), 300_000, 44_100), ((64, 36), 100_000, 48_000)], 44_100),
        ([(None, 64_000, 32_000), (None, 128_000, 48_000)], None),
    ],
)
def test_of_variants_the_largest_picture_and_of_these_the_one_of_the_highest_rate_is_taken(
    tmp_path, listed, taken, glance
):
    with open_container("cam", variants(tmp_path, *listed), SETTINGS, glance=glance) as container:
        best = best_stream(container, "video")
        assert (best is None) == (taken is None)
        if best is not None:
            assert best_stream(container, "audio", beside=best).codec_context.sample_rate == taken


@pytest.mark.parametrize("count", [1, 2])
def test_of_hls_the_size_of_the_picture_is_known_at_a_glance(tmp_path, count):
    master = variants(tmp_path, *[((64, 36), 100_000, 44_100)] * count)
    with open_container("cam", master, SETTINGS, glance=True) as container:
        assert best_stream(container, "video").codec_context.width == 64


def test_a_variant_that_nobody_can_decode_is_not_taken_however_large_it_is(tmp_path):
    master = variants(tmp_path, ((64, 36), 100_000, 44_100), ((128, 72), 300_000, 48_000))
    encode(tmp_path / "1.m3u8", Video(size=(128, 72)), None, hls_segment_type="fmp4")
    (init,) = tmp_path.glob("init.mp4")
    init.write_bytes(init.read_bytes().replace(b"avc1", b"xvc1"))
    with open_container("cam", master, SETTINGS) as container:
        assert len(container.streams.video) == 2
        assert best_stream(container, "video").codec_context.width == 64


@pytest.fixture
def photo(tmp_path):
    """What makes one of two tiles and a thumbnail, `main` of which is meant: 1, the whole; 4, the thumbnail."""
    small = encode(tmp_path / "small.jpg", Video("mjpeg", rate=Fraction(1), pix_fmt="yuvj420p"), None, update="1")
    tile = b"jpeg", small.read_bytes(), (64, 36), ()
    grid = b"grid", struct.pack(">4B2H", 0, 0, 0, 1, 128, 36), (128, 36), ()
    refer = [(b"dimg", 1, 2, 3), (b"thmb", 4, 1)]
    return lambda main: str(heif(tmp_path / "photo.heic", [grid, *3 * [tile]], main=main, refer=refer))


def test_a_photo_in_tiles_is_refused_and_none_of_its_parts_taken_for_it(photo):
    whole = photo(1)
    for opened in (
        lambda: MediaFile("cam", whole, sound=AudioFormat(), settings=SETTINGS),
        lambda: Demuxer("cam", whole, SETTINGS, now=lambda: 0),
    ):
        with pytest.raises(SourceUnsupported, match='source "cam": a picture in tiles'):
            opened()


def test_a_photo_beside_which_there_are_tiles_of_another_is_taken(photo):
    with open_container("cam", photo(4), SETTINGS) as container:
        assert best_stream(container, "video").index == 2


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile {}\n"
SESSION = "v=0\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n"


@pytest.fixture
def film(tmp_path):
    return encode(tmp_path / "film.mp4", Video(), None)


@pytest.mark.parametrize(("name", "text"), [("list.m3u8", PLAYLIST), ("LIST.M3U", PLAYLIST), ("x.ffconcat", CONCAT)])
def test_a_file_that_lists_others_is_read_where_it_is_called_so(tmp_path, film, name, text):
    (tmp_path / name).write_text(text.format(film.name))
    with open_container("cam", str(tmp_path / name), SETTINGS) as container:
        assert best_stream(container, "video").codec_context.name == "h264"


@pytest.mark.parametrize("text", [PLAYLIST, CONCAT, SESSION])
@pytest.mark.parametrize("before", ["", "ID3\4\0\0\0\0\0\n" + 10 * "\0"])
def test_a_file_that_lists_others_is_no_film_where_it_is_not_called_so(tmp_path, film, text, before):
    path = tmp_path / "list.mp4"
    path.write_text(before + text.format(film.name))
    for opened in (str(path), f"file:{path}", f"file://{path}"):
        with pytest.raises(SourceMalformed, match="not media"):
            open_container("cam", opened, SETTINGS)


def test_a_film_with_such_text_in_it_stays_one(film):
    whole = film.read_bytes()
    for text in (PLAYLIST, CONCAT, SESSION):
        film.write_bytes(whole + len(text).to_bytes(4) + b"free" + text.encode())
        with open_container("cam", str(film), SETTINGS) as container:
            assert best_stream(container, "video").codec_context.name == "h264"


@pytest.mark.parametrize("large", ["never", "always"])
def test_a_wav_comes_in_large_packets_also_when_it_has_sizes_of_64_bits(tmp_path, large):
    path = encode(tmp_path / "a.wav", None, Audio("pcm_s16le"), seconds=3, rf64=large)
    assert path.read_bytes()[:4] == {"never": b"RIFF", "always": b"RF64"}[large]
    with open_container("cam", str(path), SETTINGS) as container:
        sizes = [packet.size for packet in container.demux() if packet.size]
    assert max(sizes) == 1 << 17
    assert sum(sizes) == 3 * 48_000 * 4


def test_a_protocol_that_libav_does_not_know_is_named():
    with pytest.raises(SourceUnsupported, match="no such protocol as gopherx"):
        open_container("cam", "gopherx://127.0.0.1/film", SETTINGS)


@pytest.mark.parametrize("url", ["/dev/null", "file:/dev/null", "file:///dev/null"])
def test_a_device_is_no_file_however_it_is_written(url):
    with pytest.raises(SourceUnsupported, match='source "cam": not a file'):
        open_container("cam", url, SETTINGS)


def caf(path, labels):
    """A second of 440 Hz in channels of these labels (Apple's Core Audio Format)."""
    wave = (8000 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)).astype(">i2").repeat(len(labels))
    described = b"".join(struct.pack(">II12x", label, 0) for label in labels)
    chunks = {
        b"desc": struct.pack(">d4s5I", 48_000, b"lpcm", 0, 2 * len(labels), 1, len(labels), 16),
        b"chan": struct.pack(">3I", 0, 0, len(labels)) + described,
        b"data": bytes(4) + wave.tobytes(),
    }
    written = (name + struct.pack(">q", len(content)) + content for name, content in chunks.items())
    path.write_bytes(b"caff" + struct.pack(">2H", 1, 0) + b"".join(written))


ORDERS = {
    "2.1": (1, 2, 4),
    "5.1": (1, 2, 3, 4, 5, 6),
    "2 channels": (2, 1),
    "3 channels": (2, 1, 4),
    "4 channels": (0,) * 4,
}


@pytest.mark.parametrize("name", ORDERS)
def test_channels_in_an_order_of_their_own_are_heard_and_the_process_goes_on(tmp_path, name):
    caf(tmp_path / "sound.caf", ORDERS[name])
    for _ in range(3):  # memory that is freed twice is noticed sooner or later
        file = MediaFile("cam", str(tmp_path / "sound.caf"), sound=AudioFormat(), settings=SETTINGS)
        heard = [block.samples for _, block in file.step(pictures=None, sounds=True, start=Fraction(0)).sounds]
        file.close()
        assert np.abs(np.concatenate(heard, axis=1)).max() > 0.05
        demuxer = Demuxer("cam", str(tmp_path / "sound.caf"), SETTINGS, now=lambda: 0)
        assert {packet.track.layout for packet in demuxer.read()} == {name}
        demuxer.close()
