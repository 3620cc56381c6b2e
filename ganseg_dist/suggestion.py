"""What a misspelt name may have meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

CUTOFF = 0.6
"""Share of letters, in their order, that a part of a name has in common with a part that is close to it."""

MOST = 3
"""Names that are as close as each other and are all suggested; of more, none is."""


def suggestion(wrong: str, known: Iterable[str], otherwise: str) -> str:
    """`did you mean train.epochs?`, or `otherwise` where no known name is close."""
    near = similar(wrong, known)
    return f"did you mean {' or '.join(near)}?" if near else otherwise


def similar(wrong: str, known: Iterable[str]) -> list[str]:
    """The known names that are closest to a misspelt one, in their order; empty where none is close.

    Names are compared part by part between dots and slashes, and every part must be close: what two fields share, such
    as `federation.`, does not make them alike. A name without its first parts is compared with the last parts of a
    known one, and one that goes on below a field with that field. Failing that, a field of the same name elsewhere is
    meant, as in `data.epochs`.
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
    """How close the least alike of their parts are, 0 to 1; the fewer parts only one of them has, the larger."""
    of_known = known[len(known) - len(wrong) :] if len(wrong) <= len(known) else known
    ratios = [SequenceMatcher(None, *pair).ratio() for pair in zip(wrong, of_known, strict=False)]
    return min(ratios), -abs(len(wrong) - len(known))
