"""Outputs of a request get the dialect's defaults and share mixes where one serves several."""

from fractions import Fraction

import pytest

from api.moviemasher.outputs import digits, output_spec, passes_for, read_outputs
from engine.errors import InvalidMash
from engine.spec import AudioFormat, EncoderSpec, Raster

PREVIEW, OUTPUT = Raster(480, 270), Raster(1920, 1080)
SECONDS = Fraction(3)


def read(*outputs):
    return read_outputs(list(outputs), preview=PREVIEW, output=OUTPUT)


def of(kind, **members):
    return {"outputType": kind, **members}


def passes(*outputs):
    """The files of each pass; a sequence's is empty."""
    return [sorted(each.file for each in mix.outputs) for mix in passes_for(read(*outputs), duration=SECONDS)]


def test_the_defaults_of_a_film():
    (film,) = read(of("video"))
    assert (film.file, film.size, film.rate) == ("video.mp4", (1920, 1080), 30)
    assert film.sound == AudioFormat(44_100, 2)
    assert film.encoder == EncoderSpec(gop=60, profile="high", audio_bit_rate=160_000)  # of a quality nothing is said


@pytest.mark.parametrize(
    ("kind", "file", "size"),
    [
        ("audio", "audio.mp3", (480, 270)),
        ("image", "image.jpg", (480, 270)),
        ("imagesequence", "", (480, 270)),
        ("waveform", "waveform.png", (320, 240)),
    ],
)
def test_the_defaults_of_the_others(kind, file, size):
    (output,) = read(of(kind))
    assert (output.file, output.size) == (file, size)


def test_what_is_asked_for_comes_before_the_defaults():
    asked = of(
        "video", width="640", height=360, videoRate=29.97, audioRate=48000, audioChannels=1, audioBitrate=96,
        extension="webm", basename="film", mute=True, options={"g": 30, "crf": 30},
    )  # fmt: skip
    (film,) = read(asked)
    assert (film.file, film.size, film.rate) == ("film.webm", (640, 360), Fraction(30_000, 1001))
    assert (film.sound, film.mute) == (AudioFormat(48_000, 1), True)
    assert (film.encoder.gop, film.encoder.quality, film.encoder.audio_bit_rate) == (30, 30, 96_000)


@pytest.mark.parametrize(
    ("kind", "extension", "rate"),
    [("video", "mkv", 44_100), ("video", "webm", 48_000), ("audio", "wav", 44_100), ("waveform", "png", 44_100)],
)
def test_sound_has_the_dialects_rate_where_the_codec_has_it(kind, extension, rate):
    assert read(of(kind, extension=extension))[0].sound.rate == rate
    (other,) = read(of(kind, extension=extension, audioRate="8000"))
    assert other.sound.rate == 8000


def test_what_has_no_codec_for_sound_has_any_rate():
    for output in (of("audio", extension="wav"), of("waveform")):
        assert read(output | {"audioRate": 12_345})[0].sound.rate == 12_345


@pytest.mark.parametrize(
    ("kind", "size"),
    [("video", (404, 228)), ("image", (405, 229)), ("imagesequence", (405, 229)), ("waveform", (405, 229))],
)
def test_odd_sizes_of_films_are_rounded_down_and_images_keep_theirs(kind, size):
    (output,) = read(of(kind, width=405, height=229))
    assert output.size == size


def test_the_second_of_a_kind_has_a_number():
    files = [each.file for each in read(of("image"), of("image"), of("image", extension="png"), of("image"))]
    assert files == ["image.jpg", "image-1.jpg", "image.png", "image-2.jpg"]
    assert [each.file for each in read(of("image"), of("image", basename="icon"))] == ["image.jpg", "icon.jpg"]


@pytest.mark.parametrize(
    "number", [10**400, -(10**400), "1e400", 1e308, -1e308, True], ids=lambda number: f"{number!r:.6}"
)
def test_a_number_without_measure_is_refused_in_a_sentence(number):
    for name in ("width", "height", "videoRate", "audioRate", "audioChannels", "audioBitrate"):
        with pytest.raises(InvalidMash):
            read(of("video", **{name: number}))
    for name in ("crf", "g"):
        with pytest.raises(InvalidMash):
            read(of("video", options={name: number}))


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        (None, "expected an array"),
        ([], "expected an array"),
        ([of("image")] * 33, "expected an array"),
        ([3], "$.outputs[0]: expected an object"),
        ([of("video"), of("hologram")], "$.outputs[1].outputType: 'hologram' is not one of video, audio"),
        ([of("video", width=-3)], "width -3 is not"),
        ([of("video", width=1e9)], "width 1000000000 is not within"),
        ([of("video", width="wide")], "width 'wide' is no number"),
        ([of("video", videoRate=0)], "videoRate '0' is no number"),
        ([of("video", videoRate=1e5)], "frame rate 100000 is not within"),
        ([of("video", videoRate="1/0")], "videoRate '1/0' is no number"),
        ([of("video", extension="exe")], "extension 'exe' is not one of mp4"),
        ([of("audio", audioChannels=6)], "6 audio channels"),
        (
            [of("audio"), of("video", extension="webm", audioRate=44100)],
            "$.outputs[1]: audioRate 44100 of webm is not one",
        ),
        ([of("audio", audioRate=96000)], "audioRate 96000 of mp3 is not one of 8000, 11025"),
        ([of("video", audioRate="12345")], "audioRate 12345 of mp4 is not one of 8000, 11025"),
        ([of("waveform", forecolor="red")], "forecolor 'red' is no colour"),
        ([of("image", basename="../x")], "basename '../x' is taken, or no plain word"),
        ([of("image", basename="a"), of("image", basename="a")], "basename 'a' is taken"),
        ([of("imagesequence", basename="a"), of("imagesequence", basename="a")], "basename 'a' is taken"),
        ([of("imagesequence"), of("image", basename="07")], "basename '07' is that of a sequence's file"),
        ([of("image", basename="a-7"), of("imagesequence", basename="a")], "basename 'a-7' is that of a sequence's"),
    ],
)
def test_what_cannot_be(outputs, sentence):
    with pytest.raises(InvalidMash) as caught:
        read_outputs(outputs, preview=PREVIEW, output=OUTPUT)
    assert sentence in str(caught.value)


def test_a_film_its_sound_and_smaller_images_are_one_pass():
    small = {"width": 320, "height": 180}
    outputs = (of("video", videoRate=30), of("audio"), of("image"), of("imagesequence", **small), of("waveform"))
    assert passes(*outputs) == [["", "audio.mp3", "image.jpg", "video.mp4", "waveform.png"]]


def test_what_no_mix_serves_has_its_own():
    assert passes(of("video"), of("video", width=1280, height=720)) == [["video.mp4"], ["video-1.mp4"]]
    assert passes(of("video"), of("image", width=300, height=300)) == [["video.mp4"], ["image.jpg"]]
    assert passes(of("video", videoRate=25), of("imagesequence")) == [["video.mp4"], [""]]
    assert passes(of("video"), of("audio", audioRate=48000)) == [["video.mp4"], ["audio.mp3"]]
    assert passes(of("video", extension="webm"), of("video")) == [["video.webm"], ["video.mp4"]]
    assert passes(of("video", width=320, height=180), of("image")) == [["video.mp4"], ["image.jpg"]]


def test_images_alone_are_a_moment():
    mixes = passes_for(read(of("image"), of("image", width=240, height=135), of("image", offset=1)), duration=SECONDS)
    assert [(mix.at, len(mix.outputs)) for mix in mixes] == [(0, 2), (SECONDS - Fraction(1, 30), 1)]
    assert passes(of("audio"), of("image")) == [["image.jpg"], ["audio.mp3"]]


def test_a_sound_that_joins_a_silent_mix_says_how_it_sounds():
    (mix,) = passes_for(read(of("imagesequence"), of("audio", audioRate=48000)), duration=SECONDS)
    assert mix.mixer.audio.rate == 48_000


def test_how_a_sequence_is_numbered_and_taken():
    (mix,) = passes_for(read(of("video"), of("imagesequence", width=240, height=135)), duration=SECONDS)
    found = output_spec(mix.outputs[1], mix, "out", duration=SECONDS, seen=True, heard=True)
    assert (found.path, found.every, found.size) == ("out/%02d.jpg", 3, (240, 135))


def test_every_sequence_has_names_of_its_own():
    small = {"width": 240, "height": 135}
    asked = (of("imagesequence"), of("imagesequence", **small), of("imagesequence", basename="small", **small))
    read(*asked, of("image", basename="small-x"), of("image", basename="small-1", extension="png"))
    (mix,) = passes_for(read(*asked), duration=SECONDS)
    paths = [output_spec(each, mix, "out", duration=SECONDS, seen=True, heard=True).path for each in mix.outputs]
    assert paths == ["out/%02d.jpg", "out/imagesequence-1-%02d.jpg", "out/small-%02d.jpg"]


@pytest.mark.parametrize(
    ("seconds", "count"), [("3", 2), ("0.1", 1), ("1.1", 1), ("1.2", 2), ("10.2", 3), ("10.1", 2), ("0.05", 1)]
)
def test_as_many_digits_as_the_client_thinks(seconds, count):
    assert digits(Fraction(seconds), Fraction(10)) == count
