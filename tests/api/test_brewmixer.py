"""Unmodified Brew Mixer clients work: their documents, their habits, their answers, in both spellings of the routes."""

import ipaddress
import json
import struct
import zlib
from fractions import Fraction

import pytest
import trio

from api import brewmixer
from api.app import create_app
from api.auth import sign
from api.brewmixer import CreateRequest, event_spec, transition_of
from api.wire import decode
from engine.config import Settings
from engine.core import Engine
from engine.errors import InvalidSpec
from engine.spec import MAX_SIDE, Raster

NAMES = {"path": "live", "streamName": "program"}
SMALL = {"width": 64, "height": 36, "frameRate": 10}
SPELLINGS = pytest.mark.parametrize("base", ["/brewmixer/1.0", "/brewmixer/2.0/mixers"])


# --- what is asked for -----------------------------------------------------------------------------------------------


def asked(name="show", **fields):
    return event_spec(name, decode(json.dumps(NAMES | fields).encode(), CreateRequest))


def refusal(name="show", **fields):
    with pytest.raises(InvalidSpec) as caught:
        asked(name, **fields)
    return str(caught.value), caught.value.where


def test_defaults():
    spec = asked()
    assert (spec.name, spec.stream(), spec.sub_mixes) == ("show", "live/program", 1)
    assert (spec.mixer.raster, spec.mixer.fps) == (Raster(1280, 720), Fraction(30))
    assert (spec.mixer.audio.rate, spec.mixer.audio.channels) == (48000, 2)
    assert (spec.encoder.bit_rate, spec.encoder.max_bit_rate) == (4_000_000, 6_000_000)
    assert (spec.encoder.qp_min, spec.encoder.qp_max) == (None, None)
    assert (spec.forward, spec.latency_ms) == (None, 200)


def test_null_is_absent():
    fields = set(CreateRequest.__struct_encode_fields__) - {"path", "streamName"}
    assert asked(**dict.fromkeys(fields)) == asked()


def test_the_vendors_page_sends_strings_and_more_than_is_known():
    spec = asked(
        event="show", width="1920", height="1080", frameRate="29.97", bitRate="4000000", doForward="false", originIp="",
        audioSampleRate="44100", audioChannels="1", subMixes="3", qpMin="10", qpMax="40.4", color="red", digest="abc",
    )  # fmt: skip
    assert (spec.mixer.raster, spec.mixer.fps) == (Raster(1920, 1080), Fraction(30000, 1001))
    assert (spec.mixer.audio.rate, spec.mixer.audio.channels, spec.sub_mixes) == (44100, 1, 3)
    assert (spec.encoder.bit_rate, spec.encoder.max_bit_rate) == (4_000_000, 6_000_000)
    assert (spec.encoder.qp_min, spec.encoder.qp_max, spec.forward) == (10, 40, None)


@pytest.mark.parametrize(
    ("fields", "got"),
    [
        ({"width": 2, "height": 2}, Raster(2, 2)),
        ({"width": 7680, "height": 4320}, Raster(7680, 4320)),
        ({"width": 641, "height": 361}, Raster(640, 360)),
        ({"width": 639.6, "height": "359.7"}, Raster(640, 360)),
        ({"width": 1e3, "height": "5e2"}, Raster(1000, 500)),
    ],
)
def test_sizes_are_rounded_to_whole_even_pixels(fields, got):
    assert asked(**fields).mixer.raster == got


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        (1, Fraction(1)), (120, Fraction(120)), (25, Fraction(25)), ("25", Fraction(25)), (12.5, Fraction(25, 2)),
        (23.976, Fraction(24000, 1001)), (23.98, Fraction(24000, 1001)), ("29.97", Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)), (119.88, Fraction(120000, 1001)),
    ],
)  # fmt: skip
def test_frame_rates_are_exact(given, rate):
    assert asked(frameRate=given).mixer.fps == rate


@pytest.mark.parametrize(
    ("given", "rate"),
    [(8000, 8000), (96000, 96000), (9000, 8000), (46000, 44100), (47000, 48000), (50_000, 48000), (70_000.4, 64000)],
)
def test_sound_has_the_nearest_rate_that_aac_encodes(given, rate):
    assert asked(audioSampleRate=given).mixer.audio.rate == rate


@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        ({"bitRate": 100}, (100, 150)),
        ({"bitRate": 1_048_576_000}, (1_048_576_000, 1_048_576_000)),
        ({"bitRate": 1_000_000.6}, (1_000_001, 1_500_001)),
        ({"bitRate": 2_000_000, "maxBitRate": 2_000_000}, (2_000_000, 2_000_000)),
        ({"maxBitRate": 5_000_000}, (4_000_000, 5_000_000)),
        ({"maxBitRate": 1_000_000}, (1_000_000, 1_000_000)),
    ],
)
def test_bit_rates(fields, rates):
    encoder = asked(**fields).encoder
    assert (encoder.bit_rate, encoder.max_bit_rate) == rates


LIMITS = [  # field, lowest, highest; beyond them: the sentence's limits
    ("width", 2, 7680),
    ("height", 2, 4320),
    ("frameRate", 1, 120),
    ("bitRate", 100, 1_048_576_000),
    ("maxBitRate", 4_000_000, 1_048_576_000),
    ("qpMin", 0, 63),
    ("qpMax", 0, 63),
    ("audioSampleRate", 8000, 96000),
    ("audioChannels", 1, 2),
    ("subMixes", 1, 10),
    ("latency", 0, 10_000),
    ("timestamp", 0, 10**15),
]


@pytest.mark.parametrize(("field", "low", "high"), LIMITS)
def test_numbers_are_taken_up_to_their_limits_and_refused_beyond(field, low, high):
    fields = {"bitRate": 4_000_000} if field == "maxBitRate" else {}
    for value in (low, high, str(low), float(high)):
        asked(**{**fields, field: value})
    for value, limit in ((low - 1, low), (high + 1, high), (str(high + 1), high), (-(10**30), low), (10**30, high)):
        sentence, where = refusal(**{**fields, field: value})
        assert where == field
        assert field in sentence
        assert any(str(number) in sentence for number in (limit, 100)), sentence


@pytest.mark.parametrize("field", [row[0] for row in LIMITS])
@pytest.mark.parametrize("value", [True, False, "", "wide", " 5", "5px", [], {}, "NaN", "Infinity", "0x10", "٣"])
def test_other_values_are_no_numbers(field, value):
    assert refusal(**{field: value})[1] == field


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["width", "frameRate", "unknown"])
def test_nan_and_infinities_are_refused(number, field):
    text = f'{{"path":"live","streamName":"a","{field}":{number}}}'
    if (number, field) == ("1e999", "unknown"):
        return  # a number that nobody reads
    with pytest.raises(InvalidSpec):
        event_spec("show", decode(text.encode(), CreateRequest))


@pytest.mark.parametrize(
    ("fields", "sentence", "where"),
    [
        (
            {"maxBitRate": 3_999_999, "bitRate": 4_000_000},
            "maxBitRate 3999999 is less than bitRate 4000000",
            "maxBitRate",
        ),
        ({"qpMin": 30, "qpMax": 29}, "qpMin 30 is more than qpMax 29", "qpMin"),
        ({"doForward": True}, "originIp is required with doForward", "originIp"),
        ({"doForward": True, "originIp": ""}, "originIp is required with doForward", "originIp"),
        ({"originIp": "a" * 46}, "originIp: expected a string of length ≤ 45", "originIp"),
        ({"doForward": "maybe"}, "doForward: expected a boolean, got a string", "doForward"),
        ({"event": "other"}, 'event "other" in the body is not "show" of the path', "event"),
        ({"event": ""}, 'event "" in the body is not "show" of the path', "event"),
        ({"event": 5}, "event: expected a string, got a number", "event"),
        ({"digest": "a" * 2049}, "digest: expected a string of length ≤ 2048", "digest"),
        ({"path": ""}, "path: expected a string of length ≥ 1", "path"),
        ({"streamName": ""}, "streamName: expected a string of length ≥ 1", "streamName"),
        ({"path": None}, "path: expected a string, got null", "path"),
        ({"path": "a//b"}, 'path "a//b" has an empty, "." or ".." segment', "path"),
        ({"path": "/live"}, 'path "/live" has an empty, "." or ".." segment', "path"),
        ({"path": "live/"}, 'path "live/" has an empty, "." or ".." segment', "path"),
        ({"path": ".."}, 'path ".." has an empty, "." or ".." segment', "path"),
        ({"streamName": "a/../b"}, 'streamName "a/../b" has an empty, "." or ".." segment', "streamName"),
        (
            {"streamName": "my mix", "doForward": True, "originIp": "127.0.0.1"},
            'streamName "my mix" has spaces, which doForward has no URL for',
            "streamName",
        ),
        (
            {"path": "a\tb", "doForward": True, "originIp": "127.0.0.1"},
            'path "a\tb" has spaces, which doForward has no URL for',
            "path",
        ),
        ({"streamName": "a" * 1020}, "path and streamName have 1025 characters together, more than 1024", "path"),
        (
            {"streamName": "a" * 1018, "subMixes": 2},
            "path and streamName have 1025 characters together, more than 1024",
            "path",
        ),
    ],
)
def test_refusals_name_the_field_and_the_limit(fields, sentence, where):
    assert refusal(**fields) == (sentence, where)


@pytest.mark.parametrize("field", ["path", "streamName"])
def test_both_names_are_required(field):
    document = {key: value for key, value in NAMES.items() if key != field}
    with pytest.raises(InvalidSpec, match=f"^{field}: is required$"):
        decode(json.dumps(document).encode(), CreateRequest)


def test_names_are_taken_up_to_their_limits():
    assert len(asked(streamName="a" * 1019).stream()) == 1024
    assert len(asked(streamName="a" * 1017, subMixes=10).stream(9)) == 1024
    assert asked(path="live/a b", streamName="ü/.x").stream() == "live/a b/ü/.x"


@pytest.mark.parametrize("name", ["a", "A9", "a.b_c-d", "-", "_", "0" * 256, "..a"])
def test_names_of_events(name):
    assert asked(name, event=name).name == name


@pytest.mark.parametrize("name", ["a" * 257, "a b", "ä", "a\n", "a/b", "a%20", ".", "..", "٣"])
def test_other_names_of_events_are_refused(name):
    sentence, where = refusal(name)
    assert where == "event"
    assert "1…256" in sentence


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("10.0.0.5", "10.0.0.5"),
        ("::1", "[::1]"),
        ("0000:0000:0000:0000:0000:ffff:192.168.100.228", f"[{ipaddress.ip_address('::ffff:192.168.100.228')}]"),
        ("origin", "origin"),
        ("origin-1.example.org", "origin-1.example.org"),
        ("red5_origin", "red5_origin"),
    ],
)
def test_an_origin_is_an_address_or_a_host(given, host):
    assert asked(doForward=True, originIp=given).forward == host
    assert asked(doForward=False, originIp=given).forward is None


@pytest.mark.parametrize(
    "given", ["10.0.0.5:1935", "rtmp://x", "a/b", "a b", "user@host", "-a", "_a", "a..b", "[::1]", "ä", "a\n"]
)
def test_other_origins_are_refused(given):
    assert refusal(doForward=True, originIp=given)[1] == refusal(originIp=given)[1] == "originIp"


@pytest.mark.parametrize(
    ("arguments", "got"),
    [
        ({}, (Fraction(0), "easeInOut")),
        ({"transition": "0"}, (Fraction(0), "easeInOut")),
        ({"transition": "60000", "easing": "linear"}, (Fraction(60), "linear")),
        ({"transition": "333.25"}, (Fraction("0.33325"), "easeInOut")),
        ({"easing": "smooth"}, (Fraction(0), "smooth")),
    ],
)
def test_transitions(arguments, got):
    assert transition_of(arguments) == got


@pytest.mark.parametrize("text", ["60001", "60000.1", "-1", "", "1e3", "NaN", " 5", "٣", "1" * 5000, "0x5", "5,5"])
def test_other_transitions_are_refused(text):
    with pytest.raises(InvalidSpec) as caught:
        transition_of({"transition": text})
    assert caught.value.where == "transition"
    assert str(caught.value).endswith("is not a number of ms within 0…60000")


# --- on a running engine ---------------------------------------------------------------------------------------------


class Door:
    """A client of a running engine; `call` checks that failures are as promised, whatever they are."""

    def __init__(self, engine, now=None):
        self.engine = engine
        self._client = create_app(engine, wall=now or (lambda: 1000.0)).test_client()

    async def call(self, method, path, body=None, **options):
        data = body if isinstance(body, bytes | str | None) else json.dumps(body)
        with trio.fail_after(30):
            answer = await self._client.open(path, method=method, data=data, **options)
        content = await answer.get_data()
        assert answer.status_code // 100 != 3
        if answer.status_code >= 400:
            assert answer.content_type == "application/json"
            error = json.loads(content)
            assert error.keys() == {"error"}
            assert "\n" not in error["error"]
            return answer.status_code, error["error"]
        return answer.status_code, json.loads(content) if content else None

    async def create(self, name="show", base="/brewmixer/1.0", **fields):
        return await self.call("POST", f"{base}/{name}", NAMES | SMALL | fields)


def running(**settings):
    """A fixture: a door over an engine with these settings."""

    @pytest.fixture
    async def made(tmp_path, nursery):
        engine = Engine(Settings(data=str(tmp_path), rtmp_port=-1, **settings), strict=True)
        await nursery.start(engine.run)
        yield Door(engine)
        await engine.close()

    return made


door = running()
guarded_door = running(username="ada", password="löve")
cluster_door = running(cluster_secret="s3cret")

COLOUR = {"rootVideoNode": {"node": "SolidColorNode", "red": 1, "green": 0.5, "blue": 0, "alpha": 1}}
GRID = {
    "rootVideoNode": {
        "node": "CompositorNode",
        "nodes": [
            {
                "node": "VideoSourceNode", "streamGuid": f"live/stream{n}",
                "sourceX": 0, "sourceY": 0, "sourceWidth": -1, "sourceHeight": -1,
                "destX": 16 * (n % 4), "destY": 9 * (n // 4), "destWidth": 16, "destHeight": 9,
            }
            for n in range(16)
        ],
    },
    "rootAudioNode": {
        "node": "SumNode",
        "nodes": [{"node": "AudioSourceNode", "streamGuid": f"live/stream{n}", "gain": -100} for n in range(16)],
    },
}  # fmt: skip
BLACK = {}


@SPELLINGS
async def test_an_event_from_its_creation_to_its_end(door, base):
    assert await door.call("GET", base) == (200, [])
    assert await door.create(base=base) == (201, None)
    assert [(stream.name, stream.publisher) for stream in door.engine.streams()] == [("live/program", "mix")]
    status, answer = await door.call("PUT", f"{base}/show", [GRID])  # at once after 201
    assert (status, list(answer)) == (200, ["slot"])
    assert answer["slot"] >= 0
    assert await door.call("GET", f"{base}/show") == (200, [GRID])
    assert await door.call("GET", base) == (200, ["live/program"])
    assert await door.call("DELETE", f"{base}/show") == (200, {})
    assert await door.call("GET", f"{base}/show") == (404, 'no event "show"')
    assert await door.call("GET", base) == (200, [])
    assert await door.create(base=base) == (201, None)


async def test_both_spellings_are_the_same_events(door):
    await door.create("a", "/brewmixer/1.0")
    await door.create("b", "/brewmixer/2.0/mixers", streamName="other")
    for base in ("/brewmixer/1.0/", "/brewmixer/2.0/mixers/"):
        assert await door.call("GET", base) == (200, ["live/program", "live/other"])
        assert await door.call("GET", base + "a") == (200, [BLACK])
    assert (await door.call("DELETE", "/brewmixer/2.0/mixers/a"))[0] == 200
    assert await door.call("GET", "/brewmixer/1.0/") == (200, ["live/other"])


@SPELLINGS
@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_slash_at_the_end_changes_nothing(door, base, slash):
    event = f"{base}/show{slash}"
    assert (await door.call("POST", event, NAMES | SMALL))[0] == 201
    assert await door.call("GET", base + slash) == (200, ["live/program"])
    assert (await door.call("PUT", event, [COLOUR]))[0] == 200
    assert await door.call("GET", event) == (200, [COLOUR])
    assert (await door.call("DELETE", event))[0] == 200
    assert await door.call("GET", f"/brewmixer/2.0/images{slash}") == (200, [])


async def test_names_that_exist_are_refused(door):
    assert await door.create() == (201, None)
    status, sentence = await door.create(streamName="other")
    assert (status, "show" in sentence) == (409, True)
    status, sentence = await door.create("second")
    assert (status, "live/program" in sentence) == (409, True)
    status, sentence = await door.create("second", streamName="a", subMixes=2, path="live/program_1/..")
    assert status == 400
    assert await door.call("GET", "/brewmixer/1.0/") == (200, ["live/program"])


async def test_a_refused_creation_leaves_nothing_behind(door):
    await door.create(streamName="program_1")
    assert (await door.create("second", subMixes=2))[0] == 409  # its first stream is free, its second is not
    assert (await door.create("second"))[0] == 201


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("", "$: not JSON: Expecting value at line 1 column 1"),
        ("{", "$: not JSON: Expecting property name enclosed in double quotes at line 1 column 2"),
        ("[]", "expected an object, got an array"),
        (b"\xff", "$: not UTF-8 at byte 0"),
        ("{}", "path: is required"),
        ('{"path":"live","path":"live","streamName":"a"}', '$: the key "path" stands twice in one object'),
        ('{"path":"live","streamName":"a","width":NaN}', "$: NaN is not a number in JSON"),
        ('{"path":"live","streamName":"a","width":true}', "width: expected a number, got a boolean"),
        (NAMES | {"width": 1}, "width: expected a number ≥ 2"),
        (NAMES | {"streamName": "a\x00b"}, None),
        ("{}".ljust(1048577), "the body has more than 1048576 bytes"),
    ],
)
async def test_a_wrong_creation_is_400_with_one_sentence(door, body, sentence):
    status, got = await door.call("POST", "/brewmixer/1.0/show", body)
    assert (status, got) == (400, sentence or got)
    assert await door.call("GET", "/brewmixer/1.0/") == (200, [])


@SPELLINGS
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_unknown_events_are_404(door, base, method):
    assert await door.call(method, f"{base}/nosuch", [] if method == "PUT" else None) == (404, 'no event "nosuch"')


HABITS = {  # what pages send → what is read back
    "an empty sum": [{"rootAudioNode": {"node": "SumNode", "nodes": []}}] * 2,
    "an empty group": [{"rootVideoNode": {"node": "CompositorNode", "nodes": []}}] * 2,
    "strings": (
        {"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "a", "destX": "10", "destWidth": "-20"}},
        {"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "a", "destX": 10, "destWidth": -20}},
    ),
    "fractions": [{"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "a", "destX": 10.25, "destY": 3.5}}] * 2,
    "minus one": [{"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "a", "sourceWidth": -1}}] * 2,
    "null": ({"rootVideoNode": None, "rootAudioNode": None}, {}),
    "unknown fields": (COLOUR | {"comment": "x"}, COLOUR),
    "own output": [{"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "live/program"}}] * 2,
    "mute": [{"rootAudioNode": {"node": "AudioSourceNode", "streamGuid": "a", "gain": -100, "pan": 100}}] * 2,
    "extensions": [{"rootVideoNode": {**COLOUR["rootVideoNode"], "opacity": 0.5, "id": "x"}}] * 2,
    "extensions that say nothing": ({"rootVideoNode": {**COLOUR["rootVideoNode"], "opacity": 1, "id": None}}, COLOUR),
}


async def test_habits_of_the_vendors_pages(door):
    await door.create()
    for habit, (put, got) in HABITS.items():
        assert (await door.call("PUT", "/brewmixer/1.0/show", {"rootNodes": [put]}))[0] == 200, habit
        assert await door.call("GET", "/brewmixer/1.0/show") == (200, [got]), habit


async def test_an_array_and_root_nodes_are_the_same(door):
    await door.create(subMixes="2")
    for body in ([COLOUR, GRID], {"rootNodes": [GRID, COLOUR]}):
        assert (await door.call("PUT", "/brewmixer/1.0/show", body))[0] == 200
        expected = body if isinstance(body, list) else body["rootNodes"]
        assert await door.call("GET", "/brewmixer/1.0/show") == (200, expected)


async def test_a_tree_alone_is_that_of_the_first_sub_mix(door):
    await door.create(subMixes=2)
    assert (await door.call("PUT", "/brewmixer/1.0/show", [COLOUR, COLOUR]))[0] == 200
    assert (await door.call("PUT", "/brewmixer/1.0/show", GRID))[0] == 200
    assert await door.call("GET", "/brewmixer/1.0/show") == (200, [GRID, COLOUR])


async def test_fewer_trees_change_the_first_sub_mixes_and_more_are_refused(door):
    await door.create(subMixes=3)
    assert (await door.call("PUT", "/brewmixer/1.0/show", [COLOUR, GRID, COLOUR]))[0] == 200
    assert (await door.call("PUT", "/brewmixer/1.0/show", [BLACK]))[0] == 200
    assert await door.call("GET", "/brewmixer/1.0/show") == (200, [BLACK, GRID, COLOUR])
    assert (await door.call("PUT", "/brewmixer/1.0/show", []))[0] == 200
    status, sentence = await door.call("PUT", "/brewmixer/1.0/show", [COLOUR] * 4)
    assert (status, "4 trees for 3 sub-mixes" in sentence) == (400, True)
    assert await door.call("GET", "/brewmixer/1.0/show") == (200, [BLACK, GRID, COLOUR])


async def test_sub_mixes_publish_streams_of_their_own(door):
    await door.create(subMixes=3)
    names = [stream.name for stream in door.engine.streams()]
    assert names == ["live/program", "live/program_1", "live/program_2"]
    assert await door.call("GET", "/brewmixer/1.0") == (200, ["live/program"])


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ([COLOUR, {"rootVideoNode": {"node": "Nope"}}], '$[1].rootVideoNode.node: '),
        ([{"rootVideoNode": {"node": "CompositorNode", "nodes": [COLOUR]}}], "$[0].rootVideoNode.nodes[0]"),
        ({"rootNodes": [{"rootVideoNode": {"node": "SolidColorNode", "red": 2}}]}, "$.rootNodes[0].rootVideoNode.red"),
        ([{"rootVideoNode": {"node": "SolidColorNode", "red": True}}], "$[0].rootVideoNode.red"),
        ('[{"rootVideoNode":{"node":"SolidColorNode","red":NaN}}]', "$: NaN is not a number in JSON"),
        ('[{"rootVideoNode":null,"rootVideoNode":null}]', '$: the key "rootVideoNode" stands twice in one object'),
        ("", "$: not JSON: Expecting value at line 1 column 1"),
        ("[]".ljust(1048577), "the body has more than 1048576 bytes"),
        ([COLOUR, COLOUR, COLOUR], "3 trees for 2 sub-mixes"),
        ([{"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "a", "at": 3}}, COLOUR], "no media time"),
        ([{"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "a", "until": 3}}, COLOUR], "until: a live"),
        ([{"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "a", "hold": True}}, COLOUR], "hold: a live"),
    ],
)  # fmt: skip
async def test_a_wrong_put_changes_nothing_at_all(door, body, sentence):
    await door.create(subMixes=2)
    await door.call("PUT", "/brewmixer/1.0/show", [GRID, GRID])
    status, got = await door.call("PUT", "/brewmixer/1.0/show", body)
    assert (status, sentence in got) == (400, True), got
    assert await door.call("GET", "/brewmixer/1.0/show") == (200, [GRID, GRID])


async def test_a_large_put_is_a_put(door):
    await door.create()
    nodes = [{"node": "VideoSourceNode", "streamGuid": f"{n}".ljust(1000, "x")} for n in range(255)]
    tree = {"rootVideoNode": {"node": "CompositorNode", "nodes": nodes}}
    assert len(json.dumps(tree)) > brewmixer.LARGE
    assert (await door.call("PUT", "/brewmixer/1.0/show", [tree]))[0] == 200
    assert await door.call("GET", "/brewmixer/1.0/show") == (200, [tree])
    nodes.append(nodes[0])
    status, sentence = await door.call("PUT", "/brewmixer/1.0/show", [tree])
    assert (status, "more than 256 nodes" in sentence) == (400, True)


async def test_slots_count_on(door):
    await door.create(frameRate=100)
    slots = []
    for _ in range(5):
        slots.append((await door.call("PUT", "/brewmixer/1.0/show", [COLOUR]))[1]["slot"])
        await trio.sleep(0.02)
    assert slots == sorted(slots)
    assert slots[-1] > slots[0]


async def test_a_put_may_move_there(door):
    await door.create()
    assert (await door.call("PUT", "/brewmixer/1.0/show?transition=500&easing=linear", [COLOUR]))[0] == 200
    assert await door.call("GET", "/brewmixer/1.0/show") == (200, [COLOUR])
    for query in ("transition=60001", "transition=x", "easing=bounce"):
        status, sentence = await door.call("PUT", f"/brewmixer/1.0/show?{query}", [GRID])
        assert (status, query.partition("=")[0] in sentence) == (400, True)
    answer = await door.call("PUT", f"/brewmixer/1.0/show?easing={'b' * 5000}", [GRID])
    assert answer == (400, f'easing "{"b" * 40}" is not one of linear, easeIn, easeOut, easeInOut, smooth')
    assert await door.call("GET", "/brewmixer/1.0/show") == (200, [COLOUR])


async def test_forwarding_pushes_every_sub_mix_to_the_origin(door):
    await door.create(subMixes=2, doForward=True, originIp="127.0.0.1")
    assert sorted(push.stream for push in door.engine.pushes()) == ["live/program", "live/program_1"]
    assert all("127.0.0.1" in push.url for push in door.engine.pushes())
    await door.call("DELETE", "/brewmixer/1.0/show")
    assert door.engine.pushes() == []


# --- images ----------------------------------------------------------------------------------------------------------


def png(width=4, height=2):
    """A grey PNG."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes([128]) * width for _ in range(height)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def form(filename, content, field="file"):
    head = f'--xyz\r\nContent-Disposition: form-data; name="{field}"; filename="{filename}"\r\n\r\n'
    return {
        "body": head.encode() + content + b"\r\n--xyz--\r\n",
        "headers": {"Content-Type": "multipart/form-data; boundary=xyz"},
    }


async def test_an_image_from_its_upload_to_its_end(door):
    images = "/brewmixer/2.0/images/"
    assert await door.call("GET", images) == (200, [])
    status, answer = await door.call("POST", images, **form("logo.png", png()))
    assert (status, answer["filename"], set(answer)) == (201, "logo.png", {"filename", "message"})
    row = {"filename": "logo.png", "width": 4, "height": 2, "sizeBytes": len(png())}
    assert await door.call("GET", images) == (200, [row])
    assert await door.call("DELETE", images + "logo.png") == (200, {})
    assert await door.call("GET", images) == (200, [])
    assert (await door.call("DELETE", images + "logo.png"))[0] == 404


@pytest.mark.parametrize(
    "upload",
    [
        form("a.png", b"no image"),
        form("a.png", b""),
        form("a.png", png()[:40]),
        form("a.png", png(MAX_SIDE + 1, 1)),
        form("../a.png", png()),
        form("a.png", png(), field="image"),
        {"body": png(), "headers": {"Content-Type": "image/png"}},
        {"body": b""},
    ],
    ids=["no image", "empty", "cut off", "too long a side", "elsewhere", "another field", "no form", "nothing"],
)
async def test_what_is_no_image_is_refused(door, upload):
    assert (await door.call("POST", "/brewmixer/2.0/images/", **upload))[0] == 400
    assert await door.call("GET", "/brewmixer/2.0/images/") == (200, [])


@pytest.mark.parametrize("filename", ["nosuch.png", "..", "%2e%2e%2fx", ".hidden"])
async def test_unknown_images_are_404(door, filename):
    assert (await door.call("DELETE", f"/brewmixer/2.0/images/{filename}"))[0] == 404


# --- who may ask -----------------------------------------------------------------------------------------------------


async def test_credentials_are_needed_where_they_are_configured(guarded_door):
    door = guarded_door
    for method, path in (("POST", "show"), ("GET", ""), ("GET", "show"), ("PUT", "show"), ("DELETE", "show")):
        for wrong in ({}, {"auth": ("ada", "wrong")}, {"auth": ("bob", "löve")}, {"auth": ("", "")}):
            status, sentence = await door.call(method, f"/brewmixer/1.0/{path}", NAMES, **wrong)
            assert (status, sentence) == (401, "user name or password is missing or wrong")
    right = {"auth": ("ada", "löve")}
    assert (await door.call("POST", "/brewmixer/1.0/show", NAMES | SMALL, **right))[0] == 201
    assert await door.call("GET", "/brewmixer/1.0/", **right) == (200, ["live/program"])


def signed(timestamp=1_000_000, *, event="show", secret="s3cret", **fields):
    digest = sign(secret, ("create", event, "live", "program"), timestamp)
    return {"action": "create", "digest": digest, "timestamp": timestamp} | fields


async def test_a_cluster_signs_its_creations(cluster_door):
    door = cluster_door
    assert await door.create() == (400, 'action is not "create"')
    assert await door.create(action="create") == (401, "digest and timestamp are required")
    assert await door.create(**signed(secret="other")) == (401, "digest is wrong")
    assert (await door.create(**signed(939_999)))[0] == 401
    assert await door.create(**signed(event="other")) == (401, "digest is wrong")
    assert await door.create(**signed(action="delete")) == (400, 'action is not "create"')
    assert await door.call("GET", "/brewmixer/1.0/") == (200, [])
    assert await door.create(**(signed() | {"timestamp": "1000000", "digest": signed()["digest"].upper()})) == (
        201,
        None,
    )
    assert (await door.call("PUT", "/brewmixer/1.0/show", [COLOUR]))[0] == 200
    assert (await door.call("DELETE", "/brewmixer/1.0/show"))[0] == 200
    assert await door.create(**signed()) == (401, "digest was used before")
    assert (await door.create(**signed(1_000_001)))[0] == 201


async def test_a_wrong_document_does_not_use_up_its_digest(cluster_door):
    assert (await cluster_door.create(**signed(width=1)))[0] == 400
    assert (await cluster_door.create(**signed()))[0] == 201
