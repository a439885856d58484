"""render() opens what a program names, mixes it to its end, and leaves a whole file or none."""

import subprocess
import sys
from fractions import Fraction

import av
import msgspec
import numpy as np
import pytest
import trio

import engine
from engine.errors import EngineError, InvalidSpec, SinkRejected, SourceError
from engine.offline import Progress, render
from engine.program import Held, halved
from engine.spec import EncoderSpec, MixerSpec, OutputSpec, Raster, RenderSpec
from engine.tree import (
    AudioSourceNode,
    CompositorNode,
    Effect,
    ImageSourceNode,
    RenderTree,
    SolidColorNode,
    VideoSourceNode,
)
from tests.engine.mashes import FILM, PHOTO, clip, mash
from tests.media import TONE, Audio, Video, encode, numbers

SMALL = MixerSpec(raster=Raster(64, 36))


def film(guid="cam", *, sound=True, **fields):
    audio = AudioSourceNode(stream_guid=guid) if sound else None
    return Held(RenderTree(root_video_node=VideoSourceNode(stream_guid=guid, **fields), root_audio_node=audio))


def spec_of(path, media=None, *, source="plain", **fields):
    sources = {"cam": str(media.path(source))} if media is not None else {}
    return RenderSpec(output=str(path), **{"mixer": SMALL, "sources": sources} | fields)


@pytest.mark.parametrize("bframes", [0, 2])
async def test_slides_that_are_far_apart_beside_sound_are_all_shown_from_their_beginning_on(tmp_path, bframes):
    """A slide stays in its decoder until the next one has been read, by which time much sound waits."""
    slides = Video(pts_ms=(0, 30_000, 60_000), bframes=bframes)
    film = encode(tmp_path / "slides.mp4", slides, Audio("aac", 8000, "mono"), seconds=70)
    tree = RenderTree(
        root_video_node=CompositorNode(nodes=(VideoSourceNode(stream_guid="cam"),)),
        root_audio_node=AudioSourceNode(stream_guid="cam"),
    )
    mixer = msgspec.structs.replace(SMALL, fps=Fraction(1))
    out = tmp_path / "out.mkv"
    for start, wanted in ((0, [0] * 30 + [1] * 30 + [2]), (20, [0] * 10 + [1] * 30 + [2])):
        span = {"start": Fraction(start), "duration": Fraction(61 - start)}
        await render(Held(tree), spec_of(out, mixer=mixer, sources={"cam": str(film)}, **span))
        assert numbers(out) == wanted


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def test_the_public_names_are_there():
    assert engine.render is render
    assert all(getattr(engine, name) for name in engine.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        _ = engine.nosuch


def test_a_tree_costs_no_libav_no_trio_no_numpy():
    script = (
        "import sys, engine.tree, engine.command; from engine import RenderTree, Held, RenderSpec; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"av", "trio", "numpy", "engine_ext"} & set(loaded)


async def test_a_film_is_as_long_as_its_longest_source(tmp_path, media):
    left, right = ({"dest_width": 32, "dest_x": x} for x in (0, 32))
    nodes = (VideoSourceNode(stream_guid="cam", **left), VideoSourceNode(stream_guid="short", **right))
    tree = RenderTree(root_video_node=CompositorNode(nodes=nodes))
    sources = {"cam": str(media.path("plain")), "short": str(media.path("fps25"))}
    rendered = await render(Held(tree), spec_of(tmp_path / "out.mp4", sources=sources))
    assert (rendered.output, rendered.ticks, rendered.clipped) == (str(tmp_path / "out.mp4"), 60, 0)
    assert rendered.elapsed > 0
    assert len(numbers(tmp_path / "out.mp4")) == 60


async def test_the_padding_of_a_sound_does_not_make_a_film_of_the_same_length_longer(tmp_path):
    """MP4 says where sound ends within its last block, of which all is decoded."""
    sources = {
        "cam": str(encode(tmp_path / "silent.mp4", Video(), None)),
        "song": str(encode(tmp_path / "song.m4a", None, Audio(rate=44_100))),
    }
    sound = AudioSourceNode(stream_guid="song")
    tree = RenderTree(root_video_node=VideoSourceNode(stream_guid="cam"), root_audio_node=sound)
    rendered = await render(Held(tree), spec_of(tmp_path / "out.mp4", sources=sources))
    assert rendered.ticks == 30
    assert numbers(tmp_path / "out.mp4") == list(range(30))


async def test_the_sound_of_a_film_is_heard_to_its_end_beside_another_picture(tmp_path):
    """Sound that is a little longer than its own picture counts as padding only where that is shown."""
    shorter, short = (Video(pts_ms=tuple(n * 100 // 3 for n in range(count))) for count in (24, 5))
    sources = {
        "cam": str(encode(tmp_path / "short.mp4", short, None)),
        "song": str(encode(tmp_path / "film.mp4", shorter, TONE)),
    }
    sound = AudioSourceNode(stream_guid="song")
    tree = RenderTree(root_video_node=VideoSourceNode(stream_guid="cam"), root_audio_node=sound)
    assert (await render(Held(tree), spec_of(tmp_path / "out.mp4", sources=sources))).ticks >= 30


async def test_a_sound_alone_is_heard_to_the_last_of_its_blocks(tmp_path):
    sources = {"song": str(encode(tmp_path / "song.m4a", None, Audio(rate=44_100)))}
    tree = RenderTree(root_audio_node=AudioSourceNode(stream_guid="song"))
    rendered = await render(Held(tree), spec_of(tmp_path / "out.wav", sources=sources))
    assert rendered.ticks == 31


@pytest.mark.parametrize("endless", ["pattern:bars?size=64x36", "logo.png"])
async def test_a_pattern_or_a_still_beside_a_film_lasts_as_long_as_the_film(tmp_path, media, endless):
    plane = np.full((36, 64, 3), 200, np.uint8)
    av.VideoFrame.from_ndarray(plane).save(str(tmp_path / "logo.png"))
    source = endless if ":" in endless else str(tmp_path / endless)
    nodes = (VideoSourceNode(stream_guid="cam"), VideoSourceNode(stream_guid=source, dest_width=32))
    tree = RenderTree(root_video_node=CompositorNode(nodes=nodes))
    with trio.fail_after(60):
        rendered = await render(Held(tree), spec_of(tmp_path / "out.mp4", media))
    assert rendered.ticks == 60


@pytest.mark.parametrize(("fps", "ticks"), [(30, 60), (25, 50), (60, 120), (Fraction(30_000, 1001), 60)])
async def test_the_pictures_of_a_real_film(tmp_path, media, fps, ticks):
    mixer = MixerSpec(raster=Raster(64, 36), fps=Fraction(fps))
    rendered = await render(film(), spec_of(tmp_path / "out.mkv", media, mixer=mixer))
    assert rendered.ticks == ticks
    assert numbers(tmp_path / "out.mkv") == [
        min(59, int((n / Fraction(fps) + 1 / Fraction(fps) / 4) * 30)) for n in range(ticks)
    ]


async def test_a_duration_is_a_duration(tmp_path, media):
    assert (await render(film(), spec_of(tmp_path / "a.mp4", media, duration=Fraction(1, 2)))).ticks == 15
    assert (await render(film(), spec_of(tmp_path / "b.mp4", media, duration=Fraction(5, 2)))).ticks == 75
    assert numbers(tmp_path / "b.mp4")[59:] == [59, *[0] * 15]


async def test_one_picture_of_a_moment(tmp_path, media):
    rendered = await render(film(), spec_of(tmp_path / "still.png", media, start=Fraction(3, 2)))
    assert rendered.ticks == 1
    assert numbers(tmp_path / "still.png") == [45]


WAVE = {"waveform": ("#ffffff", "#000000")}


@pytest.mark.parametrize(("fields", "ticks"), [({}, 1), ({"at": Fraction(1)}, 45), (WAVE, 45)])
async def test_an_image_among_the_outputs_is_mixed_as_far_as_it_is_needed(tmp_path, media, fields, ticks):
    image = OutputSpec(path=str(tmp_path / "still.png"), **fields)
    spec = spec_of(image.path, media, outputs=(image,), duration=Fraction(3, 2))
    assert (await render(film(), spec)).ticks == ticks


@pytest.mark.parametrize(("limit", "ticks"), [(Fraction(1, 2), 15), (Fraction(5), 60)])
async def test_a_limit_ends_a_film_sooner_and_makes_none_longer(tmp_path, media, limit, ticks):
    reports = []
    rendered = await render(film(), spec_of(tmp_path / "a.mp4", media, limit=limit), report=reports.append)
    assert (rendered.ticks, {report.total for report in reports}) == (ticks, {ticks})
    song = Held(RenderTree(root_audio_node=AudioSourceNode(stream_guid="cam")))  # mixed several ticks at a time
    assert (await render(song, spec_of(tmp_path / "a.wav", media, limit=limit))).ticks == ticks


@pytest.mark.parametrize("source", ["plain", "bt709"])  # one that is encoded, one that is copied
@pytest.mark.parametrize(("duration", "limit"), [(1, Fraction(1, 2)), (Fraction(1, 2), 1)])
async def test_of_a_duration_and_a_limit_the_smaller_one_holds(tmp_path, media, source, duration, limit):
    reports = []
    spec = spec_of(tmp_path / "a.mp4", media, source=source, duration=Fraction(duration), limit=Fraction(limit))
    rendered = await render(film(sound=False), spec, report=reports.append)
    assert (rendered.ticks, rendered.copied > 0, {report.total for report in reports}) == (15, source != "plain", {15})


@pytest.mark.parametrize("program", [film("pattern:bars?size=64x36"), Held(RenderTree())])
async def test_what_has_no_end_ends_at_its_limit(tmp_path, program):
    assert (await render(program, spec_of(tmp_path / "a.mp4", limit=Fraction(1, 2)))).ticks == 15


async def test_what_has_no_end_needs_a_duration(tmp_path):
    with pytest.raises(InvalidSpec, match="no source here has an end"):
        await render(film("pattern:bars"), spec_of(tmp_path / "out.mp4"))
    assert names(tmp_path) == []
    assert (await render(film("pattern:bars"), spec_of(tmp_path / "out.png"))).ticks == 1


@pytest.mark.parametrize("duration", [None, Fraction(1, 2)])
async def test_a_numbered_name_gets_every_picture(tmp_path, media, duration):
    rendered = await render(film(), spec_of(tmp_path / "f%02d.png", media, start=Fraction(3, 2), duration=duration))
    assert rendered.ticks == 15
    assert names(tmp_path) == [f"f{n:02}.png" for n in range(1, 16)]
    assert [numbers(tmp_path / name) for name in names(tmp_path)] == [[n] for n in range(45, 60)]


async def test_a_start_beyond_the_end_makes_no_empty_film(tmp_path, media):
    with pytest.raises(InvalidSpec, match="every source is over at 2 s"):
        await render(film(), spec_of(tmp_path / "out.mp4", media, start=Fraction(2)))
    assert names(tmp_path) == []


async def test_progress_comes_to_its_end(tmp_path, media):
    told = []
    rendered = await render(film(), spec_of(tmp_path / "out.mp4", media), report=told.append)
    assert told[-1] == Progress(60, 60, told[-1].elapsed)
    assert 0 < told[-1].elapsed <= rendered.elapsed
    assert all(0 <= each.done <= each.total for each in told)


async def test_a_report_that_raises_ends_the_render(tmp_path):
    def report(progress):
        raise SinkRejected("nobody listens")

    with pytest.raises(SinkRejected, match="nobody listens"):
        await render(film("pattern:bars"), spec_of(tmp_path / "out.mp4", duration=Fraction(86_400)), report=report)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["out.mp4", "out.webm", "out.wav", "out.png"])
async def test_what_is_cancelled_leaves_nothing(tmp_path, name):
    with trio.CancelScope() as scope:

        class Cancelling:
            def tree_at(self, t):
                if t > Fraction(1, 2) or name == "out.png":
                    scope.cancel()
                return film("pattern:bars").tree

            def sources_in(self, start, stop):
                return frozenset(("pattern:bars",))

            def coming(self, start, stop):
                return ()

            def edges(self, start, stop):
                return ()

        await render(Cancelling(), spec_of(tmp_path / name, duration=Fraction(3600)))
    assert scope.cancelled_caught
    assert names(tmp_path) == []


async def test_what_a_source_lacks_is_said_once(tmp_path, media, caplog):
    leaves = (VideoSourceNode(stream_guid="cam"), VideoSourceNode(stream_guid="cam", dest_width=5))
    tree = RenderTree(root_video_node=CompositorNode(nodes=leaves), root_audio_node=AudioSourceNode(stream_guid="cam"))
    assert (await render(Held(tree), spec_of(tmp_path / "a.mp4", media, source="hz8000"))).ticks == 30
    assert (await render(Held(tree), spec_of(tmp_path / "v.mp4", media, source="video_only"))).ticks == 30
    assert [record.getMessage() for record in caplog.records] == [
        'source "cam" has no picture: it is not drawn',
        'source "cam" has no sound: it is silent',
    ]


async def test_an_image_comes_from_its_folder_or_from_where_it_is_said_to_be(tmp_path, media):
    await render(film(sound=False), spec_of(tmp_path / "seven.png", media, start=Fraction(7, 30)))
    tree = Held(RenderTree(root_video_node=ImageSourceNode(filename="seven.png")))
    await render(tree, spec_of(tmp_path / "a.png", images=str(tmp_path)))
    sources = {"seven.png": str(tmp_path / "seven.png")}
    await render(tree, spec_of(tmp_path / "b.png", images="nowhere", sources=sources))
    assert [numbers(tmp_path / name) for name in ("a.png", "b.png")] == [[7], [7]]


async def test_an_image_may_be_an_svg(tmp_path):
    inside = '<rect width="32" height="36" fill="#f00"/>'
    (tmp_path / "a.svg").write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="36">{inside}</svg>')
    blue, logo = SolidColorNode(blue=1), ImageSourceNode(filename="a.svg")
    tree = Held(RenderTree(root_video_node=CompositorNode(nodes=(blue, logo))))
    await render(tree, spec_of(tmp_path / "out.png", images=str(tmp_path)))
    with av.open(str(tmp_path / "out.png")) as container:
        pixels = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert pixels[18, [8, 56]].ravel() == pytest.approx((255, 0, 0, 0, 0, 255), abs=4)


@pytest.mark.parametrize("source", ["empty", "text"])
async def test_a_source_that_cannot_be_opened(tmp_path, media, source):
    with pytest.raises(SourceError, match='source "cam"'):
        await render(film(), spec_of(tmp_path / "out.mp4", media, source=source))
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "program", [film("nosuch.mp4"), Held(RenderTree(root_video_node=ImageSourceNode(filename="nosuch.png")))]
)
async def test_a_file_that_is_not_there(tmp_path, program):
    with pytest.raises(SourceError, match=r"nosuch\.\w+\".*no such file"):
        await render(program, spec_of(tmp_path / "out.mp4", duration=Fraction(1)))
    assert names(tmp_path) == []


def film_at_the_end(content=FILM):
    """A colour for a second, then what is given for another; ten frames a second."""
    return mash([clip(), clip(content, frame=10)])


@pytest.mark.parametrize(
    ("content", "file", "sentence"),
    [
        (FILM, "nosuch.mp4", 'source "film": no such file'),
        (FILM, "empty", 'source "film": the file is empty'),
        (PHOTO, "nosuch.png", 'image "photo": no such file'),
        (PHOTO, "empty", 'image "photo": not an image'),
        (PHOTO, "", 'image "photo": is a directory'),
    ],
)
async def test_a_file_that_is_missing_at_the_end_is_told_before_the_output_is_opened(tmp_path, content, file, sentence):
    (tmp_path / "empty").touch()
    (tmp_path / "out.mp4").mkdir()  # which no output can be
    sources = {content.name: str(tmp_path / file)}
    with pytest.raises(SourceError, match=sentence):
        await render(film_at_the_end(content), spec_of(tmp_path / "out.mp4", sources=sources, duration=Fraction(2)))
    with pytest.raises(SinkRejected, match="is a directory"):
        await render(film_at_the_end(content), spec_of(tmp_path / "out.mp4", sources=sources, duration=Fraction(1)))


async def test_an_image_is_looked_for_in_its_folder_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo").write_bytes(b"")
    with pytest.raises(SourceError, match='image "photo": no such file'):
        await render(film_at_the_end(PHOTO), spec_of("out.mp4", images=str(tmp_path / "images"), duration=Fraction(2)))


async def test_what_is_not_rendered_may_be_missing(tmp_path):
    sources = {"film": str(tmp_path / "nosuch.mp4"), "photo": str(tmp_path / "nosuch.png")}
    still = spec_of(tmp_path / "out.png", sources=sources, duration=Fraction(2))
    assert (await render(film_at_the_end(), still)).ticks == 1
    sound = halved(film_at_the_end(PHOTO), picture=False, sound=True)
    assert (await render(sound, spec_of(tmp_path / "out.wav", sources=sources, duration=Fraction(2)))).ticks == 60


async def test_an_impossible_output_is_refused_before_anything_is_opened(tmp_path):
    with pytest.raises(SinkRejected, match="extension"):
        await render(film("nosuch.mp4"), spec_of(tmp_path / "out.xyz"))


async def test_a_scene_without_sources_lasts_as_long_as_it_is_told(tmp_path):
    program = Held(RenderTree(root_video_node=SolidColorNode(red=1)))
    with pytest.raises(InvalidSpec):
        await render(program, spec_of(tmp_path / "out.mp4"))
    assert (await render(program, spec_of(tmp_path / "out.mp4", duration=Fraction(1, 30)))).ticks == 1


async def test_every_error_of_the_engine_is_one(tmp_path):
    async with trio.open_nursery():
        with pytest.raises(EngineError):
            await render(film("nosuch.mp4"), spec_of(tmp_path / "out.mp4"))


async def test_sound_is_exact_to_the_last_sample(tmp_path, media):
    await render(film(), spec_of(tmp_path / "out.wav", media, source="hz8000"))
    with av.open(str(tmp_path / "out.wav")) as container:
        samples = np.concatenate([frame.to_ndarray().reshape(-1, 2) for frame in container.decode(audio=0)])
    assert samples.shape == (48_000, 2)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    assert np.abs(samples[2000:46_000] / 32768 - tone[2000:46_000, np.newaxis]).max() < 0.01


async def test_quality_zero_is_what_was_mixed(tmp_path, media):
    spec = spec_of(tmp_path / "out.mkv", media, encoder=EncoderSpec(quality=0), source="bt709")
    await render(film(sound=False), spec)
    with av.open(str(tmp_path / "out.mkv")) as ours, av.open(str(media.path("bt709"))) as theirs:
        for a, b in zip(ours.decode(video=0), theirs.decode(video=0), strict=True):
            assert np.array_equal(a.to_ndarray(), b.to_ndarray())


async def test_what_stays_small_is_decoded_with_less_care_and_nobody_sees_it(tmp_path):
    source = encode(tmp_path / "in.mp4", Video(size=(256, 144), bframes=2, options={"crf": "36"}), audio=None)
    lossless = EncoderSpec(quality=0)
    made = {}
    for name, width, exact in (("eased", 64, False), ("exact", 64, True), ("big", 192, False), ("all", 192, True)):
        mixer = MixerSpec(raster=Raster(width, width * 9 // 16))
        output = tmp_path / f"{name}.mkv"
        spec = spec_of(output, mixer=mixer, encoder=lossless, exact=exact)
        await render(film(str(source), sound=False), spec)
        with av.open(output) as container:
            made[name] = np.array([frame.to_ndarray(format="gray") for frame in container.decode(video=0)], float)
    error = np.mean((made["eased"] - made["exact"]) ** 2)
    assert 0 < error < 255**2 / 10**4.5  # better than 45 dB
    assert np.array_equal(made["big"], made["all"])


@pytest.mark.parametrize("where", ["with effects", "masked", "as a mask", "with effects as a mask"])
async def test_what_is_also_shown_whole_is_decoded_with_care_wherever_that_is(tmp_path, where):
    source = str(encode(tmp_path / "in.mp4", Video(size=(256, 144), bframes=2, options={"crf": "36"}), audio=None))
    white = SolidColorNode(red=1, green=1, blue=1)
    faded = Effect(effect="opacity", parameters={"opacity": 1})
    plain, altered = VideoSourceNode(stream_guid=source), VideoSourceNode(stream_guid=source, effects=(faded,))
    whole = {
        "with effects": altered,
        "masked": VideoSourceNode(stream_guid=source, mask=white),
        "as a mask": msgspec.structs.replace(white, mask=plain),
        "with effects as a mask": msgspec.structs.replace(white, mask=altered),
    }[where]
    small = VideoSourceNode(stream_guid=source, dest_width=64, dest_height=36)
    tree = RenderTree(root_video_node=CompositorNode(nodes=(whole, small)))
    made = []
    for exact in (False, True):
        output = tmp_path / f"{exact}.mkv"
        mixer = MixerSpec(raster=Raster(256, 144))
        await render(Held(tree), spec_of(output, mixer=mixer, encoder=EncoderSpec(quality=0), exact=exact))
        with av.open(output) as container:
            made.append(np.array([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]))
    assert np.array_equal(*made)
