"""A film of copied packets and encoded joints is the film that encoding all of it would have been: every picture at its
time, no seam for a decoder, the sound under it.
"""

from fractions import Fraction
from functools import partial
from itertools import pairwise

import av
import numpy as np
import pytest
import trio

from engine.bitstream import avc_sets
from engine.clip import Clip, Container, Medium, Scale, Shape, Tween
from engine.config import Settings
from engine.errors import SourceMalformed
from engine.frame import AudioFrame, black
from engine.offline import render
from engine.program import Held
from engine.sinks.file import open_sink
from engine.sources.splice import find_splice
from engine.spec import EncoderSpec, MixerSpec, OutputSpec, Raster, RenderSpec
from engine.timeline import Mash
from engine.tree import RenderTree, VideoSourceNode
from tests.media import TONE, Video, encode, number_part, plane, read_number

FINE = EncoderSpec(bit_rate=2_000_000)  # nothing is seen of the coding of what is encoded
FILM = Video(matrix="bt709", bframes=2)  # an IDR picture every 15


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    """Two films of an encoder, and one of another, whose parameter sets have the same numbers and another content."""
    folder = tmp_path_factory.mktemp("films")
    made = {"one": ("one.mp4", FILM), "two": ("two.mkv", FILM)}
    made["other"] = ("other.mov", Video(matrix="bt709", gop=20, options={"refs": "2", "profile": "main"}))
    return {name: str(encode(folder / file, video, seconds=2)) for name, (file, video) in made.items()}


def mash(*cuts, above=()):
    """Clips of (film, first picture, how many) one behind the other, 30 a second."""
    clips, frame = [], 0
    for n, (name, trim, frames) in enumerate(cuts):
        medium = Medium(kind="film", name=name, size=(64, 36), trim=trim, gain=((0, 1),))
        clips.append(Clip(id=str(n), frame=frame, frames=frames, content=medium, container=Container()))
        frame += frames
    return Mash([clips, above], raster=Raster(64, 36), quantize=30, background=(0, 0, 0, 1))


def wanted(*cuts):
    return [trim + n for _, trim, frames in cuts for n in range(frames)]


def spec_of(output, program, films, *, encoder=FINE, **more):
    more = {"duration": program.duration} | more if isinstance(program, Mash) else more
    return RenderSpec(
        output=str(output), mixer=MixerSpec(raster=Raster(64, 36)), sources=films, encoder=encoder, **more
    )


def played(path):
    """Luma of every picture as a player gets it; each must be at its time, and the decoder without a complaint."""
    grid = Fraction(1, 1000) if path.suffix == ".mkv" else 0
    lumas = []
    with av.logging.Capture() as complaints, av.open(str(path)) as container:
        for n, frame in enumerate(container.decode(video=0)):
            assert abs(frame.pts * frame.time_base - Fraction(n, 30)) <= grid / 2
            lumas.append(plane(frame).copy())
    assert not [each for each in complaints if each[0] <= av.logging.WARNING]
    return lumas


def numbers(lumas):
    return [read_number(number_part(luma)) for luma in lumas]


def packets(path):
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def psnr(one, other):
    return 99 if (error := np.mean((one.astype(float) - other) ** 2)) == 0 else 10 * np.log10(255**2 / error)


async def rendered(output, program, films, **more):
    return await render(program, spec_of(output, program, films, **more))


async def test_cuts_on_keyframes_are_copied_bit_by_bit(tmp_path, films):
    cuts = [("one", 15, 30), ("two", 0, 15), ("one", 30, 30), ("two", 30, 30)]
    made = await rendered(tmp_path / "out.mp4", mash(*cuts), films)
    assert (made.ticks, made.copied) == (105, 105)
    lumas = played(tmp_path / "out.mp4")
    assert numbers(lumas) == wanted(*cuts)
    originals = {name: played_plainly(films[name]) for name in ("one", "two")}
    sources = [originals[name][trim + n] for name, trim, frames in cuts for n in range(frames)]
    assert all(np.array_equal(luma, source) for luma, source in zip(lumas, sources, strict=True))


def played_plainly(path):
    with av.open(path) as container:
        return [plane(frame).copy() for frame in container.decode(video=0)]


async def test_a_loud_pure_tone_is_as_clean_as_in_a_film_that_is_encoded(tmp_path, films):
    with av.open(str(tmp_path / "tone.wav"), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=48_000, layout="stereo")
        wave = 0.9 * np.sin(2 * np.pi * 1_000 * np.arange(2 * 48_000) / 48_000)
        frame = av.AudioFrame.from_ndarray(wave.astype(np.float32).repeat(2)[None], "flt", "stereo")
        frame.sample_rate = 48_000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    silent, tone = Medium(kind="film", name="one", size=(64, 36)), Medium(kind="sound", name="tone", gain=((0, 1),))
    film = Clip(id="film", frame=0, frames=60, content=silent, container=Container())
    alone = Clip(id="tone", frame=0, frames=60, content=tone)
    program = Mash([[film], [alone]], raster=Raster(64, 36), quantize=30)
    made = await rendered(tmp_path / "out.mp4", program, films | {"tone": str(tmp_path / "tone.wav")})
    assert made.copied == 60
    with av.open(str(tmp_path / "out.mp4")) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    levels = [np.sqrt(np.mean(part**2)) for part in heard[4_800:91_200].reshape(-1, 960)]  # of 20 ms, 20 periods
    assert max(levels) < 1.1 * min(levels)


ANYWHERE = [("one", 7, 37), ("two", 13, 40), ("one", 1, 12), ("one", 33, 27)]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
async def test_cuts_anywhere_are_the_pictures_of_a_plain_render(tmp_path, films, suffix):
    program = mash(*ANYWHERE)
    smart, plain = tmp_path / f"smart{suffix}", tmp_path / f"plain{suffix}"
    made = await rendered(smart, program, films)
    assert (await rendered(plain, program, films, smart="never")).copied == 0
    assert 70 < made.copied < 90  # of 116: up to 14 before an IDR picture are encoded, and up to 2 at an end
    lumas = played(smart)
    assert numbers(lumas) == wanted(*ANYWHERE)
    assert min(psnr(one, other) for one, other in zip(lumas, played(plain), strict=True)) >= 45


async def test_a_picture_that_stays_behind_the_end_of_its_film_is_encoded(tmp_path, films):
    cuts = [("one", 15, 55), ("two", 0, 15), ("one", 70, 10)]
    made = await rendered(tmp_path / "out.mp4", mash(*cuts), films)
    assert (made.ticks, made.copied) == (80, 60)
    assert numbers(played(tmp_path / "out.mp4")) == [min(59, number) for number in wanted(*cuts)]


async def test_time_stamps_are_even_over_all_joints(tmp_path, films):
    await rendered(tmp_path / "out.mp4", mash(*ANYWHERE), films)
    found = packets(tmp_path / "out.mp4")
    unit = Fraction(1, 30) / found[0].time_base
    assert [packet.dts - found[0].dts for packet in found] == [n * unit for n in range(116)]
    assert sorted(packet.pts for packet in found) == [n * unit for n in range(116)]
    assert all(packet.dts <= packet.pts for packet in found)
    assert found[0].is_keyframe


async def test_all_parameter_sets_stand_at_the_head(tmp_path, films):
    await rendered(tmp_path / "out.mp4", mash(*ANYWHERE), films)
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        sets = avc_sets(bytes(context.extradata))
        tags = [context.colorspace, context.color_primaries, context.color_trc, context.color_range]
        assert context.codec_tag == "avc1"
    assert [len(units) for units in sets] == [2, 2]  # both films have the same
    assert [int(tag) for tag in tags] == [1, 1, 1, 1]


async def test_a_player_can_begin_anywhere(tmp_path, films):
    await rendered(tmp_path / "out.mp4", mash(*ANYWHERE), films)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        for n in (0, 5, 12, 30, 38, 60, 100, 115):
            container.seek(int(Fraction(n, 30) / stream.time_base), stream=stream)
            frames = container.decode(stream)
            shown = next(frame for frame in frames if frame.pts * frame.time_base >= Fraction(n, 30))
            assert read_number(number_part(plane(shown))) == wanted(*ANYWHERE)[n]


async def test_films_of_other_encoders_are_shown_right_too(tmp_path, films):
    cuts = [("one", 0, 45), ("other", 0, 40), ("two", 10, 50)]
    made = await rendered(tmp_path / "out.mp4", mash(*cuts), films)
    assert 125 <= made.copied < 135
    assert numbers(played(tmp_path / "out.mp4")) == wanted(*cuts)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
async def test_a_film_without_b_frames_before_one_with_many_keeps_its_times_in_every_copy(tmp_path, films, suffix):
    deep = Video(matrix="bt709", bframes=4, options={"x264-params": "bframes=4:b-pyramid=normal:b-adapt=0"})
    films = films | {"deep": str(encode(tmp_path / "deep.mp4", deep, None, seconds=2))}
    cuts = [("other", 0, 20), ("one", 0, 30), ("deep", 0, 30)]
    path = tmp_path / f"out{suffix}"
    assert (await rendered(path, mash(*cuts), films)).copied == 80
    sources = [luma for name, _, frames in cuts for luma in played_plainly(films[name])[:frames]]
    assert all(np.array_equal(*pair) for pair in zip(played(path), sources, strict=True))
    with av.open(str(path)) as given, av.open(str(tmp_path / "copy.ts"), "w") as out:
        video = given.streams.video[0]
        assert video.codec_context.has_b_frames
        stream = out.add_stream_from_template(video)
        for packet in given.demux(video):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    found = packets(tmp_path / "copy.ts")
    steps = {round(30 * (b.dts - a.dts) * b.time_base, 1) for a, b in pairwise(found)}
    assert (len(found), steps) == (80, {1})


async def test_what_something_lies_over_is_encoded(tmp_path, films):
    square = Shape("M0 0L9 0L9 9L0 9Z", 9, 9)
    corner = Container(form=square, scale=Scale(x=Tween(1, 1), y=Tween(1, 1), height=Tween(0.2, 0.2)))
    above = Clip(
        id="above", frame=20, frames=10, content=Medium(kind="film", name="two", size=(64, 36)), container=corner
    )
    program = mash(("one", 0, 60), above=[above])
    made = await rendered(tmp_path / "out.mp4", program, films)
    assert made.copied == 19 + 15 or made.copied == 19 + 30
    assert numbers(played(tmp_path / "out.mp4")) == list(range(60))


async def test_a_part_of_one_film_without_a_timeline(tmp_path, films):
    program = Held(RenderTree(root_video_node=VideoSourceNode(stream_guid="one")))
    made = await rendered(tmp_path / "out.mp4", program, films, start=Fraction(1, 3), duration=Fraction(3, 2))
    assert (made.ticks, made.copied) == (45, 40)
    assert numbers(played(tmp_path / "out.mp4")) == list(range(10, 55))


async def test_one_output_of_a_pass_without_sound(tmp_path, films):
    program = mash(("one", 0, 30))
    spec = spec_of(
        "none", program, films, outputs=(OutputSpec(path=str(tmp_path / "a.mp4"), sound=False, encoder=FINE),)
    )
    assert (await render(program, spec)).copied == 30
    assert numbers(played(tmp_path / "a.mp4")) == list(range(30))
    two = (*spec.outputs, OutputSpec(path=str(tmp_path / "b.mp4"), encoder=FINE))
    made = await render(program, spec_of("none", program, films, outputs=two))
    assert made.copied == 0


async def test_the_sound_is_that_of_a_plain_render(tmp_path, films):
    program = mash(*ANYWHERE)
    for name in ("auto", "never"):
        await rendered(tmp_path / f"{name}.mp4", program, films, smart=name)
    smart, plain = (sound(tmp_path / f"{name}.mp4") for name in ("auto", "never"))
    assert smart.shape == plain.shape
    assert abs(smart.shape[1] - 116 * 1600) <= 1024
    tone = 1 / np.sqrt(2) / 2
    assert np.sqrt(np.mean(plain[:, 2000:30_000] ** 2)) == pytest.approx(tone, rel=0.05)
    assert np.sqrt(np.mean((smart - plain) ** 2)) < 0.05 * tone


def sound(path):
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


UNFIT = {
    "of another size": Video(matrix="bt709", size=(66, 36)),
    "in other colours": Video(matrix="bt601"),
    "in the full range": Video(matrix="bt709", full_range=True),
    "upside down": Video(matrix="bt709", rotation=180),
    "with more bits": Video(matrix="bt709", pix_fmt="yuv420p10le"),
    "in another codec": Video("mpeg4", matrix="bt709"),
    "interlaced": Video(matrix="bt709", options={"x264-params": "interlaced=1"}),
    "of another rate": Video(matrix="bt709", rate=Fraction(25)),
}


@pytest.mark.parametrize("what", UNFIT)
async def test_a_film_is_encoded(tmp_path, what):
    path = encode(tmp_path / "film.mp4", UNFIT[what], TONE)
    made = await rendered(tmp_path / "out.mp4", mash(("film", 0, 25)), {"film": str(path)})
    assert (made.ticks, made.copied) == (25, 0)
    assert len(played(tmp_path / "out.mp4")) == 25


@pytest.mark.parametrize(
    "settings",
    [
        {"quality": 20.0},
        {"bit_rate": 2_000},
        {"bit_rate": 10**6, "max_bit_rate": 10**6},
        {"gop": 10},
        {"profile": "main"},
    ],
)
async def test_settings_that_the_film_does_not_keep_are_kept(tmp_path, films, settings):
    made = await rendered(tmp_path / "out.mp4", mash(("one", 0, 30)), films, encoder=EncoderSpec(**settings))
    assert made.copied == 0


async def test_a_film_that_asks_too_much_of_a_player_is_encoded_where_a_profile_is_asked_for(tmp_path):
    path = encode(tmp_path / "film.mp4", Video(matrix="bt709", options={"level": "5.1"}))
    for profile, copied in ("high", 0), (None, 30):
        encoder = EncoderSpec(profile=profile)
        made = await rendered(tmp_path / "out.mp4", mash(("film", 0, 30)), {"film": str(path)}, encoder=encoder)
        assert made.copied == copied


async def test_a_film_that_breaks_off_while_it_is_copied_leaves_no_output(tmp_path, films):
    source = tmp_path / "film.mkv"
    encode(source, FILM, None, seconds=2)
    program = mash(("film", 0, 60))
    spec = spec_of(tmp_path / "out.mp4", program, {"film": str(source)})
    splice = find_splice(program, spec, Settings(), encoder=FINE)
    splice.films["film"].close()
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    opening = partial(open_sink, spec.made, spec.mixer, limiter=trio.CapacityLimiter(1), splice=splice)
    sink = await trio.to_thread.run_sync(opening)
    silence = AudioFrame(np.zeros((2, 1600), np.float32))
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.run)
            for n in range(60):
                await sink.put(n, black(64, 36), silence)
    splice.close()
    assert {str(each) for each in caught.value.exceptions} == {'source "film": breaks off after 0.000 s'}
    assert all(isinstance(each, SourceMalformed) for each in caught.value.exceptions)
    assert [each.name for each in tmp_path.iterdir()] == ["film.mkv"]


async def test_of_many_films_few_are_open(tmp_path):
    films = {f"film{n}": str(encode(tmp_path / f"{n}.mp4", FILM, None)) for n in range(12)}
    program = mash(*((name, 0, 15) for name in films))
    splice = find_splice(program, spec_of("out.mp4", program, films), Settings(), encoder=FINE)
    assert len(splice.copies) == 12
    for copy in splice.copies:
        assert len(list(splice.packets(copy))) == 15
        assert sum(film.is_open for film in splice.films.values()) <= 9
    splice.close()
    assert not any(film.is_open for film in splice.films.values())
