"""Timelines of real files, rendered: every clip shows and plays the right moment of its medium, exactly."""

import os
import wave
from bisect import bisect_right
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import msgspec
import numpy as np
import pytest

from engine.clip import Clip, ColourTween, Container, Medium, Scale, Tween
from engine.offline import render
from engine.program import Held
from engine.spec import AudioFormat, EncoderSpec, MixerSpec, Raster, RenderSpec
from engine.timeline import Mash
from engine.tree import AudioSourceNode, RenderTree, VideoSourceNode
from tests.media import Audio, Video, encode, numbers, read_number

RATE = 8000
NONE = 0xFFFF  # what white reads as
LOSSLESS = EncoderSpec(quality=0)
LEFT, RIGHT = ({"x": Tween(x, x), "width": Tween(0.5, 0.5), "lock": ""} for x in (0, 1))


def clip(name, frame, frames, medium, *, seen=True, **scale):
    container = Container(scale=Scale(**scale)) if seen else None
    return Clip(id=name, frame=frame, frames=frames, content=medium, container=container)


def film(name="film", **more):
    return Medium(kind="film", name=name, **more)


def sound(name="tale", *, gain=((0, 1.0),), **more):
    return Medium(kind="sound", name=name, gain=gain, **more)


def mash(*tracks, quantize=30):
    return Mash(tracks, raster=Raster(64, 36), quantize=quantize)


def spec_of(output, program, sources, *, fps=30, **more):
    mixer = MixerSpec(raster=program.raster, fps=Fraction(fps), audio=AudioFormat(RATE, 1))
    sources = {name: str(path) for name, path in sources.items()}
    return RenderSpec(
        output=str(output), mixer=mixer, sources=sources, duration=program.duration, encoder=LOSSLESS, **more
    )


async def shown(folder, program, sources, **more):
    output = folder / "out.mkv"
    await render(program, spec_of(output, program, sources, **more))
    return numbers(output)


def tale(folder):
    """A sound of 4 s in which every sample tells its own index: its value is that number in 1/32768."""
    path = folder / "tale.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.arange(4 * RATE, dtype=np.int16)[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


async def heard(folder, program, sources, **more):
    """What was played: the index of every sample, 0 in silence."""
    output = folder / "out.wav"
    await render(program, spec_of(output, program, sources, **more))
    with av.open(str(output)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)]).astype(int)


# --- pictures ---------------------------------------------------------------------------------------------------------


async def test_clips_of_one_film_show_their_own_moments(tmp_path, media):
    clips = [
        clip("a", 0, 10, film(trim=30)),
        clip("b", 10, 10, film()),  # back to where the film begins
        clip("c", 20, 5, film(trim=50)),
        clip("d", 30, 10, film(trim=55)),  # on to where it goes on, after a gap
    ]
    found = await shown(tmp_path, mash(clips), {"film": media.path("plain")})
    assert found == [*range(30, 40), *range(10), *range(50, 55), *[0] * 5, *range(55, 60), *[59] * 5]


async def test_two_clips_of_one_film_at_once_are_two_moments_of_it(tmp_path, media):
    tracks = [
        [clip("a", 0, 20, film(size=(32, 36)), **LEFT)],
        [clip("b", 5, 15, film(size=(32, 36), trim=40), **RIGHT)],
    ]
    output = tmp_path / "out.mkv"
    program = mash(*tracks)
    await render(program, spec_of(output, program, {"film": media.path("plain")}))
    with av.open(str(output)) as container:
        luma = [frame.to_ndarray()[:36] for frame in container.decode(video=0)]
    assert [read_number(y[:, :32]) for y in luma] == [*range(20)]
    assert [read_number(y[:, 32:]) for y in luma] == [*[0] * 5, *range(40, 55)]


async def test_a_clip_longer_than_its_film_begins_again(tmp_path, media):
    found = await shown(tmp_path, mash([clip("a", 0, 25, film(length=10, trim=20))]), {"film": media.path("plain")})
    assert found == [*range(20, 30), *range(20, 30), *range(20, 25)]


@pytest.mark.parametrize(
    ("speed", "step"), [(2, 2), (Fraction(1, 2), Fraction(1, 2)), (Fraction(3, 2), Fraction(3, 2))]
)
async def test_pictures_at_another_speed(tmp_path, media, speed, step):
    program = mash([clip("a", 0, 20, film(speed=Fraction(speed), trim=5))])
    found = await shown(tmp_path, program, {"film": media.path("plain")})
    half = Fraction(1, 2) - Fraction(30, 1000)  # of a tick: the nearest picture is shown
    assert found == [int(5 + n * step + half) for n in range(20)]


@pytest.mark.parametrize("rate", [24, 25, 30, Fraction(30_000, 1001), 50, 60])
async def test_cuts_show_the_nearest_picture(tmp_path, rate):
    path = encode(tmp_path / "a.mkv", Video(rate=Fraction(rate)), None, seconds=2)  # its stamps are whole milliseconds
    program = mash([clip(str(n), 5 * n, 5, film(trim=7 * n % 40)) for n in range(8)])
    found = await shown(tmp_path, program, {"film": path})
    for n, number in enumerate(found):
        at = Fraction(7 * (n // 5) % 40 + n % 5, 30)
        wanted = (at + Fraction(1, 60)) * rate
        near = Fraction(rate) * Fraction(2, 1000)  # two frames are equally near, all but
        assert number in {int(wanted), int(wanted - near)}, n
    if rate == 60:
        assert all(number % 2 == 0 for number in found)


@pytest.mark.parametrize(
    ("rate", "speed", "suffix"),
    [
        (25, Fraction(1), ".mp4"),
        (25, Fraction(1), ".mkv"),  # its stamps are whole milliseconds
        (25, Fraction(9, 10), ".mp4"),
        (Fraction(25, 2), Fraction(1), ".mkv"),
        (50, Fraction(1), ".mkv"),
    ],
)
async def test_nothing_from_beyond_an_out_point_flashes_before_a_cut(tmp_path, rate, speed, suffix):
    path = encode(tmp_path / f"a{suffix}", Video(rate=Fraction(30)), None, seconds=2)
    lengths = [17, 13, 11, 16, 14, 12, 19, 10]
    cuts = [sum(lengths[:n]) for n in range(len(lengths) + 1)]
    trims = [0, 20, 1, 21, 2, 22, 3, 23]
    clips = [
        clip(str(a), a, b - a, film(trim=trim, speed=speed)) for (a, b), trim in zip(pairwise(cuts), trims, strict=True)
    ]
    found = await shown(tmp_path, mash(clips), {"film": path}, fps=rate)
    for n, number in enumerate(found):
        k = bisect_right(cuts, n / Fraction(rate) * 30) - 1
        assert trims[k] <= number < trims[k] + lengths[k] * speed, n


async def test_nothing_from_beyond_an_out_point_flashes_before_another_turn(tmp_path, media):
    program = mash([clip("a", 0, 94, film(length=47))])
    found = await shown(tmp_path, program, {"film": media.path("plain")}, fps=25)
    assert len(found) == 79
    assert max(found) == 46


def beside_longer_sound(folder, suffix, first_ms=500, last_ms=1000, seconds=2):
    """A film whose pictures, 0 to 14, begin after its sound and end before it."""
    is_transport = suffix == ".ts"  # in which a picture is as late as its encoder and AAC has no beginning at 0
    times = tuple(round(first_ms + n * (last_ms - first_ms) / 15) - 30 * is_transport for n in range(15))
    sound = Audio("mp2" if is_transport else "aac", 16_000, "mono")
    return encode(folder / f"film{suffix}", Video(pts_ms=times), sound, seconds=seconds)


async def shown_on_white(folder, path, *clips):
    """The program, and the numbers of its pictures; `NONE` where there is none."""
    program = Mash([clips], raster=Raster(64, 36), quantize=30, background=(1.0, 1.0, 1.0, 1.0))
    return program, await shown(folder, program, {"film": path})


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
async def test_the_first_and_the_last_picture_of_a_film_stay_while_there_is_only_sound(tmp_path, suffix):
    path = beside_longer_sound(tmp_path, suffix)
    whole = [0] * 15 + [*range(15)] + [14] * 30
    program, found = await shown_on_white(tmp_path, path, clip("a", 0, 60, film()), clip("b", 60, 5, film(trim=50)))
    assert found == whole + [14] * 5
    assert (await shown_on_white(tmp_path, path, clip("a", 0, 30, film(speed=Fraction(2)))))[1] == whole[::2]
    split = [clip("a", 0, 50, film(length=60)), clip("b", 50, 20, film(trim=50, length=10))]
    assert (await shown_on_white(tmp_path, path, *split))[1] == whole + [14] * 10
    again = clip("a", 0, 130, film(length=60))
    assert (await shown_on_white(tmp_path, path, again))[1] == whole + whole + whole[:10]
    for n in (3, 20, 45, 62):
        still = Held(program.tree_at(Fraction(n, 30)))
        spec = spec_of(tmp_path / "still.mkv", program, {"film": path})
        await render(still, msgspec.structs.replace(spec, duration=Fraction(1, 30)))
        assert numbers(tmp_path / "still.mkv") == found[n : n + 1]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
async def test_a_picture_stays_however_much_sound_there_is_before_and_after_it(tmp_path, suffix):
    path = beside_longer_sound(tmp_path, suffix, 25_000, 25_500, seconds=55)
    clips = [
        clip(str(n), 5 * n, 5, film(trim=trim)) for n, trim in enumerate((0, 30 * 24, 30 * 50, 30 * 30, 1, 30 * 25))
    ]
    _, found = await shown_on_white(tmp_path, path, *clips)
    assert found == [0] * 10 + [14] * 10 + [0] * 5 + [*range(5)]


async def test_a_film_without_a_picture_shows_nothing(tmp_path):
    assert (await shown_on_white(tmp_path, tale(tmp_path), clip("a", 0, 5, film())))[1] == [NONE] * 5


async def test_a_film_that_was_split_is_shown_as_if_it_were_whole(tmp_path, media):
    whole = mash([clip("a", 0, 50, film())])
    split = mash([clip(str(n), n, 10, film(trim=n)) for n in range(0, 50, 10)])
    found = [await shown(tmp_path, program, {"film": media.path("plain")}, fps=25) for program in (whole, split)]
    assert found[0] == found[1]


async def test_a_render_that_starts_in_the_middle_of_a_clip(tmp_path, media):
    program = mash([clip("a", 10, 30, film(trim=5))])
    output = tmp_path / "still.png"
    await render(program, spec_of(output, program, {"film": media.path("plain")}, start=Fraction(2, 3)))
    assert numbers(output) == [15]


async def test_leaves_without_an_id_are_told_apart_by_their_time(tmp_path, media):
    output = tmp_path / "still.png"
    for at in (0.5, 1):
        program = Held(RenderTree(root_video_node=VideoSourceNode(stream_guid="film", at=at)))
        spec = spec_of(output, mash([clip("a", 0, 1, film())]), {"film": media.path("plain")})
        await render(program, spec)
        assert numbers(output) == [int(at * 30)]


async def test_many_clips_are_not_open_at_once(tmp_path, media):
    path = media.path("plain")
    program = mash([clip(str(n), 9 * n, 9, film(trim=n % 40)) for n in range(60)])
    most = []

    def report(progress):
        most.append(sum(os.path.realpath(link) == str(path) for link in Path("/proc/self/fd").iterdir()))

    await render(program, spec_of("null:", program, {"film": path}), report=report)
    assert 1 <= max(most) <= 10  # one is on, and the 2 s that come are opened
    assert numbers(path)[:3] == [0, 1, 2]


# --- sound ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [30, 25, Fraction(30_000, 1001), 60, 7])
async def test_sound_is_the_medium_s_to_the_sample_over_cuts_of_one_take(tmp_path, fps):
    """A take that is cut into clips plays as if it were whole."""
    clips = [clip(str(n), 10 * n, 10, sound(trim=10 * n), seen=False) for n in range(6)]
    found = await heard(tmp_path, mash(clips, quantize=20), {"tale": tale(tmp_path)}, fps=fps)
    assert found[: 3 * RATE - 1] == pytest.approx(np.arange(3 * RATE - 1), abs=1)


@pytest.mark.parametrize(("name", "codec"), [("song.mp3", "libmp3lame"), ("song.m4a", "aac"), ("song.flac", "flac")])
async def test_sound_at_another_rate_plays_over_cuts_as_if_it_were_whole(tmp_path, name, codec):
    song = encode(tmp_path / name, None, Audio(codec, rate=11_025 * 2, layout="mono", hz=(700,)), seconds=4)
    cuts = [0, 5, 10, 13, 21, 30]
    parts = [clip(str(a), a, b - a, sound("song", trim=a), seen=False) for a, b in pairwise(cuts)]
    whole, split = [
        await heard(tmp_path, mash(clips, quantize=10), {"song": song})
        for clips in ([clip("a", 0, 30, sound("song"), seen=False)], parts)
    ]
    assert np.abs(whole).max() > 10_000
    assert np.abs(whole - split).max() <= 8


async def test_sound_begins_and_ends_at_its_tick(tmp_path):
    clips = [clip("a", 3, 6, sound(trim=12), seen=False), clip("b", 15, 3, sound(trim=30), seen=False)]
    found = await heard(tmp_path, mash(clips), {"tale": tale(tmp_path)})
    expected = np.zeros(18 * RATE // 30, int)
    expected[800:2400] = np.arange(3200, 4800)
    expected[4000:] = np.arange(8000, 8800)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("fps", [1, 7, 12, 25, Fraction(30_000, 1001), 30])
@pytest.mark.parametrize("seen", [False, True])
async def test_sound_begins_and_ends_at_its_sample_whatever_the_ticks(tmp_path, media, fps, seen):
    clips = [
        clip("a", 1, 3, sound(trim=4), seen=False),
        clip("b", 5, 2, sound(trim=9), seen=False),
        clip("c", 7, 2, sound(trim=20), seen=False),
        clip("d", 19, 1, sound(), seen=False),
    ]
    over = [[clip("p", 3, 12, film(trim=10))]] if seen else []
    program = mash(clips, *over, quantize=10)
    found = await heard(tmp_path, program, {"tale": tale(tmp_path), "film": media.path("plain")}, fps=fps)
    expected = np.zeros(2 * RATE, int)
    for first, stop, at in ((1, 4, 4), (5, 7, 9), (7, 9, 20), (19, 20, 0)):
        expected[first * RATE // 10 : stop * RATE // 10] = np.arange((stop - first) * RATE // 10) + at * RATE // 10
    length = len(expected)
    assert length <= len(found) <= length + RATE // 25  # to the end of its last tick
    assert np.abs(found[:length] - expected).max() <= 1
    assert not found[length:].any()


@pytest.mark.parametrize("fps", [1, 7, 30])
@pytest.mark.parametrize("length", [3, 11])
async def test_a_sound_begins_again_at_its_sample(tmp_path, fps, length):
    program = mash([clip("a", 1, 39, sound(trim=3, length=length), seen=False)], quantize=10)
    found = await heard(tmp_path, program, {"tale": tale(tmp_path)}, fps=fps)
    expected = np.append(np.zeros(RATE // 10, int), 2400 + np.arange(39 * RATE // 10) % (length * RATE // 10))
    assert np.abs(found - expected).max() <= 1


async def test_a_sound_longer_than_its_medium_begins_again(tmp_path):
    found = await heard(
        tmp_path, mash([clip("a", 0, 20, sound(trim=3, length=6), seen=False)]), {"tale": tale(tmp_path)}
    )
    assert np.abs(found - (800 + np.arange(20 * RATE // 30) % 1600)).max() <= 1


async def test_two_clips_at_once_are_summed(tmp_path):
    tracks = [
        [clip("a", 0, 20, sound(gain=((0, 0.5),)), seen=False)],
        [clip("b", 10, 10, sound(gain=((0, 0.5),)), seen=False)],
    ]
    found = await heard(tmp_path, mash(*tracks), {"tale": tale(tmp_path)})
    n = np.arange(20 * RATE // 30)
    half = len(n) // 2
    assert np.abs(found - (n + np.where(n >= half, n - half, 0)) / 2).max() <= 2


async def test_a_gain_curve_has_no_steps(tmp_path):
    path = tmp_path / "flat.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, 2 * RATE), 20_000, np.int16), format="s16", layout="mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
    curve = ((0, 0.0), (0.5, 1.0), (0.75, 1.0), (1, 0.0))
    found = await heard(tmp_path, mash([clip("a", 0, 60, sound(gain=curve), seen=False)]), {"tale": path})
    drawn = np.interp(np.arange(2 * RATE), [0, RATE, 1.5 * RATE, 2 * RATE], [0, 20_000, 20_000, 0])
    assert np.abs(found - drawn).max() <= 8
    assert np.abs(np.diff(found)).max() <= 20_000 / (RATE / 2) + 2


def level(tmp_path):
    """Four seconds of 10 000."""
    path = tmp_path / "level.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(np.full(4 * RATE, 10_000, "<i2").tobytes())
    return path


@pytest.mark.parametrize("fps", [1, 10, Fraction(30_000, 1001)])
async def test_a_gain_curve_is_in_time_whatever_the_ticks(tmp_path, fps):
    curve = ((0.0, 0.0), (0.2, 1.0), (0.5, 1.0), (1.0, 0.25))
    program = mash([clip("a", 12, 60, sound("level", gain=curve), seen=False)])
    found = (await heard(tmp_path, program, {"level": level(tmp_path)}, fps=fps))[12 * RATE // 30 : 72 * RATE // 30]
    wanted = 10_000 * np.interp(np.arange(len(found)) / (2 * RATE), *zip(*curve, strict=True))
    within_2_ms = 10_000 / 0.4 * 0.002 / 4  # around a point of the curve, where it takes the straight way
    assert np.abs(found - wanted).max() <= within_2_ms + 5


@pytest.mark.parametrize("fps", [1, 10, 30])
@pytest.mark.parametrize("at", [0.29, 0.3333, 0.5])  # of 2 s; the last is right at a tick
async def test_a_step_of_a_gain_curve_takes_two_milliseconds_whatever_the_ticks(tmp_path, fps, at):
    curve = ((0, 1.0), (at, 1.0), (at, 0.0), (0.9, 0.0), (0.9, 0.5))
    program = mash([clip("a", 0, 60, sound("level", gain=curve), seen=False)])
    found = (await heard(tmp_path, program, {"level": level(tmp_path)}, fps=fps))[: 2 * RATE]
    step, back, near = round(2 * at * RATE), round(1.8 * RATE), int(0.002 * RATE)
    assert np.abs(found[: step - near] - 10_000).max() <= 1
    assert not found[step + near : back - near].any()
    assert np.abs(found[back + near :] - 5_000).max() <= 1


async def test_a_tree_that_is_held_plays_on_from_where_it_says(tmp_path):
    voice = AudioSourceNode(stream_guid="tale", at=0.5)
    program = Held(RenderTree(root_audio_node=voice))
    spec = spec_of(tmp_path / "out.wav", mash([clip("a", 0, 20, sound())]), {"tale": tale(tmp_path)})
    await render(program, spec)
    with av.open(str(spec.output)) as container:
        found = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert np.abs(found - (4000 + np.arange(len(found)))).max() <= 1


async def test_a_muted_stretch_costs_no_sync(tmp_path):
    curve = ((0, 1.0), (0.25, 1.0), (0.25, 0.0), (0.75, 0.0), (0.75, 1.0), (1, 1.0))
    found = await heard(tmp_path, mash([clip("a", 0, 80, sound(gain=curve), seen=False)]), {"tale": tale(tmp_path)})
    last = slice(int(0.8 * len(found)), len(found))
    assert np.abs(found - np.arange(len(found)))[last].max() <= 1
    assert not found[int(0.3 * len(found)) : int(0.7 * len(found))].any()


async def test_a_film_is_seen_and_heard_from_one_place(tmp_path, media):
    medium = film(trim=15, gain=((0, 1.0),))
    picture = [clip("a", 0, 15, medium), clip("b", 15, 15, ColourTween((1, 0, 0, 1), (1, 0, 0, 1)))]
    program = mash(picture)
    tree = program.tree_at(Fraction(1, 3))
    (voice,) = tree.root_audio_node.nodes
    assert (voice.id, voice.at) == (tree.root_video_node.nodes[0].id, tree.root_video_node.nodes[0].at)
    output = tmp_path / "out.mkv"
    await render(program, spec_of(output, program, {"film": media.path("plain")}))
    assert numbers(output)[:15] == [*range(15, 30)]
    with av.open(str(output)) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert np.abs(samples[: RATE // 2 - 400]).max() > 0.4
    assert np.abs(samples[RATE // 2 + 400 : RATE]).max() < 0.02


@pytest.mark.parametrize("speed", ["1/10", "1/2", "3/2", "2"])
async def test_sound_at_another_speed_is_where_it_should_be(tmp_path, speed):
    program = mash([clip("a", 6, 24, sound(trim=15, speed=Fraction(speed)), seen=False)])
    found = await heard(tmp_path, program, {"tale": tale(tmp_path)})
    begin = 6 * RATE // 30
    assert not found[:begin].any()
    expected = RATE / 2 + np.arange(len(found) - begin) * float(Fraction(speed))
    assert np.abs(found[begin:] - expected).max() < 0.04 * RATE  # as near as windows that fit are
    assert np.mean(found[begin:] - expected) == pytest.approx(0, abs=0.015 * RATE)


@pytest.mark.parametrize("speed", ["1/2", "3/2", "2"])
async def test_a_clip_that_was_split_sounds_as_if_it_were_whole(tmp_path, speed):
    """Also at another speed, where what comes out depends on what came before."""
    song = tmp_path / "song.wav"
    encode(song, None, Audio(codec="pcm_s16le", rate=RATE, layout="mono"), seconds=4)
    pace = Fraction(speed)

    def part(name, start, stop):
        return clip(name, start, stop - start, sound("song", speed=pace, trim=int(start * pace)), seen=False)

    whole = await heard(tmp_path, mash([part("a", 0, 40)]), {"song": song})
    split = mash([part("a", 0, 10), part("b", 10, 26), part("c", 26, 40)])
    assert np.array_equal(await heard(tmp_path, split, {"song": song}), whole)


@pytest.mark.parametrize("fps", [5, 30])
@pytest.mark.parametrize(("before", "after"), [(0.5, 1.0), (0.0, 1.0), (1.0, 0.25)])
async def test_a_part_of_another_volume_begins_with_it(tmp_path, fps, before, after):
    first = clip("a", 0, 43, sound(gain=((0, before),)), seen=False)
    second = clip("b", 43, 37, sound(gain=((0, after),), trim=43), seen=False)
    sources = {"tale": tale(tmp_path)}
    apart = await heard(tmp_path, mash([first], [second]), sources, fps=fps)
    assert np.abs(await heard(tmp_path, mash([first, second]), sources, fps=fps) - apart).max() <= 1
