"""What is written to a terminal beside plain lines: a console and a progress bar's column that obey no file's text."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

from rich.console import Console
from rich.progress import Task, TextColumn
from rich.text import Text

from ganseg_dist.printable import printable, printable_lines


class PlainConsole(Console):
    """Writes every string as it is, each in one line: no markup, no emoji codes, control characters made visible."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **how: Any) -> Text:
        """Of whatever string is printed, a table's cells among them."""
        return super().render_str(printable(text), **how)


class PlainColumn(TextColumn):
    """The same for a progress bar."""

    def render(self, task: Task) -> Text:
        """The task's text; Rich's own takes it for markup."""
        return Text(printable(self.text_format.format(task=task)), style=self.style, justify=self.justify)


class PlainFormatter(logging.Formatter):
    """A log's record with the control characters of what it quotes made visible."""

    def format(self, record: logging.LogRecord) -> str:
        """A traceback keeps its lines."""
        return printable_lines(super().format(record))


def make_output_printable() -> None:
    """Of this process: what libraries log and warn of, and streams that cannot write every letter.

    Python writes the records of loggers that nobody configured by its last resort.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(PlainFormatter())
    warnings.formatwarning = _formatted


_of_python = warnings.formatwarning


def _formatted(*about: Any, **more: Any) -> str:
    return printable_lines(_of_python(*about, **more))
