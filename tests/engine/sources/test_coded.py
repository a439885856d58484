"""What of a film can be copied, found without decoding it."""

from fractions import Fraction

import av
import pytest

from engine.config import Settings
from engine.errors import SourceMalformed, SourceUnavailable
from engine.sources.coded import CodedFilm, is_upright, moov_of
from tests.media import Video, change_parameters, encode, undated

FILM = Video(matrix="bt709", bframes=2, gop=15)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return str(encode(tmp_path_factory.mktemp("coded") / "film.mp4", FILM, seconds=2))


@pytest.fixture
def film(path):
    film = CodedFilm("film", path, settings=Settings())
    yield film
    film.close()


def test_a_film_tells_what_its_packets_are(film):
    assert (film.width, film.height, film.profiles, film.reorders) == (64, 36, {100}, True)
    assert film.bit_rate > 1000


def test_an_index_begins_with_an_idr_picture_and_has_all_that_is_shown(film):
    index = film.index(Fraction(7, 10), Fraction(11, 10))
    assert index.idr[0]
    shown = sorted((pts * index.time_base - index.zero) * 30 for pts in index.pts)
    assert shown[0] == 15
    assert set(range(15, 34)) < set(shown)
    assert [n for n, idr in enumerate(index.idr) if idr] == [0, 15, 30]


def test_an_index_of_a_part_reads_little_more(film):
    assert len(film.index(Fraction(0), Fraction(1, 10)).pts) < 30
    assert len(film.index(Fraction(0), Fraction(100)).pts) == 60


def trimmed(path, source, by):
    """The same packets, but `by` pictures at the beginning are not shown: an edit list says so."""
    with av.open(source) as film, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(film.streams.video[0], opaque=True)
        for packet in film.demux(video=0):
            if packet.size:
                shift = int(by / 30 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                out.mux_one(packet)
    return str(path)


def test_of_a_gop_that_is_not_shown_from_its_beginning_nothing_is_copied(tmp_path, path):
    film = CodedFilm("film", trimmed(tmp_path / "trimmed.mp4", path, Fraction(5)), settings=Settings())
    index = film.index(Fraction(0), Fraction(2))
    assert len(index.pts) == 45
    assert (index.pts[0] * index.time_base - index.zero) * 30 == 10  # the second GOP's first, five pictures earlier
    film.close()


def test_a_packet_with_something_else_ends_the_gops_before_it(tmp_path, path):
    """Parameter sets among the pictures: where a film has been joined from others."""
    joined = str(tmp_path / "joined.mp4")
    with av.open(path) as film, av.open(joined, "w") as out:
        stream = out.add_stream_from_template(film.streams.video[0], opaque=True)
        for n, packet in enumerate(each for each in film.demux(video=0) if each.size):
            data = bytes(packet) if n != 20 else (5).to_bytes(4, "big") + b"\x67abcd" + bytes(packet)
            made = av.Packet(data)
            made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
            made.is_keyframe, made.stream = packet.is_keyframe, stream
            out.mux_one(made)
    film = CodedFilm("film", joined, settings=Settings())
    assert len(film.index(Fraction(0), Fraction(2)).pts) == 15
    assert len(film.index(Fraction(7, 10), Fraction(2)).pts) == 30
    film.close()


def test_packets_from_a_picture_on(film):
    index = film.index(Fraction(0), Fraction(2))
    packets = list(film.packets(index.pts[15], 20))
    assert [packet.pts for packet in packets] == index.pts[15:35]
    assert packets[0].is_keyframe


def test_where_packets_are_lacking_the_film_broke_off(film):
    index = film.index(Fraction(0), Fraction(2))
    with pytest.raises(SourceMalformed, match=r"breaks off after 1[.]500 s"):
        list(film.packets(index.pts[45], 20))
    with pytest.raises(SourceMalformed, match="breaks off"):
        list(film.packets(index.pts[45] + 1, 1))


def test_a_closed_film_opens_again(film):
    film.close()
    assert not film.is_open
    assert len(film.index(Fraction(0), Fraction(2)).pts) == 60
    assert film.is_open


def test_what_is_no_film_says_so(tmp_path, media):
    with pytest.raises(SourceUnavailable):
        CodedFilm("film", str(tmp_path / "none.mp4"), settings=Settings())
    for name in ("audio_only", "transport", "ten_bit", "vfr"):
        try:
            film = CodedFilm("film", str(media.path(name)), settings=Settings())
        except ValueError:
            continue
        film.close()
        assert name == "vfr"  # in another rate, but H.264: no tick shows the next picture


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("options", [{"movflags": "faststart"}, {}])
def test_a_film_that_is_turned_is_not_upright(tmp_path, rotation, options):
    path = encode(tmp_path / "film.mp4", Video(matrix="bt709", rotation=rotation), **options)
    assert is_upright(moov_of(str(path))) is (rotation == 0)


@pytest.mark.parametrize("suffix", ["flv", "mp4"])
def test_a_film_whose_parameter_sets_change_is_not_copied(tmp_path, suffix):
    changed = change_parameters(tmp_path / f"film.{suffix}", seconds=4)
    with pytest.raises(ValueError, match="parameter sets that change"):
        CodedFilm("film", str(changed), settings=Settings())


def test_a_film_that_does_not_say_when_its_pictures_are_shown_is_not_copied(tmp_path):
    film = undated(tmp_path / "film.mkv", 2, seconds=2)
    with pytest.raises(ValueError, match="no presentation times"):
        CodedFilm("film", str(film), settings=Settings())


def test_a_film_in_flv_whose_parameter_sets_stay_is_copied(tmp_path):
    film = CodedFilm("film", str(encode(tmp_path / "film.flv", FILM, None, seconds=2)), settings=Settings())
    index = film.index(Fraction(0), Fraction(2))
    assert len(index.pts) == 60
    assert len(list(film.packets(index.pts[0], 60))) == 60
    film.close()


@pytest.mark.parametrize("data", [b"", b"moov", b"\0\0\0\x08moov", b"\0\0\0\0moov" + bytes(99), bytes(range(99))])
def test_what_has_no_head_is_not_upright(tmp_path, data):
    path = tmp_path / "film.mp4"
    path.write_bytes(data)
    assert not is_upright(moov_of(str(path)))


def test_a_matroska_film_is_looked_at(tmp_path):
    for rotation, fits in ((0, True), (180, False)):
        path = str(encode(tmp_path / f"{rotation}.mkv", Video(matrix="bt709", rotation=rotation)))
        if fits:
            CodedFilm("film", path, settings=Settings()).close()
        else:
            with pytest.raises(ValueError, match="not upright"):
                CodedFilm("film", path, settings=Settings())
