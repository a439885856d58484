"""What of a film can be copied, found without decoding it; parameter sets of several films do not get in each other's
way.
"""

from fractions import Fraction

import pytest

from engine.bitstream import avc_sets, pps_numbers, read_sps
from engine.config import Settings
from engine.errors import SourceMalformed, SourceUnavailable
from engine.sources.coded import CodedFilm, Numbering
from tests.engine.test_bitstream import avcc
from tests.media import Video, encode

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


def sets(params="", **options):
    sps, pps = avc_sets(avcc((64, 64), params=f"annexb=0{params}", **options))
    return {read_sps(unit).number: unit for unit in sps}, {pps_numbers(unit)[0]: unit for unit in pps}


def test_films_of_one_encoder_share_their_numbers():
    numbering = Numbering()
    assert [numbering.take(*sets()) for _ in range(3)] == [{0: 0}] * 3
    assert (len(numbering.sps), len(numbering.pps), numbering.free) == (1, 1, 1)


def test_films_of_others_get_other_numbers():
    numbering = Numbering()
    kinds = [sets(), sets(":level=40"), sets(":sps-id=3"), sets(":level=42"), sets(":level=40")]
    assert [numbering.take(*each) for each in kinds] == [{0: 0}, {0: 15}, {3: 3}, {0: 16}, {0: 15}]
    assert sorted(numbering.sps) == [0, 1, 2, 3]
    for number, unit in numbering.pps.items():
        own, parent = pps_numbers(unit)
        assert own == number
        assert parent in numbering.sps
    assert numbering.free == 4


def test_a_film_whose_numbers_do_not_fit_is_left_out():
    numbering = Numbering()
    taken = [numbering.take(*sets(f":keyint={n}:ref={n % 4 + 1}:bframes={n // 4 % 4}:level={lv}"))
             for lv in (30, 31, 40) for n in range(16)]  # fmt: skip
    assert {0: 0} in taken
    assert None in taken
    assert numbering.free is not None
    assert len(numbering.pps) <= 18  # 0, 15…30, 255
