"""Recorded mashes: what the original server made of them, or what it should have made where it is known to be wrong.

A recorded picture is a PNG of a film in 4:2:0, in which every sample of chroma stands four times, so pictures are
compared as the film had them: luma, and the chroma that the four pixels share. Both are BT.601 there, since the
original's films are untagged; ours are BT.709, and are counted back. The original's filters apply masks as if chroma
were that of the middle of its four pixels, but films have it between the two left ones, where ours is: of what is
masked, our chroma is compared as it is half a pixel further right.
"""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from api.commands import main
from api.moviemasher.mash import read_mash
from engine.offline import render
from engine.program import Held
from engine.spec import AudioFormat, EncoderSpec, EventSpec, MixerSpec, Raster, RenderSpec
from tests.engine.test_event import studio
from tests.media import TONE, Video, encode, matrix_of, numbers

GOLDEN = Path(__file__).parent / "golden" / "moviemasher"
CASES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((GOLDEN / "cases").glob("*.json"))}
# Not recorded: shapes that are wider than a tree allows, and grow or move. Each is a grid of bricks in a 40:1 box.
COLUMNS, ROWS = range(1750, 2250, 2), range(20, 80, 10)
BEYOND = {
    "shape-stands": {"height": 2},
    "shape-grows": {"height": 1, "heightEnd": 2},
    "shape-moves": {"height": 2, "x": 0.45, "xEnd": 0.55},
    "shape-masks": {"height": 1.8, "heightEnd": 2, "opacity": 0.5},
}


def beyond(name):
    """The case of such a shape."""
    path = "".join(f"M{x} {y}h1v5h-1z" for x in COLUMNS for y in ROWS)
    grid = {"id": "grid", "type": "container", "path": path, "pathWidth": 4000, "pathHeight": 100}
    photo = {"id": "photo", "type": "image", "source": "photo.jpg", "sourceSize": {"width": 400, "height": 300}}
    clip = {"containerId": "grid", "container": BEYOND[name], "sizing": "container", "timing": "custom", "frames": 10}
    if name == "shape-masks":
        clip |= {"contentId": "photo", "content": {"effects": [{"definitionId": "com.moviemasher.effect.blur"}]}}
    mash = {"color": "#000000", "quantize": 10, "tracks": [{"clips": [clip]}]}
    return {"mash": mash, "definitions": [grid, photo], "outputs": [{}], "result": None}


CASES |= {name: beyond(name) for name in BEYOND}
SHOWN = [name for name, case in CASES.items() if case.get("frames")]
TEXTS = [name for name in SHOWN if name.startswith("text")]
# The original had no such file as the mash names and took the machine's own font: these letters of it.
FONT = GOLDEN / "media" / "DejaVuSans-Bold.ttf"
LOSSLESS = EncoderSpec(quality=0)


def film_of(name, *, fps=10, output=""):
    """The film of a case, and how it is rendered."""
    case = CASES[name]
    size = case["outputs"][0]
    raster = Raster(size.get("width", 320), size.get("height", 180))
    film = read_mash(case["mash"], case["definitions"], raster=raster)
    sources = {name: str(GOLDEN / "media" / source) for name, source in film.sources.items()}
    spec = RenderSpec(
        output=str(output),
        mixer=MixerSpec(raster=raster, fps=Fraction(fps), audio=AudioFormat(44_100, 2)),
        encoder=LOSSLESS,
        sources=sources | dict.fromkeys(film.fonts, str(FONT)),
        start=film.start,
        duration=film.duration - film.start,
        smart="never",
    )
    return film, spec


def split(samples, height):
    """Y, U, V of a picture as PyAV gives it: (H·3/2, W)."""
    quarter = height // 4
    shape = (height // 2, samples.shape[1] // 2)
    return (
        samples[:height].astype(float),
        samples[height : height + quarter].reshape(shape).astype(float),
        samples[height + quarter :].reshape(shape).astype(float),
    )


def decoded(path):
    with av.open(str(path)) as container:
        return [split(frame.to_ndarray(), frame.height) for frame in container.decode(video=0)]


async def rendered(name, folder, *, fps=10):
    film, spec = film_of(name, fps=fps, output=folder / f"{name}.mkv")
    await render(film.program, spec)
    return decoded(spec.output)


def four_times(chroma):
    return np.repeat(np.repeat(chroma, 2, 0), 2, 1)


def shared(chroma):
    return (chroma[::2, ::2] + chroma[1::2, ::2] + chroma[::2, 1::2] + chroma[1::2, 1::2]) / 4


def counted_back(planes, *, middle=False):
    """BT.709 → BT.601, no more saturated than RGB can be; chroma as it is in the middle of four pixels."""
    y, u, v = planes
    if middle:
        u, v = (each * 0.75 + np.pad(each, ((0, 0), (0, 1)), mode="edge")[:, 1:] * 0.25 for each in (u, v))
    parts = np.stack([(y - 16) / 219, four_times(u - 128) / 224, four_times(v - 128) / 224])
    rgb = np.tensordot(np.linalg.inv(matrix_of("bt709")), parts, axes=1).clip(0, 1)
    y, u, v = np.tensordot(matrix_of("bt601"), rgb, axes=1)
    return 16 + 219 * y, 128 + 224 * shared(u), 128 + 224 * shared(v)


def recorded(frame):
    """The picture that a PNG was made of."""
    with av.open(str(GOLDEN / "frames" / frame)) as container:
        pixels = next(container.decode(video=0)).to_ndarray(format="rgb24") / 255
    y, u, v = np.moveaxis(pixels @ matrix_of("bt601").T, 2, 0)
    return 16 + 219 * y, 128 + 224 * shared(u), 128 + 224 * shared(v)


def psnr(a, b):
    return 10 * np.log10(255**2 / max(1e-9, ((a - b) ** 2).mean()))


def box(planes, background):
    """What is brighter or darker than the background: left, top, right, bottom; None where nothing is."""
    rows, columns = (np.flatnonzero((np.abs(planes[0] - background) > 16).any(axis=axis)) for axis in (1, 0))
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else None


def background_of(name):
    """The luma of what is under everything."""
    digits = CASES[name]["mash"]["color"]
    rgb = [int(digits[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    return 16 + 219 * (matrix_of("bt601") @ rgb)[0]


SLACK = {  # pixels: texts as wide as their hinting, others where their edges fade
    **dict.fromkeys(TEXTS, 2),
    **dict.fromkeys(("heart-color", "heart-image", "mash-background", "effect-chromakey"), 1),
}
MASKED = ("heart-color", "heart-image", "mash-background", "imagecontainer-color")


@pytest.mark.parametrize("name", SHOWN)
async def test_it_looks_as_recorded(name, tmp_path):
    found, background = await rendered(name, tmp_path), background_of(name)
    for frame in CASES[name]["frames"]:
        ours, theirs = counted_back(found[int(frame[-7:-4])], middle=name in MASKED), recorded(frame)
        if name not in TEXTS:
            assert min(psnr(a, b) for a, b in zip(ours, theirs, strict=True)) >= 35, frame
        edges = zip(box(ours, background) or (), box(theirs, background) or (), strict=True)
        assert max((abs(a - b) for a, b in edges), default=0) <= SLACK.get(name, 0), frame


@pytest.mark.parametrize("name", ["shape-stands", "shape-grows", "shape-moves"])
async def test_a_shape_wider_than_a_tree_allows_is_where_its_geometry_says_to_the_pixel(name, tmp_path):
    fields = BEYOND[name]
    found = await rendered(name, tmp_path)
    assert len(found) == 10
    begin = grid_box(fields["height"], fields.get("x", 0.5))
    end = grid_box(fields.get("heightEnd", fields["height"]), fields.get("xEnd", fields.get("x", 0.5)))
    for n, (luma, _, _) in enumerate(found):
        x, y, width, height = (int(a + (b - a) * (n / 10)) for a, b in zip(begin, end, strict=True))
        across = covered(320, x & ~1, width / 4000, COLUMNS)
        down = covered(180, y & ~1, height / 100, [row + k for row in ROWS for k in range(5)])
        assert np.abs(luma - (16 + 219 * np.outer(down, across))).max() <= 4, n


def grid_box(scale, share):
    """Left, top, width and height of the box of a scale's height and x."""
    width, height = 7200 * scale, 180 * scale
    return round((320 - width) * share), round((180 - height) / 2), width, height


def covered(size, begin, unit, units):
    """How much of each pixel the units of a box that begins there cover."""
    places = ((np.arange(size * 64) + 0.5) / 64 - begin) / unit
    return np.isin(np.floor(places), list(units)).reshape(size, 64).mean(axis=1)


def colours(planes):
    """The colour of a picture that has but one."""
    assert all(np.ptp(plane) <= 1 for plane in planes)
    y, u, v = (plane[0, 0] for plane in planes)
    rgb = np.linalg.inv(matrix_of("bt709")) @ [(y - 16) / 219, (u - 128) / 224, (v - 128) / 224]
    return {(255, 0, 0): "red", (0, 0, 255): "blue", (0, 0, 0): "black"}[tuple(int(c) for c in np.round(rgb) * 255)]


@pytest.mark.parametrize(
    ("name", "stretches"),
    [
        ("lead-gap", [("black", 10), ("red", 10), ("blue", 10)]),  # the original leaves out the gap
        ("single-late", [("black", 10), ("red", 10)]),  # and the beginning here
        ("two-colors", [("red", 10), ("blue", 10)]),  # it encodes this in a profile that few can play
        ("mash-frame", [("red", 10), ("blue", 20)]),  # a render begins at the playhead
        ("mid-gap", [("red", 10), ("black", 10), ("blue", 10)]),
    ],
)
async def test_where_the_original_is_wrong_it_is_as_intended(name, stretches, tmp_path):
    found = await rendered(name, tmp_path)
    assert [colours(each) for each in found] == [colour for colour, count in stretches for _ in range(count)]


async def test_a_film_that_is_too_short_begins_again(tmp_path):
    found = await rendered("video-loop", tmp_path)
    assert len(found) == 60
    for first, second in zip(found[:30], found[30:], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(found[0][0], found[29][0])


@pytest.mark.parametrize("audio", [None, TONE])
def test_a_film_that_begins_again_in_the_middle_of_a_frame_leaves_no_gap(audio, tmp_path):
    encode(tmp_path / "film.mp4", Video(rate=Fraction(5, 4)), audio)  # two pictures: 1.6 s
    clip = {"contentId": "film", "timing": "custom", "frames": 4}
    mash = {"quantize": 1, "color": "#FFFFFF", "tracks": [{"clips": [clip]}]}
    document = {"mash": mash, "definitions": [{"id": "film", "type": "video", "source": "film.mp4"}]}
    (tmp_path / "mash.json").write_text(json.dumps(document), encoding="utf-8")
    output = tmp_path / "out.mkv"
    options = ["--size", "64x36", "--fps", "10", "--progress", "none"]
    assert main(["render", str(tmp_path / "mash.json"), str(output), *options]) == 0
    assert numbers(output) == ([0] * 8 + [1] * 2) * 4


async def test_an_image_follows_a_film(tmp_path):
    """The original fails: it has sound, and more than one clip."""
    found = await rendered("video-then-silentimage", tmp_path)
    assert len(found) == 40
    assert box(found[35], 16) == (40, 0, 280, 180)


SOUNDS = {"video-loop": ("-24.1", "-20.7")}  # of the second turn the original has none


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case["result"] is not None and "audio" in case["result"]]
)
async def test_it_is_as_loud_as_recorded(name, tmp_path):
    film, spec = film_of(name, output=tmp_path / "out.wav")
    await render(film.program, spec)
    with av.open(spec.output) as container:
        samples = np.concatenate([frame.to_ndarray().reshape(-1, 2) for frame in container.decode(audio=0)]) / 32768
    levels = [each.split()[1] for each in CASES[name]["result"]["audio"]["volume"]]
    mean, highest = (float(each) for each in SOUNDS.get(name, levels))
    assert 10 * np.log10((samples**2).mean()) == pytest.approx(mean, abs=1)
    assert 20 * np.log10(np.abs(samples).max()) == pytest.approx(highest, abs=1)
    assert len(samples) == int(spec.duration * 44_100)


# All that can be shown: the others have no picture, or are no mash.
SAME = [name for name in CASES if not name.startswith(("audio-", "bad-", "out-"))]


@pytest.mark.parametrize("name", SAME)
async def test_live_a_put_and_a_render_show_the_same(name, tmp_path, monkeypatch):
    monkeypatch.setattr("engine.event.DRAWING", 20)  # what is drawn late on a busy machine is not what is compared
    offline = await rendered(name, tmp_path, fps=30)
    film, spec = film_of(name, fps=30)
    count = min(len(offline), 24)
    event = EventSpec(name="show", path="live", stream_name="mix", mixer=spec.mixer)
    async with studio(event) as made:
        fonts = dict.fromkeys(film.fonts, str(FONT))
        files = {name: spec.sources[name] for name in film.sources}
        slot = made.event.play(film.program, sources=files, fonts=fonts)
        live = {}
        for _ in range(slot + count):
            (picture,) = await made.slot()
            live[made.n] = picture
    for n in range(count):
        for ours, theirs in zip((live[slot + n].y, live[slot + n].u, live[slot + n].v), offline[n], strict=True):
            assert np.array_equal(ours, theirs), n
    for n in (0, count // 2, count - 1):
        tree = film.program.tree_at(Fraction(n, 30))
        one = tmp_path / "one.mkv"
        put = {"output": str(one), "start": Fraction(0), "duration": Fraction(1, 30)}
        await render(Held(type(tree).from_json(tree.to_json())), RenderSpec(**{**fields(spec), **put}))
        (picture,) = decoded(one)
        assert all(np.array_equal(a, b) for a, b in zip(picture, offline[n], strict=True)), n


def fields(spec):
    return {name: getattr(spec, name) for name in spec.__struct_fields__}


def test_the_command_renders_a_mash(tmp_path):
    document = {**CASES["video"], "outputs": []}
    (tmp_path / "mash.json").write_text(json.dumps(document), encoding="utf-8")
    (tmp_path / "clip.mp4").write_bytes((GOLDEN / "media" / "clip.mp4").read_bytes())
    output = tmp_path / "out.mkv"
    options = ["--size", "320x180", "--fps", "10", "--quality", "0", "--smart", "never", "--progress", "none"]
    assert main(["render", str(tmp_path / "mash.json"), str(output), *options]) == 0
    found = decoded(output)
    assert len(found) == 30
    theirs = recorded("video-015.png")
    assert min(psnr(a, b) for a, b in zip(counted_back(found[15]), theirs, strict=True)) >= 35


def test_the_command_says_what_is_wrong_with_a_mash(tmp_path, capsys):
    (tmp_path / "mash.json").write_text('{"mash": {"tracks": [{"clips": [{"contentId": "x"}]}]}}', encoding="utf-8")
    assert main(["render", str(tmp_path / "mash.json"), str(tmp_path / "out.mp4")]) == 1
    assert '$.mash.tracks[0].clips[0].contentId: no definition "x"' in capsys.readouterr().err
