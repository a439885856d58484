"""JSON is taken strictly and refused with one sentence; how deep it is does not depend on how it is looked through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import strictjson
from engine.errors import InvalidTree
from engine.strictjson import is_deeper, parse_json


def read(document):
    return parse_json(document, limit_bytes=1 << 20)


def refusal(document):
    """(sentence, path) of the InvalidTree that reading the document raises."""
    with pytest.raises(InvalidTree) as caught:
        read(document)
    return str(caught.value), caught.value.where


# --- what is no JSON -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence", "path"),
    [
        ("", "not JSON: Expecting value at line 1 column 1", "$"),
        ("{} x", "not JSON: Extra data at line 1 column 4", "$"),
        ('{"a":}', "not JSON: Expecting value at line 1 column 6", "$"),
        ("1" * 5000, "not JSON: a number is too long", "$"),
        (b'{"a":"\xff"}', "not UTF-8 at byte 6", "$"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8 at byte 6", "$"),
        ("{}".encode("utf-16"), "not UTF-8 at byte 0", "$"),
        ('{"a":1,"b":2,"a":1}', 'the key "a" stands twice in one object', "$"),
        ('[{"rootVideoNode":{"node":"X","red":0,"red":0}}]', 'the key "red" stands twice in one object', "$"),
        (r'{"\ud800":1,"\ud800":2}', 'the key "?" stands twice in one object', "$"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused(text, sentence, path):
    assert refusal(text) == (f"{path}: {sentence}", path)


def test_as_many_keys_as_fit_are_told_apart_at_once():
    text = "{" + ",".join(f'"{n}":0' for n in range(100_000)) + ',"99999":0}'
    assert refusal(text) == ('$: the key "99999" stands twice in one object', "$")


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("place", ['{{"rootVideoNode":{}}}', "[{}]", "{}", '{{"rootVideoNode":null,"other":{}}}'])
def test_nan_and_infinities_are_refused_wherever_they_stand(constant, place):
    assert refusal(place.format(constant)) == (f"$: {constant} is not a number in JSON", "$")


def test_half_a_surrogate_pair_is_refused():
    assert refusal(r'{"rootVideoNode":{"node":"SolidColorNode","id":"\ud800"}}') == (
        "$: a string holds half a surrogate pair",
        "$",
    )
    assert refusal(r'[{"rootVideoNode":{"node":"\uDFFF"}}]')[1] == "$"
    assert refusal('{"rootVideoNode":{"node":"SolidColorNode","id":"\ud800"}}')[1] == "$"
    assert read(r'{"rootVideoNode":{"node":"SolidColorNode","id":"\ud83c\udfa5"}}')["rootVideoNode"]["id"] == "🎥"


# --- how deep it is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '{"rootVideoNode":' + '{"node":"CompositorNode","nodes":[' * 20_000]
)
def test_bottomless_json_is_refused(text):
    assert refusal(text) == ("$: nested deeper than 512 levels", "$")


def test_brackets_within_strings_are_no_levels():
    text = b'[{"a":["' + b"[{" * 600 + b'\\"[\\\\","]"]},' + b"[]," * 600 + b"[]]"
    assert (is_deeper(text, 3), is_deeper(text, 2)) == (False, True)
    assert not is_deeper(b'"' + b"[" * 600 + b'"', 0)


def test_brackets_of_a_string_without_an_end_are_no_levels():
    text = b'["' + b'\\"' * 8_000 + b"[" * 600
    assert not is_deeper(text, 1)


def deepest_of(text):
    """As is_deeper has it, character by character."""
    level = deepest = at = 0
    is_within = False
    while at < len(text):
        each = text[at : at + 1]
        if is_within:
            at += each == b"\\"
            is_within = each != b'"'
        elif each == b'"':
            is_within = True
        else:
            level += (each in b"[{") - (each in b"]}")
            deepest = max(deepest, level)
        at += 1
    return deepest


IN_STRINGS = st.lists(st.sampled_from([b"[", b"}", b"x", b'\\"', b"\\\\", b"\\n"]), max_size=9).map(b"".join)
STRINGS = IN_STRINGS.map(lambda text: b'"' + text + b'"')
TEXTS = st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b",", b"1"]) | STRINGS, max_size=30).map(b"".join)


@given(text=TEXTS, end=st.just(b"") | IN_STRINGS.map(lambda text: b'"' + text), part=st.sampled_from([2, 4, 6, 1024]))
def test_how_deep_it_is_does_not_depend_on_where_it_is_cut(text, end, part):
    text += end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strictjson, "SLICE", part)
        deepest = deepest_of(text)
        assert not is_deeper(text, deepest)
        assert deepest == 0 or is_deeper(text, deepest - 1)
