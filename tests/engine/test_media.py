"""What is in a file is known without a mix; images are made smaller with what can be seen through."""

import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from engine.errors import SinkError, SourceError, SourceMalformed, SourceUnsupported
from engine.frame import VideoFrame
from engine.media import check_drawing, check_font, ink_measure, length_of, look_into, shrink_image
from engine.sinks.pictures import save_still
from engine.sources.fonts import DEFAULT, carried
from tests.fontfile import FIRST, intricate_font
from tests.media import Audio, Video, encode, lengthless


@pytest.mark.parametrize(
    ("name", "kind", "size", "sound"),
    [
        ("plain", "film", (64, 36), True),
        ("video_only", "film", (64, 36), False),
        ("rotated", "film", (64, 36), False),
        ("hz8000", "sound", None, True),
    ],
)
def test_what_is_in_a_file(media, name, kind, size, sound):
    facts = look_into(str(media.path(name)), name=name)
    assert (facts.kind, facts.size, facts.has_sound) == (kind, size, sound)
    assert facts.duration is not None


def image(folder, width=40, height=30):
    """A PNG whose left half is opaque grey, whose right half is clear."""
    y, a = np.full((height, width), 128, np.uint8), np.zeros((height, width), np.uint8)
    a[:, : width // 2] = 255
    u, v = (np.full((height // 2, width // 2), 128, np.uint8) for _ in range(2))
    save_still(VideoFrame(y, u, v, a), str(folder / "image.png"), (width, height))
    return str(folder / "image.png")


def decoded(path):
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


def test_an_image_has_no_length(tmp_path):
    facts = look_into(image(tmp_path), name="image")
    assert (facts.kind, facts.size, facts.duration) == ("image", (40, 30), None)


def test_an_image_becomes_smaller_ones(tmp_path):
    made = {str(tmp_path / "icon.png"): (20, 15), str(tmp_path / "icon.jpg"): (9, 7)}
    shrink_image(image(tmp_path), made, name="image")
    png, jpeg = map(decoded, made)
    assert ((png.width, png.height), (jpeg.width, jpeg.height)) == tuple(made.values())
    alpha = png.to_ndarray(format="rgba")[:, :, 3]
    assert (alpha[7, 3], alpha[7, 16]) == (255, 0)
    assert {each.name for each in tmp_path.iterdir()} == {"image.png", "icon.png", "icon.jpg"}


def test_a_drawing_is_an_image_of_its_own_size(tmp_path):
    path = tmp_path / "logo"  # its name does not matter
    half = "<rect width='20' height='30'/>"
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30">{half}</svg>')
    check_drawing(str(path), name="logo")
    facts = look_into(str(path), name="logo")
    assert (facts.kind, facts.size, facts.duration) == ("image", (40, 30), None)
    shrink_image(str(path), {str(tmp_path / "icon.png"): (20, 15)}, name="logo")
    alpha = decoded(tmp_path / "icon.png").to_ndarray(format="rgba")[:, :, 3]
    assert (alpha[7, 3], alpha[7, 16]) == (255, 0)


def test_what_is_no_drawing(tmp_path):
    with pytest.raises(SourceError, match='image "logo": not an SVG'):
        check_drawing(image(tmp_path), name="logo")
    with pytest.raises(SourceError, match="no such file"):
        check_drawing(str(tmp_path / "nosuch.svg"), name="logo")


@pytest.mark.parametrize("kept", [1, 9_400])  # bytes; those of its letters' outlines begin at 9388
def test_a_font_that_is_cut_off_is_refused(tmp_path, kept):
    whole = next(path for path in carried() if "Bungee" in path.name)
    check_font(str(whole), name="whole")
    path = tmp_path / "cut.ttf"
    path.write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(SourceMalformed, match='font "upload": '):
        check_font(str(path), name="upload")


def test_a_font_with_a_letter_of_too_many_curves_is_refused(tmp_path):
    check_font(str(intricate_font(tmp_path / "dense.ttf", curves=16_384, letters=1)), name="dense")
    path = intricate_font(tmp_path / "denser.ttf", curves=16_385, letters=1)
    with pytest.raises(SourceMalformed, match=r'^font "upload": has a letter of 16385 lines and curves, more than '):
        check_font(str(path), name="upload")


def test_a_text_in_such_a_font_is_refused_with_one_sentence(tmp_path):
    path = intricate_font(tmp_path / "denser.ttf", curves=20_000, letters=1)
    with pytest.raises(SourceUnsupported, match=r'^text "一": its string has a letter of 20000 lines and curves, '):
        ink_measure({"x": str(path)})(chr(FIRST), "x")


def test_where_no_image_can_be_written(tmp_path):
    with pytest.raises(SinkError, match="there is no folder"):
        shrink_image(image(tmp_path), {str(tmp_path / "no" / "icon.png"): (4, 4)}, name="image")


def test_how_long_it_is(media):
    assert abs(look_into(str(media.path("plain")), name="plain").duration - 2) < Fraction(1, 20)


def test_a_screen_that_stands_still_lasts_to_its_last_picture(tmp_path):
    """Such an MP4 calls itself as long as its pictures would be one after the other, without the pauses."""
    moments = (*range(0, 1000, 40), 2000, 2960)
    path = str(encode(tmp_path / "screen.mp4", Video(bframes=2, pts_ms=moments), None, seconds=3))
    with av.open(path) as file:
        assert file.streams.video[0].duration * file.streams.video[0].time_base < 2
    facts = look_into(path, name="screen")
    assert facts.duration == length_of(path, name="screen")
    assert abs(facts.duration - 3) < Fraction(1, 20)


def test_a_screen_that_stands_still_is_no_longer_than_it_was_trimmed_to(tmp_path):
    """Its last picture is said to last until the next one, which is cut away."""
    path = encode(tmp_path / "screen.mp4", Video(bframes=0, pts_ms=(*range(0, 1000, 40), 2960)), None, seconds=3)
    film = bytearray(path.read_bytes())
    at = film.index(b"elst") + 4 + 4 + 4  # version and flags, entries; all versions are 0
    assert film[at - 4 : at] == (1).to_bytes(4)
    film[at : at + 4] = (1500).to_bytes(4)  # of the film's time base, ms
    path.write_bytes(film)
    with av.open(path) as file:
        assert file.streams.video[0].duration * file.streams.video[0].time_base == 1.5
    assert look_into(str(path), name="screen").duration == 1.5


@pytest.mark.parametrize("rate", [44_100, 48_000, 22_050])
def test_an_mp3_of_whole_seconds_lasts_for_whole_seconds(tmp_path, rate):
    path = str(encode(tmp_path / "tone.mp3", None, Audio("libmp3lame", rate=rate), seconds=3))
    assert look_into(path, name="tone").duration == 3


@pytest.mark.parametrize("tag", [b"", b"APETAGEX" + np.random.default_rng(1).bytes(1 << 17)], ids=["", "tag"])
@pytest.mark.parametrize("name", ["a.aac", "a.mp3"])
def test_sound_that_does_not_say_how_long_it_is_lasts_as_long_as_it_is_heard(tmp_path, name, tag):
    """libav guesses it from the bit rate of the first packets."""
    path = lengthless(tmp_path / name)
    whole = length_of(str(path), name="sound")
    path.write_bytes(path.read_bytes() + tag)
    with av.open(str(path)) as file:
        assert abs(file.duration / av.time_base - 5) > 1
    assert look_into(str(path), name="sound").duration == whole
    assert abs(whole - 5) < Fraction(1, 10)


def test_a_length_that_is_decoded_is_in_whole_microseconds(tmp_path):
    path = str(tmp_path / "third.wav")
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(bytes(2 * 16_000))
    assert length_of(path, name="third") == Fraction("0.333333")


def test_what_is_no_media(media):
    with pytest.raises(SourceError, match='"upload"'):
        look_into(str(media.path("text")), name="upload")


def test_texts_are_measured():
    measure = ink_measure({})
    one, two = measure("I", DEFAULT), measure("II", DEFAULT)
    assert 0 < one.width < two.width
    assert one.height == pytest.approx(two.height)
    assert one.height > 300


@pytest.mark.parametrize("name", ["plain", "video_only", "audio_only"])
def test_the_length_of_what_does_not_say_it(media, name):
    facts = look_into(str(media.path(name)), name=name)
    assert abs(length_of(str(media.path(name)), name=name) - facts.duration) < Fraction(1, 10)


def test_the_length_of_what_is_no_media(media):
    with pytest.raises(SourceError):
        length_of(str(media.path("text")), name="text")
