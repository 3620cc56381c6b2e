"""A terminal shows text out of files and obeys none of it."""

import io
import logging
import re
import warnings

from rich.progress import Progress
from rich.table import Table

from ganseg_dist.console import PlainColumn, PlainConsole, PlainFormatter, make_output_printable

HOSTILE = "[bold]a[/x] :bug: \x1b[31mred\x1b[0m\rover"
SHOWN = r"[bold]a[/x] :bug: \x1b[31mred\x1b[0m\rover"
OF_RICH = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours and moves of the cursor that Rich itself writes."""


def terminal(**settings):
    text = io.StringIO()
    return PlainConsole(file=text, force_terminal=True, width=120, legacy_windows=False, **settings), text


def written(text):
    return OF_RICH.sub("", text.getvalue())


def test_plain_console_escapes_lines_and_table_cells():
    console, text = terminal()
    console.print(HOSTILE)
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    assert written(text).count(SHOWN) == 4
    assert "\x1b[31mred" not in text.getvalue()


def test_plain_column_escapes_progress_text():
    console, text = terminal()
    with Progress(PlainColumn("{task.description} {task.fields[scores]}"), console=console) as progress:
        progress.add_task(HOSTILE, scores=HOSTILE)
    assert f"{SHOWN} {SHOWN}" in written(text)
    assert "\x1b[31mred" not in text.getvalue()


def test_make_output_printable_escapes_logs_and_warnings(monkeypatch, capsys):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    make_output_printable()
    record = logging.LogRecord("lib", logging.WARNING, "file.py", 1, "%s: lost", (HOSTILE,), None)
    logging.lastResort.handle(record)
    warned = warnings.formatwarning(UserWarning(HOSTILE), UserWarning, "file.py", 1)
    output = capsys.readouterr().err
    assert output.splitlines()[0] == f"{SHOWN}: lost"
    assert "\x1b" not in output
    assert warned == f"file.py:1: UserWarning: {SHOWN}\n"
    assert PlainFormatter().format(record) == f"{SHOWN}: lost"
