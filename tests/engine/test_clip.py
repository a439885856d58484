"""A clip's values and media are at any moment where they should be."""

from fractions import Fraction

import msgspec
import pytest

from engine.clip import Filter, Medium, Tween
from engine.errors import InvalidTree
from engine.tree import VideoSourceNode
from tests.engine.mashes import BLUE, FILM, RED, clip, colour, mash, picture, pictures, voices

# --- tweens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("t", "opacity"), [("0", 0), ("0.5", 0.5), ("0.9", 0.9), ("0.95", 0.95)])
def test_tween_would_reach_its_end_one_frame_past_the_last(t, opacity):
    assert picture(opacity=Tween(0, 1), t=Fraction(t)).opacity == pytest.approx(opacity)


def test_tween_counts_from_its_own_clip():
    program = mash([clip(frame=30, frames=20, opacity=Tween(1, 0))])
    assert pictures(program, "3.5")[0].opacity == pytest.approx(0.75)


def test_colours_tween_per_channel():
    node = picture(colour(RED, BLUE), t=Fraction(1, 4))
    assert (node.red, node.green, node.blue) == pytest.approx((0.75, 0, 0.25))


def test_a_filter_that_there_is_not_is_refused_at_either_end():
    Filter("opacity", {"opacity": Tween(0, 1)}).check()
    for beyond in (Tween(0, 2), Tween(2, 0)):
        with pytest.raises(InvalidTree, match=r"\.parameters\.opacity: 2 is not within 0…1"):
            Filter("opacity", {"opacity": beyond}).check()
    with pytest.raises(InvalidTree, match="swirl"):
        Filter("swirl", {}).check()


# --- media time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "t", "at"),
    [
        ({}, "0", 0),
        ({}, "0.5", 0.5),
        ({}, "2.99", 2.99),
        ({}, "3", 0),  # 30 frames, and again
        ({}, "7.25", 1.25),
        ({"trim": 5}, "1", 1.5),
        ({"trim": 5, "length": 20}, "1.99", 2.49),
        ({"trim": 5, "length": 20}, "2", 0.5),
        ({"speed": Fraction(2)}, "1", 2),
        ({"speed": Fraction(2)}, "1.5", 0),
        ({"speed": Fraction(1, 2), "trim": 10}, "5", 3.5),
        ({"speed": Fraction(11, 10)}, "1/3", 11 / 30),
        ({"length": None}, "9", 9),
        ({"length": None, "trim": 10**9}, "0", 10_000_000),
    ],
)
def test_media_time(fields, t, at):
    medium = Medium(**{"kind": "film", "name": "film", "length": 30, "gain": ((0, 1),)} | fields)
    program = mash([clip(medium, frames=100)])
    (node,), (voice,) = pictures(program, t), voices(program, t)
    assert node.at == voice.at == pytest.approx(at)
    assert isinstance(node, VideoSourceNode)
    assert node.id == voice.id


@pytest.mark.parametrize(
    ("fields", "t", "until"),
    [
        ({"length": None, "trim": 5}, "9.9", 10.5),
        ({"length": None, "speed": Fraction(3, 2), "trim": 5}, "0", 15.5),
        ({}, "2.99", 3),  # 30 frames, and again
        ({}, "8.99", 3),
        ({}, "9", 1),  # of the last turn there is time for 10
        ({"trim": 5, "length": 20}, "1.99", 2.5),
        ({"speed": Fraction(2)}, "1.5", 3),
        ({"speed": Fraction(1, 2), "trim": 10}, "6", 3),
        ({"length": None, "trim": 10**9}, "0", 10_000_000),
    ],
)
def test_a_film_ends_with_its_clip_or_where_it_begins_again(fields, t, until):
    medium = Medium(**{"kind": "film", "name": "film", "length": 30} | fields)
    (node,) = pictures(mash([clip(medium, frames=100)]), t)
    assert node.until == pytest.approx(until)


def test_a_film_has_no_end_where_the_next_clip_goes_on_with_it():
    first, cut = clip(FILM, frames=10), clip(msgspec.structs.replace(FILM, trim=10), frame=10, frames=10)
    other = clip(FILM, frame=20, frames=10)
    program = mash([first, cut, other])
    assert [pictures(program, t)[0].until for t in ("0.5", "1.5", "2.5")] == [None, 2, 1]
    unseen = mash([first, msgspec.structs.replace(cut, container=None)])
    assert pictures(unseen, "0.5")[0].until == 1


RISING, FALLING = ((0, 0.5), (1, 1)), ((0, 1), (1, 0.5))


@pytest.mark.parametrize(
    ("gains", "ids"), [((RISING, FALLING), "aa"), ((FALLING, RISING), "aa"), ((RISING, RISING), "ab")]
)
def test_a_sound_goes_on_in_the_next_clip_where_that_begins_as_loud_as_the_last_one_ended(gains, ids):
    take = [Medium(kind="sound", name="song", trim=10 * n, gain=gain) for n, gain in enumerate(gains)]
    cut = [clip(medium, frame=medium.trim, name=name) for medium, name in zip(take, "ab", strict=True)]
    assert "".join(voices(mash(cut), t)[0].id for t in ("0.5", "1.5")) == ids


def test_media_time_counts_from_the_clip():
    assert pictures(mash([clip(FILM, frame=20)]), "2.5")[0].at == 0.5


def test_ticks_hand_over_without_a_gap_in_media_time():
    medium = Medium(kind="sound", name="s", length=10**6, gain=((0, 1),), speed=Fraction(5, 4))
    program = mash([clip(medium, container=False, frames=10**6)])
    fps = Fraction(30000, 1001)
    ats = [voices(program, n / fps)[0].at for n in range(3000)]
    assert [round(at * 48000) for at in ats] == [round(n / fps * Fraction(5, 4) * 48000) for n in range(3000)]


def test_what_is_live_has_no_media_time_no_identity_and_no_speed():
    medium = Medium(kind="film", name="live/cam", live=True, gain=((0, 1),), speed=Fraction(2), trim=5)
    program = mash([clip(medium)])
    (node,), (voice,) = pictures(program, "0.5"), voices(program, "0.5")
    assert (node.at, node.id, voice.at, voice.id, voice.speed) == (None, None, None, None, 1)
    assert program.tree_at(Fraction(0)) is program.tree_at(Fraction(1, 2))
