"""Which way each character of a line runs: the embedding levels of the Unicode Bidirectional Algorithm.

It decides levels, from the characters' classes as Python's Unicode tables have them; it refuses to know fonts and
glyphs. Rules (P2, X5a, …) are called as in UAX #9, revision 48.
"""

from __future__ import annotations

import unicodedata
from typing import Final, NamedTuple

MAX_DEPTH: Final = 125
_ISOLATES: Final = ("LRI", "RLI", "FSI")
_EMBEDDINGS: Final = ("LRE", "RLE", "LRO", "RLO")
_REMOVED: Final = (*_EMBEDDINGS, "PDF", "BN")  # X9: they have no say
_NEUTRAL: Final = ("B", "S", "WS", "ON", *_ISOLATES, "PDI")
_TURNS: Final = {"R", "AL", "AN", *_EMBEDDINGS, *_ISOLATES}  # without any, nothing to do
# The pairs of BidiBrackets.txt that people write, by their openers; U+2329 is U+3008.
_BRACKETS: Final = dict(
    zip(
        "([{༺༼᚛⁅⁽₍⌈⌊〈❨❪❬❮❰❲❴⟅⟦⟨⟪⟬⟮⦃⦅⦇⧼⸨〈《「『【〔〖〘〚﹙﹛﹝（［｛｟｢",
        ")]}༻༽᚜⁆⁾₎⌉⌋〉❩❫❭❯❱❳❵⟆⟧⟩⟫⟭⟯⦄⦆⦈⧽⸩〉》」』】〕〗〙〛﹚﹜﹞）］｝｠｣",
        strict=True,
    )
)
_CLOSERS: Final = frozenset(_BRACKETS.values())


def levels(text: str, base: int | None = None) -> list[int]:
    """The level of every character of one paragraph: even ones run to the right, odd ones to the left.

    base  the paragraph's own level, 0 or 1; None: it runs as its first strong character does (P2, P3).
    """
    classes = [unicodedata.bidirectional(character) or "L" for character in text]
    if not base and _TURNS.isdisjoint(classes):
        return [0] * len(text)
    if base is None:
        base = _direction(classes, 0, len(classes)) or 0
    found = _Explicit(classes, base)
    for sequence in found.sequences():
        _resolve(text, sequence, found.levels)
    for n, each in enumerate(classes):
        if each in _REMOVED:  # they part nothing
            found.levels[n] = found.levels[n - 1] if n else base
    return _trailing(classes, found.levels, base)


def reordered(levels: list[int]) -> list[int]:
    """The places of things with these levels, as they stand from left to right (L2)."""
    order = list(range(len(levels)))
    for level in range(max(levels, default=0), 0, -1):
        start = None
        for n in range(len(order) + 1):
            inside = n < len(order) and levels[order[n]] >= level
            if inside and start is None:
                start = n
            elif not inside and start is not None:
                order[start:n] = reversed(order[start:n])
                start = None
    return order


def _direction(classes: list[str], start: int, stop: int) -> int | None:
    """The level that the first strong character outside isolates asks for (P2, P3); None where there is none."""
    depth = 0
    for each in classes[start:stop]:
        if each in _ISOLATES:
            depth += 1
        elif each == "PDI":
            if depth == 0 and start:  # of an FSI: its own end
                return None
            depth = max(0, depth - 1)
        elif depth == 0 and each in ("L", "R", "AL"):
            return 0 if each == "L" else 1
    return None


def _trailing(classes: list[str], levels: list[int], base: int) -> list[int]:
    """Separators, and whitespace before them and at the end, are at the paragraph's level (L1)."""
    blank = True
    for n in reversed(range(len(classes))):
        if classes[n] in ("S", "B"):
            blank = True
        elif classes[n] not in ("WS", *_ISOLATES, "PDI", *_REMOVED):
            blank = False
        if blank:
            levels[n] = base
    return levels


class _Sequence(NamedTuple):
    """An isolating run sequence: where its characters are, their classes, its level and what is around it."""

    places: list[int]
    classes: list[str]
    level: int
    before: str  # L or R
    after: str


class _Explicit:
    """Embeddings, overrides and isolates (X1 to X8): levels and classes after them."""

    def __init__(self, classes: list[str], base: int) -> None:
        self.classes = list(classes)
        self.levels = [base] * len(classes)
        self._base = base
        self._pair: dict[int, int] = {}  # an isolate's initiator and its PDI, both ways
        self._match(classes)
        self._walk(classes)

    def _match(self, classes: list[str]) -> None:
        """BD9: which PDI ends which isolate."""
        opened: list[int] = []
        for n, each in enumerate(classes):
            if each in _ISOLATES:
                opened.append(n)
            elif each == "PDI" and opened:
                self._pair[opened[-1]] = n
                self._pair[n] = opened.pop()

    def _walk(self, classes: list[str]) -> None:
        stack: list[tuple[int, str, bool]] = [(self._base, "", False)]  # level, override, isolate
        overflow_isolates = overflow_embeddings = valid_isolates = 0
        for n, each in enumerate(classes):
            level, override, _ = stack[-1]
            self.levels[n] = level
            if each in _EMBEDDINGS or each in _ISOLATES:
                isolate = each in _ISOLATES
                if isolate and override:
                    self.classes[n] = override
                deeper = self._deeper(classes, n, level)
                if deeper <= MAX_DEPTH and not overflow_isolates and not overflow_embeddings:
                    valid_isolates += isolate
                    stack.append((deeper, each[0] if each.endswith("O") else "", isolate))
                elif isolate:
                    overflow_isolates += 1
                elif not overflow_isolates:
                    overflow_embeddings += 1
                if not isolate:
                    self.levels[n] = stack[-1][0]
            elif each == "PDI":
                if overflow_isolates:
                    overflow_isolates -= 1
                elif valid_isolates:
                    overflow_embeddings = 0
                    while not stack[-1][2]:
                        stack.pop()
                    stack.pop()
                    valid_isolates -= 1
                level, override, _ = stack[-1]
                self.levels[n] = level
                if override:
                    self.classes[n] = override
            elif each == "PDF":
                if overflow_isolates:
                    pass  # it belongs to an isolate that went too deep
                elif overflow_embeddings:
                    overflow_embeddings -= 1
                elif not stack[-1][2] and len(stack) > 1:
                    stack.pop()
            elif each != "BN" and override:
                self.classes[n] = override

    def _deeper(self, classes: list[str], n: int, level: int) -> int:
        """The level within the embedding or isolate that begins at n."""
        each = classes[n]
        right = _direction(classes, n + 1, len(classes)) == 1 if each == "FSI" else each.startswith("R")
        return level + 1 + (level % 2 == 1) if right else level + 2 - (level % 2 == 1)

    def sequences(self) -> list[_Sequence]:
        """X10: runs of one level, those joined that an isolate parts."""
        there = [n for n, each in enumerate(self.classes) if each not in _REMOVED]
        runs: list[list[int]] = []
        for n in there:
            if runs and self.levels[runs[-1][-1]] == self.levels[n]:
                runs[-1].append(n)
            else:
                runs.append([n])
        first = {run[0]: run for run in runs}
        found = []
        for run in runs:
            if run[0] in self._pair and self._pair[run[0]] < run[0]:
                continue  # begins with a PDI: goes on after what comes before its isolate
            places = list(run)
            while (end := self._pair.get(places[-1], -1)) > places[-1] and end in first:
                places += first[end]
            found.append(self._sequence(places, there))
        return found

    def _sequence(self, places: list[int], there: list[int]) -> _Sequence:
        level = self.levels[places[0]]
        at = {n: k for k, n in enumerate(there)} if len(places) < len(there) else {}
        k, m = at.get(places[0], 0), at.get(places[-1], len(there) - 1)
        before = self.levels[there[k - 1]] if k else self._base
        open_ended = self.classes[places[-1]] in _ISOLATES and places[-1] not in self._pair
        after = self._base if open_ended or m + 1 >= len(there) else self.levels[there[m + 1]]
        sides = ("R" if max(level, each) % 2 else "L" for each in (before, after))
        return _Sequence(places, [self.classes[n] for n in places], level, *sides)


def _resolve(text: str, sequence: _Sequence, levels: list[int]) -> None:
    classes = sequence.classes
    _weak(classes, sequence.before)
    _brackets([text[n] for n in sequence.places], classes, sequence)
    _neutral(classes, sequence)
    for n, each in zip(sequence.places, classes, strict=True):  # I1, I2
        level = sequence.level
        if level % 2 == 0:
            levels[n] = level + (1 if each == "R" else 2 if each in ("AN", "EN") else 0)
        else:
            levels[n] = level + (each in ("L", "AN", "EN"))


def _weak(classes: list[str], before: str) -> None:
    """W1 to W7, in place."""
    previous = strong = before
    for n, each in enumerate(classes):
        if each == "NSM":  # W1
            each = "ON" if previous in (*_ISOLATES, "PDI") else previous
        previous = each
        strong = each if each in ("L", "R", "AL") else strong
        classes[n] = "AN" if each == "EN" and strong == "AL" else each  # W2
    classes[:] = ["R" if each == "AL" else each for each in classes]
    for n in range(1, len(classes) - 1):  # W4
        around = (classes[n - 1], classes[n + 1])
        if (classes[n] in ("ES", "CS") and around == ("EN", "EN")) or (classes[n] == "CS" and around == ("AN", "AN")):
            classes[n] = around[0]
    n = 0
    while n < len(classes):  # W5, W6
        end = n
        while end < len(classes) and classes[end] == "ET":
            end += 1
        if end > n:
            number = (n and classes[n - 1] == "EN") or (end < len(classes) and classes[end] == "EN")
            classes[n:end] = ["EN" if number else "ON"] * (end - n)
        n = max(end, n + 1)
    strong = before
    for n, each in enumerate(classes):
        if each in ("ES", "CS"):
            classes[n] = "ON"
        elif each in ("L", "R"):
            strong = each
        elif each == "EN" and strong == "L":  # W7
            classes[n] = "L"


def _brackets(characters: list[str], classes: list[str], sequence: _Sequence) -> None:
    """N0: a pair runs as what is in it, in place. Canonically equal brackets are one."""
    direction = "R" if sequence.level % 2 else "L"
    for start, stop in _pairs(characters, classes):
        inside = {_strong(each) for each in classes[start + 1 : stop]} - {""}
        if not inside:
            continue
        runs = direction
        if direction not in inside:
            earlier = next((found for each in reversed(classes[:start]) if (found := _strong(each))), sequence.before)
            runs = earlier if earlier != direction else direction
        for place in (start, stop):
            classes[place] = runs
            for n in range(place + 1, len(classes)):  # what was a mark on it goes with it
                if unicodedata.bidirectional(characters[n]) != "NSM":
                    break
                classes[n] = runs


def _pairs(characters: list[str], classes: list[str]) -> list[tuple[int, int]]:
    """BD16: bracket pairs, by where they open."""
    opened: list[tuple[str, int]] = []
    found: list[tuple[int, int]] = []
    for n, character in enumerate(characters):
        if classes[n] != "ON":
            continue
        character = unicodedata.normalize("NFC", character)
        if character in _BRACKETS:
            if len(opened) == 63:
                return []
            opened.append((_BRACKETS[character], n))
        elif character in _CLOSERS:
            for k in reversed(range(len(opened))):
                if opened[k][0] == character:
                    found.append((opened[k][1], n))
                    del opened[k:]
                    break
    return sorted(found)


def _strong(each: str) -> str:
    """L or R, numbers counting as R; "" for what is neither."""
    return "L" if each == "L" else "R" if each in ("R", "EN", "AN") else ""


def _neutral(classes: list[str], sequence: _Sequence) -> None:
    """N1, N2, in place."""
    n = 0
    while n < len(classes):
        end = n
        while end < len(classes) and classes[end] in _NEUTRAL:
            end += 1
        if end > n:
            left = _strong(classes[n - 1]) if n else sequence.before
            right = _strong(classes[end]) if end < len(classes) else sequence.after
            runs = left if left == right else "R" if sequence.level % 2 else "L"
            classes[n:end] = [runs] * (end - n)
        n = max(end, n + 1)
