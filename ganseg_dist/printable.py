"""Makes text from files safe for a terminal, a log and a page.

A file's name, a case, a site or a message of another party may hold control codes of terminals (colours, the cursor,
the window's title), characters that reverse a line's direction, or line ends that forge lines.
"""

from __future__ import annotations

import html
import re
import unicodedata

CONTROL_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of control and format characters, lone surrogates, and ends of lines and paragraphs."""

JOINERS = "\u200c\u200d"
"""Format characters that Persian and Indic scripts and emoji are written with."""

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def printable(text: str) -> str:
    r"""The text in one line, with every control and format character visible, as `\x1b`; other Unicode stays."""
    if text.isprintable():
        return text
    return "".join(
        _visible(character) if _is_control(character, before) else character
        for before, character in zip(" " + text, text, strict=False)
    )


def shortened(text: str, longest: int) -> str:
    """The text, or its beginning and `...` where it has more characters: another party may send any length."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def printable_lines(text: str) -> str:
    """`printable` for each line of a text."""
    return "\n".join(map(printable, text.split("\n")))


def printable_markdown(text: str) -> str:
    """The text in one line of Markdown, with HTML escaped."""
    return html.escape(printable(text), quote=False)


def printable_log(text: str) -> str:
    """Another process's log, printable line by line with its tabs kept and its colours removed."""
    plain = COLOUR.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in plain.split("\n"))


def _is_control(character: str, before: str) -> bool:
    if unicodedata.category(character) not in CONTROL_CATEGORIES:
        return False
    return character not in JOINERS or before.isascii()


def _visible(character: str) -> str:
    r"""The character as a Python escape: `\n`, `\x1b`, `\u202e`."""
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
