"""A console, a progress column and a log formatter that never interpret files' text as markup or control codes."""

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
    """Writes every string as it is, in one line: no markup, no emoji codes, visible control characters."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **options: Any) -> Text:
        """Called by Rich for every printed string, including a table's cells."""
        return super().render_str(printable(text), **options)


class PlainColumn(TextColumn):
    """A progress bar's text column without markup or control characters."""

    def render(self, task: Task) -> Text:
        """The task's text, which Rich's column would parse as markup."""
        return Text(printable(self.text_format.format(task=task)), style=self.style, justify=self.justify)


class PlainFormatter(logging.Formatter):
    """Formats log records with visible control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text; a traceback keeps its lines."""
        return printable_lines(super().format(record))


def make_output_printable() -> None:
    """Make libraries' log records and warnings printable in this process, and its streams accept every character.

    Python's last-resort handler writes the records of loggers without configuration.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(PlainFormatter())
    warnings.formatwarning = _format_warning


_python_format = warnings.formatwarning


def _format_warning(*args: Any, **kwargs: Any) -> str:
    return printable_lines(_python_format(*args, **kwargs))
