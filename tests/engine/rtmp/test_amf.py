"""AMF0: bytes from the specification, values read back as they were written, no bytes cost more than they weigh."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import LocalProtocolError, RemoteProtocolError
from engine.rtmp.amf import DEPTH, UNDEFINED, Date, EcmaArray, TypedObject, Values, encode

PATIENT = settings(deadline=None)

# What the specification's sections lay down, byte by byte.
KNOWN = [
    pytest.param("00 3ff0000000000000", 1.0, id="number (2.2)"),
    pytest.param("01 01", True, id="boolean (2.3)"),
    pytest.param("02 0003 616263", "abc", id="string (2.4)"),
    pytest.param("02 0002 c3a9", "é", id="string in UTF-8"),
    pytest.param("03 0001 61 00 4000000000000000 000009", {"a": 2.0}, id="object (2.5)"),
    pytest.param("03 000009", {}, id="empty object"),
    pytest.param("05", None, id="null (2.7)"),
    pytest.param("06", UNDEFINED, id="undefined (2.8)"),
    pytest.param("08 00000001 0001 61 05 000009", EcmaArray(a=None), id="ECMA array (2.10)"),
    pytest.param("0a 00000002 05 01 00", [None, False], id="strict array (2.12)"),
    pytest.param("0b 4059000000000000 0000", Date(100.0), id="date (2.13)"),
    pytest.param("10 0001 43 0001 61 05 000009", TypedObject("C", {"a": None}), id="typed object (2.18)"),
]


def decoded(data, *, values=10_000):
    return list(Values(data, depth=DEPTH, values=values))


@pytest.mark.parametrize(("wire", "value"), KNOWN)
def test_the_bytes_are_those_of_the_specification(wire, value):
    data = bytes.fromhex(wire)
    assert encode(value) == data
    found, rest = decoded(data + encode("tail"))
    assert found == value
    assert type(found) is type(value)
    assert rest == "tail"


@pytest.mark.parametrize(("wire", "value"), KNOWN)
def test_any_missing_byte_is_the_peers_fault(wire, value):
    data = bytes.fromhex(wire)
    for size in range(1, len(data)):
        with pytest.raises(RemoteProtocolError, match=f"value 0 of a message of {size} bytes is cut off"):
            decoded(data[:size])


def test_long_strings_have_their_own_type():
    text = "x" * 65536
    data = encode(text)
    assert data[:5] == bytes.fromhex("0c 00010000")
    assert decoded(data) == [text]
    assert encode("x" * 65535)[0] == 2


def test_length_of_an_ecma_array_is_only_a_hint():
    for hint in ("00000000", "ffffffff"):
        assert decoded(bytes.fromhex(f"08 {hint} 0001 61 05 000009")) == [{"a": None}]


def test_an_empty_name_is_a_name_when_no_end_follows():
    assert decoded(bytes.fromhex("03 0000 05 000009")) == [{"": None}]


def test_xml_is_text_and_unsupported_is_undefined():
    assert decoded(bytes.fromhex("0f 00000003 3c612f 0d")) == ["<a/", UNDEFINED]


def test_text_in_another_encoding_is_kept_with_replacements():
    assert decoded(b"\x02\x00\x02\xe9a") == ["\ufffda"]


def test_integers_and_tuples_are_taken():
    assert decoded(encode(7, (1, 2), -1)) == [7.0, [1.0, 2.0], -1.0]


@pytest.mark.parametrize("kind", [4, 7, 9, 14, 17, 18, 255])
def test_types_that_are_no_values_are_refused(kind):
    with pytest.raises(RemoteProtocolError):
        decoded(bytes((kind,)) + bytes(16))


def test_depth_is_limited():
    fine = b"\x0a\0\0\0\x01" * 32 + b"\x05"
    assert len(decoded(fine)) == 1
    with pytest.raises(RemoteProtocolError, match="32 deep"):
        decoded(b"\x0a\0\0\0\x01" * 33 + b"\x05")
    with pytest.raises(RemoteProtocolError, match="deep"):
        decoded(b"\x03\0\x01a" * 100_000)


def test_values_are_counted():
    assert decoded(b"\x05" * 10, values=10) == [None] * 10
    with pytest.raises(RemoteProtocolError, match="too many"):
        decoded(b"\x05" * 11, values=10)
    with pytest.raises(RemoteProtocolError, match="too many"):
        decoded(b"\x0a\xff\xff\xff\xff" + b"\x05" * 100_000)


def test_a_whole_message_must_not_be_cut_off():
    with pytest.raises(RemoteProtocolError, match="value 1 of a message of 10 bytes"):
        decoded(encode(1) + b"\x02")


@pytest.mark.parametrize("value", [object(), b"bytes", {1}, {"x" * 65536: 1}, Date(0, 1 << 15)])
def test_what_amf_cannot_carry_is_our_fault(value):
    with pytest.raises(LocalProtocolError):
        encode(value)


def test_an_integer_beyond_a_double_is_our_fault():
    with pytest.raises(LocalProtocolError):
        encode(10**400)


def test_a_cycle_is_our_fault():
    cycle = []
    cycle.append(cycle)
    with pytest.raises(LocalProtocolError):
        encode(cycle)


def test_lone_surrogates_do_not_escape():
    assert decoded(encode("a\ud800")) == ["a?"]


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
leaves = (
    st.none()
    | st.just(UNDEFINED)
    | st.booleans()
    | st.floats(allow_nan=False)
    | text
    | st.builds(Date, st.floats(allow_nan=False), st.integers(-32768, 32767))
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(text, inner, max_size=4)
        | st.dictionaries(text, inner, max_size=4).map(EcmaArray)
        | st.builds(TypedObject, text, st.dictionaries(text, inner, max_size=4))
    ),
    max_leaves=20,
)


@PATIENT
@given(st.lists(values, max_size=5))
def test_values_read_back_as_they_were_written(written):
    data = encode(*written)
    assert decoded(data) == written
    assert encode(*decoded(data)) == data


@PATIENT
@given(st.binary(max_size=200))
def test_garbage_is_values_or_the_peers_fault(data):
    try:
        found = decoded(data)
    except RemoteProtocolError:
        return
    encode(*found)


def test_numbers_that_are_no_numbers_pass():
    (found,) = decoded(encode(math.nan))
    assert math.isnan(found)
