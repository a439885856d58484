"""Parameter sets of several films do not get in each other's way in one output."""

from engine.bitstream import avc_sets, pps_numbers, read_sps
from engine.sources.splice import Numbering
from tests.engine.test_bitstream import avcc


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
