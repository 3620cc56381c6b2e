"""Which names are valid, and names from data as names of files: readable, safe on any file system, and distinct.

`RunName` and the other types validate fields of pydantic models; `is_name` validates one text by such a type.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

LONGEST = 100
"""Characters of a folder's or run's name, which leaves room for a writer's prefix and suffix."""
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
"""In place of a name without any plain letter or digit."""
DIGITS = 8
"""Hexadecimal digits of the digest that distinguishes two names."""
LONGEST_LABEL = 80


def _one_printable_line(name: str) -> str:
    if not name.isprintable() or not 0 < len(name) <= LONGEST_LABEL:
        raise ValueError(f"a name is not one printable line of 1 to {LONGEST_LABEL} characters; rename it")
    return name


RunName = Annotated[str, Field(pattern=rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST - 1}}}$")]
"""A run's name, which is its folder's."""
SiteName = Annotated[str, Field(pattern=r"^[^\p{C}\p{Z}](?:[^\p{C}\p{Zl}\p{Zp}]{0,58}[^\p{C}\p{Z}])?$")]
"""A hospital's name for people: up to 60 printable characters. No file or folder is named by it."""
NodeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
"""A Flower node's name, which its key files have."""
LabelName = Annotated[str, AfterValidator(_one_printable_line)]
"""A mask's label or region."""
Word = Annotated[str, Field(pattern=r"^[\w+-](?:[\w .+-]{0,38}[\w.+-])?$")]
"""A channel, region or class that a site sends to a federation's server: no space at its ends, no dot at its start."""
ArrayName = Annotated[str, Field(pattern=r"^[^/~.\\\x00-\x1f][^\\\x00-\x1f]{0,199}$")]
"""A tensor or metric that leaves a site; it must not begin like a path."""


def is_name(name: object, kind: Any) -> bool:
    """Whether a value is a name of this kind, such as RunName."""
    try:
        TypeAdapter(kind).validate_python(name, strict=True)
    except ValidationError:
        return False
    return True


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
