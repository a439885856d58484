"""A body is read whole or refused with its limit; JSON is strict, its values are not; a form gives one file."""

from typing import Annotated

import msgspec
import pytest
import trio
from msgspec import Meta
from quart import request
from quart_trio import QuartTrio
from werkzeug.exceptions import RequestTimeout

from api import wire
from api.wire import created_response, decode, explain, json_response, read_body, read_upload
from engine.errors import InvalidSpec

BOUND = Meta(ge=2, le=7680)


class Document(msgspec.Struct, rename="camel"):
    """Something of each kind."""

    width: Annotated[int, BOUND] | Annotated[float, BOUND] | None = None
    frame_rate: Annotated[int, Meta(le=5)] = 1
    flag: bool | None = None
    text: Annotated[str, Meta(max_length=3)] | None = None
    nodes: list[int] = []


class Needy(msgspec.Struct, rename="camel"):
    stream_name: str
    inner: Document | None = None


def refusal(document, kind=Document, **options):
    with pytest.raises(InvalidSpec) as caught:
        decode(document if isinstance(document, bytes) else document.encode(), kind, **options)
    return str(caught.value), caught.value.where


# --- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ('{"width":1280}', "width", 1280),
        ('{"width":"1280"}', "width", 1280),
        ('{"width":"1280.5"}', "width", 1280.5),
        ('{"width":null}', "width", None),
        ('{"frameRate":5.0}', "frame_rate", 5),
        ('{"flag":"true"}', "flag", True),
        ('{"flag":"False"}', "flag", False),
        ('{"text":"5"}', "text", "5"),
        ('{"nodes":["1",2]}', "nodes", [1, 2]),
        ('\ufeff{"unknown":[{}],"text":"ü"}', "text", "ü"),
    ],
)
def test_values_are_read_leniently(text, field, value):
    assert getattr(decode(text.encode(), Document), field) == value


@pytest.mark.parametrize(
    ("text", "sentence", "where"),
    [
        ('{"width":1}', "width: expected a number ≥ 2", "width"),
        ('{"width":1.5}', "width: expected a number ≥ 2", "width"),
        ('{"width":"7681"}', "width: expected a number ≤ 7680", "width"),
        ('{"width":1e999}', "width: expected a number ≤ 7680", "width"),
        ('{"width":1%s}' % ("0" * 100), "width: expected a number ≤ 7680", "width"),
        ('{"width":true}', "width: expected a number, got a boolean", "width"),
        ('{"width":"wide"}', "width: expected a number, got a string", "width"),
        ('{"width":[]}', "width: expected a number, got an array", "width"),
        ('{"frameRate":1.5}', "frameRate: expected a whole number, got a fraction", "frameRate"),
        ('{"frameRate":null}', "frameRate: expected a number, got null", "frameRate"),
        ('{"flag":"yes"}', "flag: expected a boolean, got a string", "flag"),
        ('{"text":"four"}', "text: expected a string of length ≤ 3", "text"),
        ('{"text":5}', "text: expected a string, got a number", "text"),
        ('{"nodes":[1,{}]}', "nodes[1]: expected a number, got an object", "nodes[1]"),
        ("[]", "expected an object, got an array", ""),
        ("null", "expected an object, got null", ""),
        ('{"width":NaN}', "$: NaN is not a number in JSON", "$"),
        ('{"other":-Infinity}', "$: -Infinity is not a number in JSON", "$"),
        ('{"flag":true,"flag":true}', '$: the key "flag" stands twice in one object', "$"),
        ("", "$: not JSON: Expecting value at line 1 column 1", "$"),
        ("[" * 100_000, "$: nested deeper than 512 levels", "$"),
    ],
)
def test_refusals_name_the_field_and_the_limit(text, sentence, where):
    assert refusal(text) == (sentence, where)


@pytest.mark.parametrize("text", ["NaN", "nan", "inf", "-Infinity", "1e999"])
def test_no_string_becomes_nan_or_infinite(text):
    assert refusal(f'{{"width":"{text}"}}')[1] == "width"


def test_a_required_field_is_named():
    assert refusal("{}", Needy) == ("streamName: is required", "streamName")
    assert refusal('{"streamName":"a","inner":{"width":1}}', Needy) == (
        "inner.width: expected a number ≥ 2",
        "inner.width",
    )


def test_a_document_ends_at_its_limit():
    assert decode(b"{}".ljust(10), Document, limit_bytes=10) == Document()
    assert refusal("{}".ljust(11), limit_bytes=10) == ("$: 11 bytes of JSON, more than 10", "$")


def test_the_callers_own_words_are_not_taken_for_a_path():
    assert explain("Object contains unknown field `a - at `$.b` - at `$.c`")[0] == "c"


# --- bodies ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def app(monkeypatch):
    """Routes that say what they read, with small limits."""
    monkeypatch.setattr(wire, "MAX_UPLOAD", 100_000)
    app = QuartTrio(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = 1 << 20
    limiter = trio.CapacityLimiter(1)

    @app.errorhandler(InvalidSpec)
    async def refuse(error):
        return json_response({"error": str(error)}, 400)

    @app.errorhandler(RequestTimeout)
    async def late(error):
        return json_response({"error": error.description}, 408)

    @app.put("/body")
    async def body():
        return json_response((await read_body(request, limit_bytes=1000, seconds=0.1)).decode())

    @app.post("/upload")
    async def upload():
        filename, data = await read_upload(request, limiter=limiter)
        return json_response([filename, len(data), data[:5].decode("latin-1")])

    return app


async def test_a_body_of_the_limit_is_read(app):
    answer = await app.test_client().put("/body", data="x" * 1000)
    assert (answer.status_code, await answer.get_json()) == (200, "x" * 1000)
    assert answer.content_type == "application/json"


@pytest.mark.parametrize("size", [1001, 100_000, 3_000_000])
async def test_a_larger_body_is_refused(app, size):
    answer = await app.test_client().put("/body", data="x" * size)
    assert (answer.status_code, await answer.get_json()) == (400, {"error": "the body has more than 1000 bytes"})


async def test_a_body_that_does_not_come_is_given_up(app):
    async with app.test_client().request("/body", method="PUT") as connection:
        with trio.fail_after(30):
            await connection.send(b"a little")
            answer = await connection.as_response()
        await connection.disconnect()
    assert (answer.status_code, await answer.get_json()) == (408, {"error": "the body did not come within 0.1 s"})


def test_an_empty_answer_has_no_type():
    response = created_response()
    assert (response.status_code, response.headers.get("Content-Type")) == (201, None)


# --- forms -----------------------------------------------------------------------------------------------------------


def form(*parts, boundary="xyz"):
    """A multipart body of (disposition, content)."""
    text = "".join(f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n" for head, body in parts)
    return f"{text}--{boundary}--\r\n"


async def post(app, body, content_type="multipart/form-data; boundary=xyz"):
    answer = await app.test_client().post("/upload", data=body, headers={"Content-Type": content_type})
    return answer.status_code, await answer.get_json()


FILE = ('name="file"; filename="a.png"', "hello")


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([FILE], ["a.png", 5, "hello"]),
        ([('name="file"; filename="ü b.png"', "")], ["ü b.png", 0, ""]),
        ([('name="title"', "x"), ('name="other"; filename="b"', "y"), FILE], ["a.png", 5, "hello"]),
        ([('name="a"', "")] * 15 + [FILE], ["a.png", 5, "hello"]),
        ([("name=\"file\"; filename*=UTF-8''%C3%BC.png", "x")], ["ü.png", 1, "x"]),
        ([FILE, ('name="file"; filename="b.png"', "second")], ["a.png", 5, "hello"]),
        ([('name="file"; filename="a"', "\r\n--xy\r\n" * 3)], ["a", 24, "\r\n--x"]),
        ([('name="file"; filename="a"', "x" * 99_000)], ["a", 99_000, "xxxxx"]),
    ],
)
async def test_the_file_of_a_form_is_found(app, parts, expected):
    assert await post(app, form(*parts)) == (200, expected)


BROKEN = "the multipart form is broken"
NONE = 'the form has no file "file"'


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (form(), BROKEN),
        (form(('name="file"', "a field, not a file")), NONE),
        (form(('name="image"; filename="a.png"', "x")), NONE),
        ("", BROKEN),
        ("garbage", BROKEN),
        *((form(FILE)[:-n], BROKEN) for n in (4, 10, 30)),
        (form(FILE).replace("\r\n", "\n"), BROKEN),
        (form(FILE, boundary="other"), BROKEN),
        ("--xyz\r\nContent-Type: image/png\r\n\r\nx\r\n--xyz--\r\n", NONE),
        ("--xyz\r\n\r\n\r\n--xyz--", NONE),
        ("--xyz\r\n\r\n--xyz--", BROKEN),
        ("--xyz--", BROKEN),
        ("\r\n--xyz" * 10_000, BROKEN),
        (form(*[('name="a"', "")] * 16, FILE), BROKEN),
        (form(('name="file"; filename="a"', "x" * 100_001)), "the body has more than 100000 bytes"),
    ],
)
async def test_other_forms_are_refused(app, body, sentence):
    assert await post(app, body) == (400, {"error": sentence})


@pytest.mark.parametrize(
    "kind", ["image/png", "application/json", "multipart/form-data", "multipart/mixed; boundary=xyz"]
)
async def test_what_is_no_form_is_refused(app, kind):
    assert await post(app, form(FILE), kind) == (400, {"error": 'expected multipart/form-data with a file "file"'})


def test_limits_are_the_documented_ones():
    assert (wire.MAX_BODY, wire.MAX_UPLOAD) == (1048576, 33554432)
