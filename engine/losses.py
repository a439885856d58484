"""What was lost since somebody last looked, in one sentence for each thing that has lost something.

It decides what is worth a line; it refuses to know who counts, and how often somebody looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

# Of each thing, by what a log calls it: how much of what it has lost since it was made, by what that is called.
Counted: TypeAlias = Mapping[str, Mapping[str, int]]


class Losses:
    """Counters as they were when somebody last looked. A thing that counts less than then has begun anew."""

    def __init__(self) -> None:
        self._before: Counted = {}

    def since(self, counted: Counted) -> list[str]:
        """Like "event show: 12 lagged, 3 skipped", of each thing whose counters have grown, in their order."""
        before, self._before = self._before, counted
        lines = []
        for name, counts in counted.items():
            grown = {what: n - before.get(name, {}).get(what, 0) for what, n in counts.items()}
            lost = [f"{n} {what}" for what, n in grown.items() if n > 0]
            if lost:
                lines.append(f"{name}: {', '.join(lost)}")
        return lines
