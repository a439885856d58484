"""Documents stay as they are; what is no job is named, and what a job asks for is read."""

import msgspec
import pytest

from engine.errors import InvalidJob
from engine.jobdocument import (
    DOCUMENT,
    KEPT,
    PROJECT,
    Webhook,
    check_content,
    kind_of,
    output_folder,
    priority_of,
    read,
    stamp,
    tags_of,
    terms_of,
    truthy,
)
from tests.engine.jobbodies import NOW, TEMPLATE, document, made, values

# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"nul", b'{"a":1,}', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":1e400}', b'{"a":"\\ud800"}',
        b'{"a":"\xff"}', b"\xef\xbb\xbf{}", b'{"a":01}', b"{} {}", b'{"a":"\t"}',
        b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}", b"[" * 100_000, b'{"a":' * 513 + b"1" + b"}" * 513,
        b"null", b"5", b'"text"', b"true", b"[1]", b'[{},"x"]',
    ],
)  # fmt: skip
def test_what_is_no_object_or_array_of_objects_is_refused(text):
    with pytest.raises(InvalidJob) as caught:
        read(text)
    assert caught.value.where == "$"
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("text", [b"1.50", b"1E5", b"-0", b"123456789012345678901234567890", b'"\\u00e9/\\/"', b"1e-7"])
def test_values_stay_the_text_that_came(text):
    assert bytes(read(b'{"custom": ' + text + b" }")["custom"]) == text


def test_documents_are_compact():
    assert bytes(read(b'{"a" : [ 1 ,\n {"b" : 2 } ] }')["a"]) == b'[1,{"b":2}]'


def test_the_last_of_two_equal_keys_counts():
    assert values(read(b'{"a":1,"a":2}')) == {"a": 2}


def test_an_array_is_several_documents():
    assert [values(each) for each in read(b'[{"a":1},{"b":2}]')] == [{"a": 1}, {"b": 2}]


def test_what_is_deep_but_taken_can_be_read_from_any_depth():
    deep = b'{"a":' + b"[" * 511 + b"]" * 511 + b"}"
    kept = msgspec.json.encode(read(deep))

    def below(levels):
        return below(levels - 1) if levels else msgspec.json.decode(kept)

    assert below(200) == msgspec.json.decode(deep)


def test_brackets_within_strings_are_no_levels():
    (*_, last) = read(b'[{"a":"' + b"[" * 600 + b'\\""}]')
    assert values(last)["a"] == "[" * 600 + '"'


def test_what_is_wrong_within_one_of_several_is_told_by_its_place_in_all():
    with pytest.raises(InvalidJob, match="byte 17") as alone:
        read(b' [{"a": 1}, {"b":\x01}]')
    with pytest.raises(InvalidJob) as within:
        read(b'[{"a": 1}, {"b":"\\ud800"}]')
    assert "JSON" in str(alone.value) and "JSON" in str(within.value)


def test_brackets_of_a_string_without_an_end_are_no_levels():
    text = b'["' + b'\\"' * 8_000 + b"[" * 600
    with pytest.raises(InvalidJob, match="not JSON"):
        read(text)


@pytest.mark.parametrize("more", [0, 600])
def test_the_place_of_an_error_is_told_as_it_is_in_the_text(more):
    with pytest.raises(InvalidJob, match=r"byte 11\)"):
        read(b'[{"a": 1}, ?, ' + b"{}, " * more + b"{}]")


@pytest.mark.parametrize("value", [True, 1, -0.5, "0", " ", "false", {}, [], [0], {"a": None}])
def test_what_javascript_takes_for_true(value):
    assert truthy(value)


@pytest.mark.parametrize("value", [None, False, 0, 0.0, -0.0, ""])
def test_what_javascript_takes_for_false(value):
    assert not truthy(value)


def test_a_moment_is_a_string_of_the_document():
    assert bytes(stamp(NOW)) == b'"2023-11-14T22:13:20.000Z"'


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3), (-2.5, -2.5), ("7", 7), (" 1e3 ", 1000), (True, 1), (None, 0), ("high", 0), ("", 0), ([], 0),
     ({"a": 1}, 0), ("1_000", 0), ("nan", 0), ("inf", 0), ("1e999", 0), (10**400, 0)],
)  # fmt: skip
def test_a_priority_is_what_javascript_makes_of_it(value, number):
    assert priority_of(value) == number


@pytest.mark.parametrize(
    ("tags", "items"),
    [("a,b", ("a", "b")), (" gpu, slow ,", ("gpu", "slow")), ("", ()), (",", ()), ("a,a", ("a",)), ("a b", ("a b",)),
     (["x", " y ", 5, None, ""], ("x", "y")), (None, ()), (7, ()), ({"a": 1}, ())],
)  # fmt: skip
def test_tags_are_trimmed_items(tags, items):
    assert tags_of(tags) == items


@pytest.mark.parametrize(
    ("src", "kind"),
    [
        ("file:///a.aepx", PROJECT),
        ("file:///a.json", DOCUMENT),
        ("scenes/A.JSON", DOCUMENT),
        ("https://x.org/a.json?v=1#y", DOCUMENT),
        ("https://x.org/a?b=.json", PROJECT),
        ("s3://bucket/a.aep#x.json", PROJECT),
        ("file:///a/take #2?.json", DOCUMENT),
        ("file:///a/scene.json?v=1", DOCUMENT),
        ("take #2.json", DOCUMENT),
        ("file:///a/take #2.json.aep", PROJECT),
        ("data:application/json;base64,e30=", DOCUMENT),
        ("data:application/vnd.x+json,{}", DOCUMENT),
        ("DATA:text/json,{}", DOCUMENT),
        ("data:,{}", DOCUMENT),  # RFC 2397: plain text
        ("data:;base64,e30=", DOCUMENT),
        ("data:;charset=utf-8,{}", DOCUMENT),
        ("data:text/plain;charset=utf-8;base64,e30=", DOCUMENT),
        ("Data:TEXT/plain,{}", DOCUMENT),
        ("data:application/octet-stream,json", PROJECT),
        ("data:application/octet-stream;base64,e30=", PROJECT),
        ("data:image/png,text/", PROJECT),
        ("data:text/xml;base64,PD94bWw=", PROJECT),  # an .aepx is XML
        (5, PROJECT),
        ("mash:ada/film", KEPT),
        ("Mash:film.json", KEPT),
    ],
)
def test_the_kind_is_read_from_the_template(src, kind):
    assert kind_of(document(template={"src": src})) == kind


def test_the_type_says_the_kind_too():
    assert kind_of(document(type="rendertree", template={"src": "https://x.org/scene"})) == DOCUMENT
    assert kind_of(document(template=5)) == kind_of(document()) == PROJECT


@pytest.mark.parametrize("uid", ["a", "A-b_1.2", "x" * 100])
def test_an_output_folder_is_called_like_its_job(uid):
    assert output_folder(uid) == uid


@pytest.mark.parametrize("uid", ["..", ".", ".a", "a/b", "a\\b", "a b", "é", "x" * 101, "a\n", "~", "a\0"])
def test_or_like_a_digest_where_that_is_no_good_name(uid):
    assert len(output_folder(uid)) == 64
    assert output_folder(uid).isalnum()


# --- checking --------------------------------------------------------------------------------------------------------

ASSET = {"type": "image", "src": "a.png", "layerName": "x"}
DATA = {"type": "data", "layerName": "x", "property": "p"}


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("uid", {"uid": ""}), ("uid", {"uid": None}), ("uid", {"uid": 0}), ("uid", {"uid": False}),
        ("uid", {"uid": {}}), ("uid", {"uid": True}), ("uid", {"uid": "x" * 513}),
        ("template", {"template": None}), ("template", {"template": ""}), ("template.src", {"template": {}}),
        ("template.src", {"template": "x"}), ("template.src", {"template": {"src": "", "composition": "c"}}),
        ("template.composition", {"template": {"src": "a"}}),
        ("assets", {"assets": None}), ("assets", {"assets": {}}), ("assets", {"assets": "x"}),
        ("assets[0].type", {"assets": [None]}), ("assets[0].type", {"assets": [{}]}),
        ("assets[1].type", {"assets": [ASSET, {"src": "a"}]}), ("assets[0].type", {"assets": [{"type": "film"}]}),
        ("assets[0].type", {"assets": [{"type": []}]}),
        ("assets[0].src", {"assets": [{**ASSET, "src": ""}]}), ("assets[0].src", {"assets": [{"type": "video"}]}),
        ("assets[0].src", {"assets": [{"type": "script"}]}), ("assets[0].src", {"assets": [{"type": "static"}]}),
        ("assets[0].layerName", {"assets": [{"type": "audio", "src": "a"}]}),
        ("assets[0].layerName", {"assets": [{"type": "image", "src": "a", "layerIndex": 0}]}),
        ("assets[0].layerName", {"assets": [{"type": "data", "property": "p", "value": 1}]}),
        ("assets[0].value", {"assets": [DATA]}), ("assets[0].value", {"assets": [{**DATA, "expression": ""}]}),
        ("assets[0].property", {"assets": [{"type": "data", "layerName": "x", "value": 1}]}),
        ("actions", {"actions": None}), ("actions", {"actions": "x"}), ("actions", {"actions": True}),
        ("actions.prerender[0].module", {"actions": {"prerender": [None]}}),
        ("actions.prerender[1].module", {"actions": {"prerender": [{"module": "a"}, {}]}}),
        ("actions.postrender[0].module", {"actions": {"postrender": {"x": 1}}}),
        ("actions.postrender[0].module", {"actions": {"postrender": "x"}}),
        ("maxAttempts", {"maxAttempts": 0}), ("maxAttempts", {"maxAttempts": "3"}),
        ("maxAttempts", {"maxAttempts": 1.5}), ("maxAttempts", {"maxAttempts": 1001}),
        ("retryDelay", {"retryDelay": -1}), ("retryDelay", {"retryDelay": "1 s"}), ("timeout", {"timeout": 1e12}),
        ("notBefore", {"notBefore": "tomorrow"}), ("notBefore", {"notBefore": -1}), ("notBefore", {"notBefore": []}),
        ("after", {"after": [{}]}), ("after", {"after": 5.5}), ("after", {"after": ["x"] * 1001}),
        ("after", {"after": [1, True]}),
        ("parentUid", {"parentUid": True}),
        ("webhooks", {"webhooks": ["http://a"]}), ("webhooks", {"webhooks": [{"url": "ftp://a"}]}),
        ("webhooks", {"webhooks": [{"url": "http://"}]}), ("webhooks", {"webhooks": {"url": "http://[a"}}),
        ("webhooks", {"webhooks": [{"url": "http://a", "events": "all"}]}),
        ("webhooks", {"webhooks": [{"url": "http://a"}] * 33}), ("webhooks", {"webhooks": {"url": "http://a/b c"}}),
        ("webhooks", {"webhooks": {"url": "http://a\r\nX: y"}}), ("webhooks", {"webhooks": {"url": "http://a:99999"}}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(field, fields):
    with pytest.raises(InvalidJob) as caught:
        made(**fields)
    assert caught.value.where == f"$.{field}"
    assert field in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"assets": [{**DATA, "value": value}]} for value in (None, 0, "", False, [], {})
    ] + [
        {"assets": [{**DATA, "expression": "x"}]},
        {"assets": [{"type": "image", "src": "a", "layerIndex": 1}]},
        {"assets": [{"type": "script", "src": "a"}, {"type": "static", "src": "b"}]},
        {"actions": {}}, {"actions": []}, {"actions": {"prerender": None, "postrender": 0}},
        {"actions": {"prerender": {"module": "one"}, "predownload": "whatever"}},
        {"priority": "high"}, {"priority": None}, {"timings": None}, {"error": {}}, {"type": ""}, {"tags": 5},
        {"uid": 5}, {"uid": "a/b c~é"}, {"template": {**TEMPLATE, "frames": []}}, {"state": ""},
        {"maxAttempts": None, "retryDelay": None, "webhooks": None, "after": [], "notBefore": None, "timeout": None},
        {"webhooks": {"url": "https://x.org/hook", "mine": 1}}, {"maxAttempts": 3.0}, {"after": 5}, {"notBefore": 0},
        {"uid": "x" * 512}, {"maxAttempts": 1000}, {"timeout": 366 * 86400},
    ],
)  # fmt: skip
def test_what_has_a_meaning_is_taken(fields):
    assert made(**fields).state == "queued"


def test_the_unknown_type_is_named_and_none_is_said_to_be_missing():
    with pytest.raises(InvalidJob, match="hologram"):
        made(assets=[{"type": "hologram"}])
    with pytest.raises(InvalidJob, match=r"assets\[0\]\.type is missing"):
        made(assets=[{}])


def test_content_is_checked_by_itself():
    check_content(document(template=TEMPLATE, assets=[], actions={}))
    with pytest.raises(InvalidJob, match="assets"):
        check_content(document(template=TEMPLATE, actions={}))


def test_terms():
    hooks = [{"url": "http://a/b", "events": ["finished"], "secret": "s"}, {"url": "https://c"}]
    terms = terms_of(
        made(maxAttempts=3, retryDelay=1.5, timeout=60, after=["a", "b", "u1"], parentUid="p", webhooks=hooks).head
    )
    assert (terms.max_attempts, terms.retry_delay, terms.timeout) == (3, 1500, 60_000)
    assert terms.after == ("p", "a", "b")  # it does not wait for itself
    assert terms.webhooks == (Webhook("http://a/b", ("finished",), "s"), Webhook("https://c"))


def test_terms_of_other_servers_jobs_may_be_anything():
    head = document(uid="a", timeout="5m", after={"x": 1}, webhooks="http://x", maxAttempts=2)
    assert (terms_of(head).max_attempts, terms_of(head).timeout, terms_of(head).after) == (2, None, ())
