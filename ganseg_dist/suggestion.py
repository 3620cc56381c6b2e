"""Suggests known names for a misspelt one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

CUTOFF = 0.6
"""Least `SequenceMatcher` ratio of two parts of names that count as close."""

MOST = 3
"""Most equally close names that are suggested; if there are more, none is."""


def suggestion(wrong: str, known: Iterable[str], otherwise: str) -> str:
    """`did you mean train.epochs?`, or `otherwise` if no known name is close."""
    near = similar(wrong, known)
    return f"did you mean {' or '.join(near)}?" if near else otherwise


def similar(wrong: str, known: Iterable[str]) -> list[str]:
    """The known names that are closest to a misspelt one, in their order; empty if none is close.

    Names are compared part by part, split at dots and slashes, and every part must be close: a shared prefix such as
    `federation.` does not make two fields similar. A name with fewer parts is compared with the last parts of a known
    one, and a name with more parts with the field that it continues. If none is close, fields with the same last part
    are returned, as for `data.epochs`.
    """
    names = list(dict.fromkeys(known))
    parts = {name: _parts(name) for name in names}
    sought = _parts(wrong)
    closeness = {name: _closeness(sought, parts[name]) for name in names}
    best = max(closeness.values(), default=(0.0, 0))
    near = [name for name in names if closeness[name] == best and best[0] >= CUTOFF]
    near = near or [name for name in names if parts[name][-1] == sought[-1]]
    return near if len(near) <= MOST else []


def _parts(name: str) -> list[str]:
    return re.split("[./]", name.casefold())


def _closeness(wrong: Sequence[str], known: Sequence[str]) -> tuple[float, int]:
    """The ratio of the least similar parts, 0 to 1, and minus the difference in the numbers of parts."""
    tail = known[len(known) - len(wrong) :] if len(wrong) <= len(known) else known
    ratios = [SequenceMatcher(None, *pair).ratio() for pair in zip(wrong, tail, strict=False)]
    return min(ratios), -abs(len(wrong) - len(known))
