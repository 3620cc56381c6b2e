"""Names out of data as names of files: readable, fit for any disk, and different wherever the names are."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

LONGEST = 100
"""Characters of a folder's name, which leaves room for what a writer puts before and after it."""
LONGEST_PART = 40
"""The same of a name that becomes a part of a run's."""
SAFE = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?")
DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
"""What Windows takes for a device, whatever suffix it has."""
LETTERS = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D",
     "ł": "l", "Ł": "L", "ı": "i", "þ": "th", "Þ": "Th", "ð": "d", "Ð": "D"}
)  # fmt: skip
"""Letters that Unicode does not take apart into a plain one and an accent."""
NAMELESS = "name"
"""What stands for a name of which no letter or digit is left."""
DIGITS = 8
"""Of the digest that tells two names apart."""


def folder_name(name: str, *, longest: int = LONGEST) -> str:
    """What a file or folder of this name is called: the name itself where it can be, else its plain letters and digits.

    `Spital Ü` is `Spital-U`. What is lost is told by a digest where too much is: of a name without a plain letter or
    digit, and of one that is cut at `longest` characters. Names that must differ go through `folder_names` together.
    """
    plain = _plain(name)
    if DEVICE.fullmatch(plain):
        plain = f"{NAMELESS}-{plain}"
    if not plain:
        return _with_digest(name, NAMELESS, longest)
    return plain if len(plain) <= longest else _with_digest(name, plain, longest)


def folder_names(names: Iterable[str], *, longest: int = LONGEST, taken: Iterable[str] = ()) -> dict[str, str]:
    """By name, what its file or folder is called beside the others': different also where the case of letters is not.

    A name's own is that of `folder_name` unless another name has it, or it is `taken`: a digest of the name is then
    added. Of names that meet, one that needs no change keeps it, else the first in order.
    """
    used = {name.lower() for name in taken}
    found: dict[str, str] = {}
    wanted = {name: folder_name(name, longest=longest) for name in names}
    for name in sorted(wanted, key=lambda name: (wanted[name] != name, name)):
        called, salt = wanted[name], ""
        while called.lower() in used:  # once, but for names that are made to meet
            called, salt = _with_digest(name + salt, wanted[name], longest), f"{salt}\0"
        used.add(called.lower())
        found[name] = called
    return {name: found[name] for name in wanted}


def _plain(name: str) -> str:
    """The name's ASCII letters, digits, dots and underscores, a dash for whatever lies between them; may be empty."""
    if SAFE.fullmatch(name):
        return name
    apart = unicodedata.normalize("NFKD", name.translate(LETTERS))
    letters = "".join(letter for letter in apart if not unicodedata.combining(letter))
    return re.sub(r"[^A-Za-z0-9._]+", "-", letters).strip("-.")


def _with_digest(name: str, called: str, longest: int) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
    return f"{called[: longest - DIGITS - 1].rstrip('-.')}-{digest}"
