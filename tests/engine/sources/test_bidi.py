"""Characters stand as the Unicode Bidirectional Algorithm says: examples, and another implementation."""

import unicodedata

import pytest
from bidi import get_display
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.sources.bidi import levels, reordered

HEBREW, ARABIC = "אבג", "ابج"
BASES = {None: None, 0: "L", 1: "R"}  # python-bidi's names
REMOVED = {"LRE", "RLE", "LRO", "RLO", "PDF", "BN"}


def shown(text, base=None):
    """As it stands from left to right, without what is never seen."""
    order = reordered(levels(text, base))
    return "".join(text[n] for n in order if unicodedata.bidirectional(text[n]) not in REMOVED)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("abc 1.", [0, 0, 0, 0, 0, 0]),
        ("אב", [1, 1]),
        ("a אב b", [0, 0, 1, 1, 0, 0]),
        ("א 12 ב", [1, 1, 2, 2, 1, 1]),
        ("א (b) ", [1, 1, 1, 2, 1, 1]),
        ("a (אב) ב", [0, 0, 0, 1, 1, 0, 0, 1]),
        ("12, א", [2, 2, 1, 1, 1]),
        ("ا 1-2", [1, 1, 2, 1, 2]),
        ("a\u2067ב1\u2069c", [0, 0, 1, 2, 0, 0]),
        ("\u202eab\u202c1", [0, 1, 1, 1, 2]),
    ],
)  # fmt: skip
def test_levels_are_those_of_the_rules(text, found):
    assert levels(text) == found


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("car is THE CAR in arabic".replace("THE CAR", "אבג דה"), "car is הד גבא in arabic"),
        ("א.ב 123, אב", "בא ,123 ב.א"),
        ("a\u2068אב1\u2069b", "a\u20681בא\u2069b"),
    ],
)
def test_line_stands_in_the_order_of_its_levels(text, seen):
    assert shown(text) == seen


@pytest.mark.parametrize(("base", "seen"), [(None, "b (c) גא"), (0, "גא b (c)"), (1, "b (c) גא")])
def test_paragraph_runs_as_its_first_letter_or_as_is_said(base, seen):
    assert shown("אג b (c)", base) == seen
    assert shown("b.", base) == (".b" if base else "b.")


@pytest.mark.parametrize(
    ("found", "order"),
    [
        ([], []),
        ([0, 0], [0, 1]),
        ([1, 1, 1], [2, 1, 0]),
        ([0, 1, 2, 2, 1, 0], [0, 4, 2, 3, 1, 5]),
        ([2, 1], [1, 0]),
    ],
)
def test_highest_levels_turn_first(found, order):
    assert reordered(found) == order


LETTERS = st.sampled_from("abAB אבגד ابج 12٣٤ .,:;+-$%()[]{}<>\t\u0301\u05b0\u200b\u200e\u200f«»")
LETTERS |= st.sampled_from("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@settings(deadline=None, max_examples=150)
@given(st.lists(LETTERS, max_size=14).map("".join), st.sampled_from((None, 0, 1)))
@example("«a\u2068)٤\u200b1\u202aב,bb", None)
@example("b\t[ج\u200b2 ", None)
def test_order_is_what_another_implementation_says(text, base):
    found = levels(text, base)
    if not any(level % 2 for level in found[: len(text.rstrip())]):
        return  # python-bidi leaves such lines as they are, whatever the paragraph's direction
    other = [
        character
        for character in get_display(text, base_dir=BASES[base])
        if unicodedata.bidirectional(character) not in REMOVED
    ]
    assert shown(text, base) == "".join(other)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_has_levels(text):
    found = levels(text)
    assert len(found) == len(text)
    assert sorted(reordered(found)) == list(range(len(text)))
    assert all(0 <= level <= 127 for level in found)


def test_embeddings_without_end_are_not_followed_for_ever():
    text = "\u202b" * 3000 + "\u2067" * 3000 + "אb" + "\u2069" * 4000
    assert max(levels(text)) <= 126
