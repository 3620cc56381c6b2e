"""Names from data as names of files: readable, valid on any file system, and distinct for distinct names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

LONGEST = 100
"""Characters of a folder's name, which leaves room for a writer's prefix and suffix."""
LONGEST_PART = 40
"""Characters of a name that becomes part of a run's name."""
SAFE = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?")
DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
"""Names of devices on Windows, with any suffix."""
LETTERS = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D",
     "ł": "l", "Ł": "L", "ı": "i", "þ": "th", "Þ": "Th", "ð": "d", "Ð": "D"}
)  # fmt: skip
"""Letters that Unicode does not decompose into a plain one and an accent."""
NAMELESS = "name"
"""Stands for a name without any plain letter or digit."""
DIGITS = 8
"""Hexadecimal digits of the digest that distinguishes two names."""


def folder_name(name: str, *, longest: int = LONGEST) -> str:
    """A valid file or folder name for a name: the name itself if possible, else its plain letters and digits.

    `Spital Ü` gives `Spital-U`. A digest is added for a name without any plain letter or digit, and for one that is cut
    at `longest` characters. For names that must stay distinct, use `folder_names` on all of them.
    """
    plain = _plain(name)
    if DEVICE.fullmatch(plain):
        plain = f"{NAMELESS}-{plain}"
    if not plain:
        return _with_digest(name, NAMELESS, longest)
    return plain if len(plain) <= longest else _with_digest(name, plain, longest)


def folder_names(names: Iterable[str], *, longest: int = LONGEST, taken: Iterable[str] = ()) -> dict[str, str]:
    """By name, its file or folder name, all of them distinct even if case is ignored.

    A name gets the result of `folder_name`, with a digest added if another name has it or it is in `taken`. Of names
    that collide, one that needs no change stays without a digest, else the first in order.
    """
    used = {name.lower() for name in taken}
    result: dict[str, str] = {}
    preferred = {name: folder_name(name, longest=longest) for name in names}
    for name in sorted(preferred, key=lambda name: (preferred[name] != name, name)):
        candidate, salt = preferred[name], ""
        while candidate.lower() in used:  # more than once only for names constructed to collide
            candidate, salt = _with_digest(name + salt, preferred[name], longest), f"{salt}\0"
        used.add(candidate.lower())
        result[name] = candidate
    return {name: result[name] for name in preferred}


def _plain(name: str) -> str:
    """The name's ASCII letters, digits, dots and underscores, with a dash for anything between them; may be empty."""
    if SAFE.fullmatch(name):
        return name
    decomposed = unicodedata.normalize("NFKD", name.translate(LETTERS))
    letters = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return re.sub(r"[^A-Za-z0-9._]+", "-", letters).strip("-.")


def _with_digest(name: str, base: str, longest: int) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
    return f"{base[: longest - DIGITS - 1].rstrip('-.')}-{digest}"
