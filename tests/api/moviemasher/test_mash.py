"""A document becomes the timeline that the 5.1 core makes of it, or one sentence that says where it is wrong."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.moviemasher.mash import Film, read_cast, read_mash
from engine.clip import Ink
from engine.errors import InvalidMash
from engine.program import names_in
from engine.spec import Raster
from engine.tree import Effect, RenderTree, ShapeNode, SolidColorNode, TextNode
from tests.strategies import JSON, damaged

GOLDEN = Path(__file__).parents[2] / "golden" / "moviemasher"
SMALL = Raster(320, 180)
EFFECT, FILTER = "com.moviemasher.effect.", "com.moviemasher.filter."
RECTANGLE, TEXT, HEART = (
    "com.moviemasher.container.default",
    "com.moviemasher.container.text",
    "com.remixicon.container.heart",
)
PHOTO = {"id": "photo", "type": "image", "source": "photo.jpg", "sourceSize": {"width": 400, "height": 300}}
FILM = {
    "id": "film",
    "type": "videosequence",
    "source": "film.mp4",
    "duration": 3,
    "audio": True,
    "sourceSize": {"width": 320, "height": 180},
}
TONE = {"id": "tone", "type": "audio", "source": "tone.mp3", "duration": 2.037551}
STAR = {"id": "my.container.star", "type": "container", "path": "M0 0L9 0L5 9Z", "pathWidth": 10, "pathHeight": 20}
CAM = {"id": "cam", "type": "video", "source": "live/cam", "sourceSize": {"width": 320, "height": 180}}
FONT = {"id": "font", "type": "font", "source": "Sans.ttf"}
DEFINITIONS = [PHOTO, FILM, TONE, STAR, CAM, FONT]


def read(*clips, definitions=DEFINITIONS, **mash):
    """The film of a mash with one track."""
    return read_mash({"tracks": [{"clips": list(clips)}], **mash}, definitions, raster=SMALL)


def read_live(mash, definitions=DEFINITIONS):
    """The film of a cast of this one mash, while live/cam is on air."""
    return read_cast({"layers": [{"type": "mash", "mash": mash}]}, definitions, raster=SMALL, streams={"live/cam"})


def first(*clips, t=0, **more):
    """The lowest picture at t."""
    return pictures(read(*clips, **more), t)[0]


def pictures(film, t=0):
    node = film.program.tree_at(Fraction(t)).root_video_node
    return [] if node is None else list(node.nodes)


def voices(film, t=0):
    node = film.program.tree_at(Fraction(t)).root_audio_node
    return [] if node is None else list(node.nodes)


def box(node):
    return (node.dest_x, node.dest_y, node.dest_width, node.dest_height)


def refusal(*clips, definitions=DEFINITIONS, **mash):
    """Where a mash is wrong, and what."""
    with pytest.raises(InvalidMash) as caught:
        read(*clips, definitions=definitions, **mash)
    where, problem = str(caught.value).split(": ", 1)
    assert where == caught.value.where
    return where, problem


# --- lengths and places in time --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clip", "seconds"),
    [
        ({}, 3),
        ({"contentId": "photo"}, 3),
        ({"contentId": "photo", "frames": 15}, "1.5"),
        ({"contentId": "photo", "frames": "15"}, "1.5"),
        ({"contentId": "photo", "frames": 0}, 3),
        ({"contentId": "photo", "frames": -1}, 3),
        ({"contentId": "photo", "frames": "x"}, 3),
        ({"contentId": "film"}, 3),
        ({"contentId": "film", "timing": "custom"}, 3),
        ({"contentId": "tone", "containerId": ""}, 2),  # whole frames of 2.037551 s
        ({"contentId": "tone", "containerId": "", "content": {"startTrim": 5, "endTrim": 3}}, "1.2"),
        ({"contentId": "tone", "containerId": "", "content": {"startTrim": 0, "endTrim": 0, "loops": 1}}, 2),
        ({"contentId": "tone", "containerId": "", "content": {"speed": 2}}, 1),
        ({"contentId": "tone", "containerId": "", "content": {"speed": 0.1}}, 20),
        ({"contentId": "tone", "containerId": "", "content": {"startTrim": 500}}, "0.1"),
        ({"contentId": "tone", "containerId": "", "content": {"loops": 3}}, 2),  # only where the definition loops
        ({"contentId": "photo", "containerId": "film"}, 3),  # timing falls back to the container
        ({"contentId": "photo", "containerId": "film", "container": {"endTrim": 20}}, 1),
        ({"contentId": "film", "containerId": HEART, "timing": "container", "content": {"endTrim": 10}}, 2),
        ({"contentId": "cam"}, 3),
    ],
)
def test_length_of_a_clip(clip, seconds):
    assert read(clip).duration == Fraction(seconds)


def test_a_looping_sound_lasts_as_often():
    definitions = [TONE | {"loop": True}]
    clip = {"contentId": "tone", "containerId": "", "content": {"loops": 3, "startTrim": 5}}
    assert read(clip, definitions=definitions).duration == Fraction(45, 10)


@pytest.mark.parametrize(
    ("seconds", "quantize", "turn"),
    [(2.56, 10, "2.5"), (2.44, 10, "2.4"), (2.6, 1, "2"), (3, 10, "3"), (2.999979, 10, "3"), (0.4, 1, "1")],
)
def test_a_film_loops_after_the_whole_frames_that_it_has(seconds, quantize, turn):
    definitions = [FILM | {"duration": seconds}]
    film = read({"contentId": "film", "frames": quantize * 6}, definitions=definitions, quantize=quantize)
    for n in range(60):
        assert pictures(film, Fraction(n, 10))[0].at == pytest.approx(float(Fraction(n, 10) % Fraction(turn)))


def test_quantize_counts_the_frames_of_everything():
    film = read({"contentId": "film", "content": {"startTrim": 15}}, quantize=30)
    assert (film.duration, pictures(film)[0].at) == (Fraction(75, 30), 0.5)
    for odd in (0, -5, "x", None, 1e400):
        assert read({"frames": 10}, quantize=odd).duration == 1


def starts(*clips, dense):
    """Where the clips of a track begin and end, in frames."""
    film = read_mash({"tracks": [{"clips": list(clips), "dense": dense}]}, raster=SMALL)
    return [(clip.frame, clip.stop) for clip in film.program.tracks[0]]


def at(frame, frames):
    return {"frame": frame, "frames": frames}


def test_dense_tracks_close_their_gaps():
    assert starts(at(7, 10), at(3, 5), at(90, 5), dense=True) == [(0, 10), (10, 15), (15, 20)]


@pytest.mark.parametrize(
    ("clips", "expected"),
    [
        ([at(10, 10), at(30, 5)], [(10, 20), (30, 35)]),
        ([at(30, 5), at(10, 10)], [(10, 20), (30, 35)]),  # sorted
        ([at(0, 10), at(5, 10)], [(0, 10), (10, 20)]),  # what begins within another goes behind it
        ([at(0, 10), at(20, 10), at(5, 3)], [(0, 10), (20, 30), (30, 33)]),  # behind the one before it in the array
        ([at(0, 10), at(10, 10)], [(0, 10), (10, 20)]),
        ([at(0, 10), at(5, 10), at(15, 10)], [(0, 10), (10, 20), (20, 30)]),  # of the moved one, too
    ],
)
def test_clips_of_other_tracks_keep_their_places_unless_they_overlap(clips, expected):
    assert starts(*clips, dense=False) == expected


def test_only_the_first_track_is_dense_by_itself():
    tracks = [{"clips": [at(10, 10)]}, {"clips": [at(10, 10)]}, {"clips": [at(10, 10)], "dense": "x"}]
    film = read_mash({"tracks": tracks}, raster=SMALL)
    assert [track[0].frame for track in film.program.tracks] == [0, 10, 10]


def test_tracks_are_in_the_order_of_their_index():
    colours = [{"index": n, "clips": [{"content": {"color": c}, "frame": 0}]} for n, c in ((1, "#00F"), (0, "#F00"))]
    film = read_mash({"tracks": colours}, raster=SMALL)
    assert [(node.red, node.blue) for node in pictures(film)] == [(1, 0), (0, 1)]


def test_the_playhead_is_where_a_render_begins():
    assert read({"frames": 40}, frame=10).start == 1
    assert read({"frames": 40}, frame=40).start == 0  # nothing is left there
    assert read({"frames": 40}).start == 0


# --- properties ------------------------------------------------------------------------------------------------------


def test_half_seen_colour_keeps_its_alpha():
    assert first({"content": {"color": "#FFFFFF80"}}).alpha == pytest.approx(128 / 255)
    shape = first({"content": {"color": "#FFFFFF80"}, "containerId": HEART, "container": {"opacity": 0.5}})
    assert (shape.color, shape.opacity) == ("#ffffff", pytest.approx(64 / 255))


def test_background_is_drawn_unless_it_is_black():
    assert first({}, color="#336699", t=99) == SolidColorNode(red=0x33 / 255, green=0x66 / 255, blue=0x99 / 255)
    assert pictures(read({}, color="#000000"), 99) == []


def test_tweens_have_an_end_or_stand_still():
    clip = {
        "container": {"opacity": 0, "opacityEnd": 1},
        "content": {"color": "#000", "colorEnd": "#FFF"},
        "frames": 10,
    }
    assert (first(clip, t="0.5").opacity, first(clip, t="0.5").red) == (0.5, 0.5)
    assert first({"container": {"opacity": 0.5, "opacityEnd": "x"}}, t=1).opacity == 0.5


@pytest.mark.parametrize(
    ("part", "name", "beyond", "nearest"),
    [
        *(("container", "x", 1.5, 1), ("container", "y", -0.5, 0), ("container", "width", 3, 2)),
        *(("container", "height", 2.5, 2), ("container", "opacity", 7, 1)),
        *(("content", "x", -1, 0), ("content", "y", 1.1, 1), ("content", "width", 0.5, 1), ("content", "height", 5, 2)),
    ],
)
def test_a_number_outside_its_range_is_the_nearest_within_it(part, name, beyond, nearest):
    box = {"width": 0.5, "height": 0.5, "lock": "", "opacity": 0.5}

    def shown(value):
        clip = {"contentId": "photo", "container": box, "content": {"width": 1.5, "height": 1.5, "lock": ""}}
        return first(clip | {part: clip[part] | {name: value}})

    assert shown(beyond) == shown(nearest)


def test_a_mash_is_a_week_long_at_most():
    week = 7 * 86400
    assert read({"frames": 10 * week}).duration == week
    assert refusal({"frames": 10 * week + 1})[0] == "$.mash.tracks"


def test_off_flags():
    clip = {
        "contentId": "photo",
        "container": {"width": 0.5, "height": 0.5, "x": 0, "y": 0, "offE": True, "offN": "true"},
    }
    assert box(first(clip)) == (-120, -90, 120, 90)


# --- what gives a clip its proportions -------------------------------------------------------------------------------

WHOLE, OF_PHOTO, SQUARE = (0, 0, 320, 180), (40, 0, 240, 180), (70, 0, 180, 180)


@pytest.mark.parametrize(
    ("clip", "place"),
    [
        ({}, WHOLE),
        ({"contentId": "photo"}, OF_PHOTO),
        ({"contentId": "photo", "sizing": "preview"}, WHOLE),
        ({"contentId": "photo", "sizing": "container"}, WHOLE),  # a rectangle has no size of its own
        ({"contentId": "photo", "containerId": HEART}, OF_PHOTO),
        ({"contentId": "photo", "containerId": HEART, "sizing": "container"}, SQUARE),
        ({"containerId": HEART}, SQUARE),
        ({"containerId": HEART, "sizing": "preview"}, WHOLE),
        ({"containerId": "photo"}, OF_PHOTO),
        ({"containerId": "my.container.star"}, (114, 0, 90, 180)),
    ],
)
def test_sizing(clip, place):
    assert box(first(clip)) == place


def test_a_definition_without_its_real_size_has_the_proportions_of_its_preview():
    bare = {"id": "photo", "type": "image", "source": "p", "previewSize": {"width": 360, "height": 270}}
    node = first({"contentId": "photo"}, definitions=[bare])
    assert (box(node), node.fit) == (OF_PHOTO, "cover")


@pytest.mark.parametrize("width", [1e-300, 1e-3, 1, 1e6, 1e300])
@pytest.mark.parametrize("height", [1e-300, 1e-3, 1, 1e6, 1e300])
@pytest.mark.parametrize("x", [-1e300, 0, 1e300])
def test_a_size_of_any_proportions_is_shown(width, height, x):
    size = {"width": width, "height": height}
    clips = (
        {"containerId": TEXT, "container": {"intrinsic": {"x": x, "y": 0, **size}}},
        {"contentId": "photo"},
        {"contentId": "photo", "containerId": "photo", "sizing": "container"},
        {"containerId": "my.container.star"},
    )
    photo = PHOTO | {"sourceSize": size}
    star = STAR | {"pathWidth": width, "pathHeight": height}
    for clip in clips:
        assert len(pictures(read(clip, definitions=[photo, star]))) == 1


def test_a_side_of_next_to_nothing_is_the_least_that_there_is():
    def shown(width):
        return first({"containerId": "my.container.star"}, definitions=[STAR | {"pathWidth": width, "pathHeight": 1}])

    assert shown(1e-300) == shown(1e-3) != shown(2e-3)


def test_defaults_of_containers():
    text = first({"containerId": TEXT, "container": {"intrinsic": {"x": 0, "y": 0, "width": 2600, "height": 1000}}})
    assert (text.string, text.font, box(text)) == ("Text", "com.moviemasher.font.default", (32, 40, 257, 99))
    masked = first({"containerId": "film"})  # no lock: its width counts
    assert box(masked.mask) == WHOLE


# --- texts and shapes ------------------------------------------------------------------------------------------------


def test_texts_tell_which_font_files_they_need():
    clip = {"containerId": TEXT, "container": {"string": 2022, "fontId": "font"}}
    film = read(clip)
    (node,) = pictures(film)
    assert isinstance(node, TextNode)
    assert (node.string, node.font, film.fonts, film.sources) == ("2022", "font", {"font": "Sans.ttf"}, {})


def test_text_that_the_client_did_not_measure_is_measured():
    asked = []

    def measure(string, font):
        asked.append((string, font))
        return Ink(0, 500, 1000)

    clip = {"containerId": TEXT, "container": {"string": "Hi", "fontId": "font", "height": 0.5, "lock": "H"}}
    film = read_mash({"tracks": [{"clips": [clip]}]}, DEFINITIONS, raster=SMALL, measure=measure)
    assert asked == [("Hi", "font")]
    assert box(pictures(film)[0]) == (138, 44, 45, 90)


@pytest.mark.parametrize(("font", "counts"), [("font", True), ("com.moviemasher.font.default", False)])
def test_what_the_client_measured_counts_in_a_font_whose_file_is_there(font, counts):
    def placed(**more):
        clip = {"containerId": TEXT, "container": {"string": "Hi", "fontId": font, "height": 0.5, "lock": "H", **more}}
        tracks = {"tracks": [{"clips": [clip]}]}
        film = read_mash(tracks, DEFINITIONS, raster=SMALL, measure=lambda *_: Ink(0, 2000, 1000))
        return box(pictures(film)[0])

    said = placed(intrinsic={"x": 0, "y": 0, "width": 1000, "height": 1000})
    assert said == ((114, 44, 90, 90) if counts else placed())


@pytest.mark.parametrize("name", ["com.moviemasher.container.oval", "com.moviemasher.container.rounded-rect", HEART])
def test_plain_shapes_need_no_definition(name):
    assert isinstance(first({"containerId": name}), ShapeNode)


def test_a_definition_replaces_a_plain_shape():
    mine = STAR | {"id": HEART}
    assert first({"containerId": HEART}, definitions=[mine]).path == STAR["path"]


def test_picture_in_a_shape_is_masked():
    node = first({"contentId": "photo", "containerId": "my.container.star"})
    assert (node.filename, node.mask.path, node.mask.path_width, node.mask.path_height) == (
        "photo",
        STAR["path"],
        10,
        20,
    )


# --- sound -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clip", "gains"),
    [
        ({"contentId": "film"}, [0]),
        ({"contentId": "film", "content": {"muted": True}}, []),
        ({"contentId": "film", "content": {"gain": 0}}, []),
        ({"contentId": "film", "content": {"gain": 2}}, [6.02]),
        ({"contentId": "film", "content": {"gain": "0.5"}}, [-6.02]),
        ({"contentId": "film", "content": {"gain": "0,0,1,1"}}, [-6.02]),
        ({"contentId": "film", "content": {"gain": "1,1,0,0"}}, [-6.02]),  # in order of position
        ({"contentId": "film", "content": {"gain": "0,0,1,0"}}, []),
        ({"contentId": "film", "content": {"gain": "0,0,x,1"}}, [0]),
        ({"contentId": "film", "content": {"gain": "0,0.5,1"}}, [-6.02]),  # half a pair is none
        ({"contentId": "photo"}, []),
        ({"contentId": "tone"}, [0]),
        ({"contentId": "photo", "containerId": "film"}, [0]),
        ({"contentId": "photo", "containerId": "film", "container": {"muted": True}}, []),
        ({"contentId": "cam"}, [0]),
    ],
)
def test_who_is_heard_how_loud(clip, gains):
    assert [voice.gain for voice in voices(read(clip), 1 if clip.get("contentId") == "tone" else "1.5")] == [
        pytest.approx(gain, abs=0.01) for gain in gains
    ]


@pytest.mark.parametrize(
    ("changes", "heard"),
    [
        ({}, True),
        ({"audio": False}, False),
        ({"audio": False, "audioUrl": "a.mp3"}, True),
        ({"audio": None, "duration": 0}, True),
    ],
)
def test_a_film_has_sound_when_its_definition_says_so_or_nothing_is_known(changes, heard):
    film = read({"contentId": "film", "frames": 5}, definitions=[FILM | changes])
    assert (bool(voices(film)), film.heard, film.seen) == (heard, heard, True)


def test_a_stream_that_is_live_is_shown_as_it_is():
    film = read_live({"tracks": [{"clips": [{"contentId": "cam", "content": {"speed": 2}}]}]})
    (shown,), (heard,) = pictures(film), voices(film)
    (node,), (voice,) = shown.nodes, heard.nodes
    assert (node.stream_guid, node.at, voice.stream_guid, voice.at) == ("live/cam", None, "live/cam", None)
    assert film.sources == {"live/cam": "live/cam"}


def test_a_stream_that_is_live_is_heard_where_it_is_said_to_be_a_sound_and_is_no_image():
    radio = {"id": "radio", "type": "audio", "source": "live/cam"}
    film = read_live({"tracks": [{"clips": [{"contentId": "radio", "frames": 20}]}]}, [radio])
    ((voice,),) = (heard.nodes for heard in voices(film))
    assert (voice.stream_guid, voice.at) == ("live/cam", None)
    assert film.sources == {"live/cam": "live/cam"}
    logo = {"id": "logo", "type": "image", "source": "live/cam"}
    with pytest.raises(InvalidMash, match="is a stream, which is no image"):
        read_live({"tracks": [{"clips": [{"contentId": "logo"}]}]}, [logo])


@pytest.mark.parametrize(
    ("order", "where"),
    [(("cam", "live/cam"), "$.definitions[0].id"), (("live/cam", "cam"), "$.definitions[1].source")],
)
def test_a_file_with_the_id_of_a_stream_that_is_shown_with_it_is_refused(order, where):
    file = {"id": "live/cam", "type": "video", "source": "film.mp4"}
    assert read_live({"tracks": [{"clips": [{"contentId": "live/cam"}]}]}, [file]).sources == {"live/cam": "film.mp4"}
    with pytest.raises(InvalidMash, match='"live/cam" is a live stream and the id of a file') as caught:
        read_live({"tracks": [{"clips": [{"contentId": name} for name in order]}]}, [file, CAM])
    assert caught.value.where == where


def test_sources_are_those_that_are_used():
    film = read({"contentId": "film"}, {"contentId": "photo"}, {"contentId": "photo"})
    assert film.sources == {"film": "film.mp4", "photo": "photo.jpg"}
    url = {"id": "i", "type": "image", "url": "u.jpg"}
    assert read({"contentId": "i"}, definitions=[url]).sources == {"i": "u.jpg"}
    twice = [PHOTO, PHOTO | {"source": "other"}]
    assert read({"contentId": "photo"}, definitions=twice).sources == {"photo": "photo.jpg"}


# --- effects ---------------------------------------------------------------------------------------------------------


def effects(*instances, definitions=(), t=0):
    clip = {"contentId": "photo", "frames": 10, "content": {"effects": list(instances)}}
    return first(clip, definitions=[PHOTO, *definitions], t=t).effects


def test_built_in_effects():
    names = ("blur", "sharpen", "emboss", "grayscale", "sepia")
    assert effects(*({"definitionId": EFFECT + name} for name in names)) == tuple(Effect(effect=n) for n in names)
    assert effects({"definitionId": EFFECT + "chromakey"}) == (
        Effect(effect="chromakey", parameters={"color": "#00ff00", "similarity": 0.9, "blend": 0}),
    )
    key = {"definitionId": EFFECT + "chromakey", "color": "#FF0000", "similarity": 0.5, "blend": 0.1}
    assert effects(key) == (
        Effect(effect="chromakey", parameters={"color": "#ff0000", "similarity": 0.5, "blend": 0.1}),
    )


def test_unknown_effects_do_nothing():
    assert effects({"definitionId": "my.effect.unknown"}, {}, {"definitionId": EFFECT + "swirl"}) == ()


def custom(*filters, properties=()):
    return {"id": "mine", "type": "effect", "properties": list(properties), "filters": list(filters)}


def filter_(name, **parameters):
    values = [{"name": key, "value": value} for key, value in parameters.items()]
    return {"id": FILTER + name, "parameters": values}


def test_custom_effects_take_their_own_properties():
    mine = custom(
        filter_("fps", fps=10),
        filter_("chromakey", color="key", similarity="near", blend=0.25),
        filter_("convolution", matrix="0,0,0,0,1,0,0,0,0", multiplier="2"),
        properties=[
            {"name": "key", "type": "rgb", "defaultValue": "#0000FF"},
            {"name": "near", "type": "number", "defaultValue": 0.5, "tweenable": True},
        ],
    )
    key, convolution = effects({"definitionId": "mine"}, definitions=[mine])
    assert key == Effect(effect="chromakey", parameters={"color": "#0000ff", "similarity": 0.5, "blend": 0.25})
    assert convolution.parameters == {"matrix": "0,0,0,0,1,0,0,0,0", "multiplier": 2}
    own = {"definitionId": "mine", "key": "#FF0000", "keyEnd": "#00FF00", "near": 0, "nearEnd": 1}
    key, _ = effects(own, definitions=[mine], t="0.5")
    assert key.parameters == {"color": "#808000", "similarity": 0.5, "blend": 0.25}


def test_the_colour_of_a_custom_tint_changes_evenly():
    mine = custom(filter_("colorize", color="#FF0000", colorEnd="#0000FF"))
    (tint,) = effects({"definitionId": "mine"}, definitions=[mine], t="0.5")
    assert tint == Effect(effect="colorize", parameters={"color": "#800080"})


def test_a_filter_may_have_an_end_of_its_own():
    (effect,) = effects({"definitionId": "mine"}, definitions=[custom(filter_("crop", x=0, xEnd=100))], t="0.5")
    assert effect == Effect(effect="crop", parameters={"x": 50})


@pytest.mark.parametrize(
    ("definition", "where", "problem"),
    [
        (custom(filter_("swirl")), ".id", '"swirl" is not one of'),
        (custom(filter_("opacity", opacity=7)), ".parameters.opacity", "7 is not within 0…1"),
        (custom(filter_("opacity", speed=7)), ".parameters.speed", "opacity has no such parameter"),
        (
            custom(filter_("opacity", opacity=[])),
            ".parameters[0].value",
            "expected a name with a number or a string, got",
        ),
    ],
)
def test_filters_that_cannot_be_are_refused(definition, where, problem):
    clip = {"contentId": "photo", "content": {"effects": [{"definitionId": "mine"}]}}
    found = refusal(clip, definitions=[PHOTO, definition])
    assert (found[0], found[1][: len(problem)]) == ("$.definitions[1].filters[0]" + where, problem)


def test_effects_without_end_are_refused():
    many = [{"definitionId": EFFECT + "blur"}] * 17
    assert refusal({"contentId": "photo", "content": {"effects": many}}) == (
        "$.mash.tracks[0].clips[0].content.effects",
        "more than 16 filters",
    )


# --- errors ----------------------------------------------------------------------------------------------------------

CLIP = "$.mash.tracks[0].clips[0]"


@pytest.mark.parametrize(
    ("clip", "where", "problem"),
    [
        ("x", CLIP, "expected an object, got a string"),
        ({"content": []}, CLIP + ".content", "expected an object, got an array"),
        ({"container": True}, CLIP + ".container", "expected an object, got a boolean"),
        ({"contentId": "x"}, CLIP + ".contentId", 'no definition "x"'),
        ({"contentId": "font"}, CLIP + ".contentId", '"font" is no image, video or audio'),
        ({"contentId": RECTANGLE}, CLIP + ".contentId", f'no definition "{RECTANGLE}"'),
        ({"containerId": "x"}, CLIP + ".containerId", 'no definition "x"'),
        ({"containerId": "tone"}, CLIP + ".containerId", '"tone" is no shape and no picture'),
        (
            {"contentId": "photo", "content": {"effects": 5}},
            CLIP + ".content.effects",
            "expected an array, got a number",
        ),
        (
            {"contentId": "photo", "content": {"effects": [None]}},
            CLIP + ".content.effects[0]",
            "expected an object, got null",
        ),
        (
            {"containerId": TEXT, "container": {"string": "x" * 10_001}},
            CLIP + ".container.string",
            "10001 characters, more than 10000",
        ),
        ({"frames": 10**8}, "$.mash.tracks", "1e+07 s long, more than 604800"),
    ],
)
def test_what_has_no_meaning_is_refused_with_its_path(clip, where, problem):
    assert refusal(clip) == (where, problem)


@pytest.mark.parametrize(
    ("definition", "where", "problem"),
    [
        (5, "$.definitions[0]", "expected an object, got a number"),
        ({"id": "x", "type": "image"}, "$.definitions[0].source", "missing"),
        ({"id": "x", "type": "effect"}, CLIP + ".contentId", '"x" is no image, video or audio'),
        ({"id": "x"}, CLIP + ".contentId", '"x" is no image, video or audio'),
    ],
)
def test_definitions_of_nothing_are_refused(definition, where, problem):
    assert refusal({"contentId": "x"}, definitions=[definition]) == (where, problem)


@pytest.mark.parametrize("name", ["x" * 1025, "\ud800"])
def test_ids_that_cannot_be_names_in_a_tree_are_refused(name):
    assert refusal({"contentId": name}, definitions=[PHOTO | {"id": name}])[0] == "$.definitions[0].id"
    font = {"containerId": TEXT, "container": {"fontId": name[:257]}}
    assert refusal(font)[0] == CLIP + ".container.fontId"
    longest = "x" * 1024
    assert read({"contentId": longest}, definitions=[PHOTO | {"id": longest}]).sources == {longest: "photo.jpg"}


def test_shapes_without_a_path_or_a_size_are_refused():
    clip = {"containerId": "x"}
    assert refusal(clip, definitions=[{"id": "x", "type": "container"}]) == ("$.definitions[0].path", "missing")
    flat = STAR | {"id": "x", "pathWidth": 0}
    assert refusal(clip, definitions=[flat])[0] == "$.definitions[0].pathWidth"


@pytest.mark.parametrize(
    ("mash", "where"),
    [
        (None, "$.mash"),
        ([], "$.mash"),
        ({"tracks": 5}, "$.mash.tracks"),
        ({"tracks": [{"clips": {}}]}, "$.mash.tracks[0].clips"),
    ],
)
def test_documents_of_another_kind_are_refused(mash, where):
    with pytest.raises(InvalidMash) as caught:
        read_mash(mash, raster=SMALL)
    assert caught.value.where == where


def test_definitions_of_another_kind_are_refused():
    with pytest.raises(InvalidMash, match=r"\$\.definitions: expected an array, got an object"):
        read_mash({}, {}, raster=SMALL)


def test_clips_without_end_are_refused():
    tracks = [{"clips": [{}] * 5001}] * 2
    with pytest.raises(InvalidMash, match=r"\$\.mash\.tracks: more than 10000 clips"):
        read_mash({"tracks": tracks}, raster=SMALL)


# --- casts -----------------------------------------------------------------------------------------------------------


def layer(color, **more):
    return {
        "type": "mash",
        "mash": {"color": "#FFFFFF", "tracks": [{"clips": [{"content": {"color": color}}]}], **more},
    }


def colours_of(film, t):
    """The (red, green, blue) of everything painted, lowest first."""
    found = []
    for node in pictures(film, t):
        found += [node] if isinstance(node, SolidColorNode) else node.nodes
    return [(node.red, node.green, node.blue) for node in found]


def test_the_first_layer_is_on_top_and_mashes_have_no_colour_of_their_own():
    folder = {"type": "folder", "layers": [layer("#0F0"), layer("#00F")]}
    film = read_cast({"color": "#010203", "layers": [layer("#F00"), folder]}, raster=SMALL)
    grey = (1 / 255, 2 / 255, 3 / 255)
    assert colours_of(film, 0) == [grey, (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    assert colours_of(film, 1000) == colours_of(film, 0)  # they begin again
    assert (film.duration, film.start, film.seen, film.heard) == (3, 0, True, False)


def test_clips_of_different_mashes_are_different_readers():
    mash = {"type": "mash", "mash": {"tracks": [{"clips": [{"contentId": "film"}]}]}}
    film = read_cast({"layers": [mash, mash]}, DEFINITIONS, raster=SMALL)
    assert [voice.id for group in voices(film) for voice in group.nodes] == ["1/0.0", "0/0.0"]


def test_an_empty_cast_is_nothing():
    film = read_cast({}, raster=SMALL)
    assert film.program.tree_at(Fraction(0)) == RenderTree()
    assert film.duration == 0


@pytest.mark.parametrize(
    ("cast", "where"),
    [
        (5, "$.cast"),
        ({"layers": {}}, "$.cast.layers"),
        ({"layers": [{"type": "x"}]}, "$.cast.layers[0].type"),
        ({"layers": [{"type": "mash"}]}, "$.cast.layers[0].mash"),
        ({"layers": [layer("#000"), {"type": "mash", "mash": None}]}, "$.cast.layers[1].mash"),
        (
            {"layers": [{"type": "folder", "layers": [layer("#000", tracks=5)]}]},
            "$.cast.layers[0].layers[0].mash.tracks",
        ),
    ],
)
def test_casts_that_are_none_are_refused(cast, where):
    with pytest.raises(InvalidMash) as caught:
        read_cast(cast, raster=SMALL)
    assert caught.value.where == where


def test_folders_without_end_are_refused():
    layers = []
    for _ in range(100):
        layers = [{"type": "folder", "layers": layers}]
    with pytest.raises(InvalidMash, match="folders within one another more than 32 times"):
        read_cast({"layers": layers}, raster=SMALL)


# --- any document ----------------------------------------------------------------------------------------------------

SHARES = st.sampled_from((0, 0.25, 0.5, 1, 1.5, 2, -1, "0.5", None)) | st.floats(0, 2)
COLOURS = st.sampled_from(("#FF0000", "#00F", "#00FF0080", "green", None))
PLACES = st.fixed_dictionaries(
    {},
    optional={
        **{name + end: SHARES for name in ("x", "y", "width", "height", "opacity") for end in ("", "End")},
        "lock": st.sampled_from(("H", "V", "", "x")),
        **{"off" + letter: st.booleans() for letter in "NESW"},
        "string": st.text(max_size=4),
        "fontId": st.sampled_from(("font", "other")),
        "intrinsic": st.fixed_dictionaries({}, optional=dict.fromkeys(("x", "y", "width", "height"), SHARES)),
    },
)
CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        **{name + end: SHARES for name in ("x", "y", "width", "height") for end in ("", "End")},
        "color": COLOURS,
        "colorEnd": COLOURS,
        "muted": st.booleans(),
        "gain": st.sampled_from((0, 1, 2, "0,0,1,1", "0.5,1", ",")),
        "speed": st.sampled_from((0.1, 0.5, 1, 1.25, 2, 5)),
        "startTrim": st.integers(-1, 40),
        "endTrim": st.integers(-1, 40),
        "effects": st.lists(st.sampled_from(({"definitionId": EFFECT + "sepia"}, {"definitionId": "mine", "near": 1}))),
    },
)
IDS = st.sampled_from(("photo", "film", "tone", "cam", HEART, "my.container.star", TEXT, RECTANGLE, ""))
CLIPS = st.fixed_dictionaries(
    {},
    optional={
        "contentId": IDS,
        "containerId": IDS,
        "content": CONTENTS,
        "container": PLACES,
        "frame": st.integers(-1, 50),
        "frames": st.integers(-1, 50),
        "timing": st.sampled_from(("content", "container", "custom")),
        "sizing": st.sampled_from(("content", "container", "preview")),
    },
)
MINE = custom(filter_("opacity", opacity="near"), properties=[{"name": "near", "defaultValue": 0.5}])
MASHES = st.fixed_dictionaries(
    {
        "tracks": st.lists(
            st.fixed_dictionaries({"clips": st.lists(CLIPS, max_size=4)}, optional={"dense": st.booleans()})
        )
    },
    optional={"quantize": st.sampled_from((1, 10, 30, 0)), "color": COLOURS, "frame": st.integers(-5, 50)},
)
REQUESTS = st.fixed_dictionaries({"mash": MASHES, "definitions": st.just([*DEFINITIONS, MINE])})


def film_or_sentence(document, *, live=False):
    """What a request's mash comes to, or a cast of it; None after a sentence that names its place."""
    document = document if isinstance(document, dict) else {"mash": document}
    try:
        mash, definitions = document.get("mash"), document.get("definitions", [])
        return read_live(mash, definitions) if live else read_mash(mash, definitions, raster=SMALL)
    except InvalidMash as err:
        assert err.where.startswith("$.")
        assert str(err).startswith(err.where + ": ")
        assert "\n" not in str(err)
        assert str(err).encode()
        return None


def check_at(film: Film, t):
    """One moment of a film holds to what a program promises."""
    tree = film.program.tree_at(t)
    assert names_in(tree) <= film.program.sources_in(t, t + Fraction(1, 1000))
    assert names_in(tree) <= set(film.sources)
    seen = RenderTree(root_video_node=tree.root_video_node)
    assert RenderTree.from_json(seen.to_json()) == seen


@settings(deadline=None, max_examples=75, suppress_health_check=list(HealthCheck))
@given(REQUESTS | damaged(REQUESTS), st.lists(st.fractions(-0.1, 1.1), min_size=1, max_size=4), st.booleans())
def test_any_mash_gives_a_tree_for_every_time_or_one_sentence(document, times, live):
    film = film_or_sentence(document, live=live)
    for part in times if film is not None else ():
        check_at(film, part * film.duration)


@settings(deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
@given(JSON)
def test_any_json_is_a_film_or_one_sentence(document):
    film = film_or_sentence(document)
    if film is not None:
        check_at(film, Fraction(0))


# --- recorded mashes -------------------------------------------------------------------------------------------------


def case(name):
    """A recorded request, and its film at the size of its first output."""
    recorded = json.loads((GOLDEN / "cases" / f"{name}.json").read_text(encoding="utf-8"))
    output = recorded["outputs"][0] if recorded["outputs"] else {}
    raster = Raster(output.get("width", 320), output.get("height", 180))
    return recorded, read_mash(recorded["mash"], recorded["definitions"], raster=raster)


DEFECTIVE = {"lead-gap": 3, "single-late": 2, "two-colors": 2, "mash-frame": 4, "video-loop": 6}  # as intended, s


@pytest.mark.parametrize("name", sorted(path.stem for path in (GOLDEN / "cases").glob("*.json")))
def test_recorded_mash_is_as_long_as_its_film(name):
    recorded, film = case(name)
    if name in DEFECTIVE:
        assert film.duration == DEFECTIVE[name]
    elif recorded["result"] is not None:
        assert film.duration == pytest.approx(Fraction(recorded["result"]["format_duration"]), abs=0.001)
        assert film.heard == ("audio" in recorded["result"] or "mute" in recorded["outputs"][0])
        assert film.seen == ("video" in recorded["result"])


@pytest.mark.parametrize(
    ("name", "boxes"),
    [  # measured in the recorded frames
        ("color", {0: WHOLE}),
        ("color-resize", {0: (128, 72, 64, 36), 5: (80, 44, 160, 90), 9: (40, 22, 236, 134)}),
        ("effect-blur", {0: OF_PHOTO}),
        ("image-opacity", {9: OF_PHOTO}),
        ("image-sizing-preview", {0: WHOLE}),
        ("image-zoom", {5: WHOLE}),
        ("imagecontainer-color", {0: OF_PHOTO}),
        ("mash-quantize-30", {0: OF_PHOTO}),
        ("minimal-clip", {29: OF_PHOTO}),
        ("minimal-default-clip", {29: WHOLE}),
        ("out-video-cover", {4: OF_PHOTO}),
        ("heart-color", {0: SQUARE}),
        ("heart-image", {0: SQUARE}),
        ("split-tween", {0: (0, 44, 160, 90), 10: (80, 44, 160, 90), 19: (152, 44, 160, 90)}),
        # Of texts the edges where they are cut off, and the top of their ink.
        ("text-color", {0: (32, 40, 257, 99)}),
        ("text-resize", {0: (96, 64, 130, 50), 5: (64, 52, 194, 74), 9: (38, 42, 245, 94)}),
        ("video", {15: WHOLE}),
    ],
)
def test_recorded_mash_has_the_recorded_boxes(name, boxes):
    _, film = case(name)
    assert {n: box(pictures(film, Fraction(n, 10))[0]) for n in boxes} == boxes


def test_a_box_that_went_over_the_edge_is_not_seen():
    _, film = case("image-off")
    assert box(pictures(film)[0]) == (0, -90, 120, 90)
