"""Pages of docs/guide: commands, shown output and listed files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide"
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = "## Where the files lie"
NUMBER = r"[-+]?\d[\d.,:]*(?:e[-+]?\d+)?%?"


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    kind: str
    """`sh` is run, `text` is the output of the `sh` before it, `console` is for another machine."""
    text: str
    commands: int
    """Blocks of `sh` up to here, this one included."""

    @property
    def lines(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.strip()]


@dataclass(frozen=True)
class Page:
    """One page."""

    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def blocks(self) -> list[Block]:
        found: list[Block] = []
        for kind, text in FENCED.findall(self.text):
            found.append(Block(kind, text, sum(block.kind == "sh" for block in found) + (kind == "sh")))
        return found

    @property
    def prose(self) -> str:
        """The text without fenced blocks."""
        return FENCED.sub("", self.text)

    @property
    def files(self) -> list[str]:
        """Paths, in the first column of the table of files, that are there when the page is done."""
        _, found, section = self.text.partition(FILES)
        rows = section.partition("\n## ")[0] if found else ""
        return re.findall(r"^\| `([^`]+)`", rows, re.MULTILINE)


def pages() -> list[Page]:
    """All pages, with the index."""
    return [Page(path) for path in sorted(GUIDE.glob("*.md"))]


def pattern(line: str) -> re.Pattern[str]:
    """Pattern of a shown line: numbers match any number, `...` any text, blanks any blanks; exit codes are exact."""
    if re.fullmatch(r"code \d+", line.strip()):
        return re.compile(rf"^{line.strip()}$", re.MULTILINE)
    parts = re.split(rf"(\.\.\.|{NUMBER}|\s+)", line.strip())
    return re.compile("".join(map(_pattern_of, parts)))


def _pattern_of(part: str) -> str:
    if part == "...":
        return ".*"
    if part.isspace():
        return r"\s+"
    return NUMBER if re.fullmatch(NUMBER, part) else re.escape(part)


def commands(text: str) -> Iterator[list[str]]:
    """Tokens of each command of a block, comments and variables' values left out."""
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        tokens = shlex.split(line, comments=True)
        for command in split_at(tokens, ("&&", "||", "|", ";", "&")):
            while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
                command = command[1:]
            if command:
                yield command


def split_at(tokens: Sequence[str], separators: Sequence[str]) -> Iterator[list[str]]:
    """Runs of tokens between the separators."""
    run: list[str] = []
    for word in tokens:
        if word in separators:
            yield run
            run = []
        else:
            run.append(word)
    yield run
