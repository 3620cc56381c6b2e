"""Output of commands: progress bars on stderr, tables on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.filesize import decimal
from rich.measure import Measurement
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from ganseg_dist.console import PlainColumn, PlainConsole
from ganseg_dist.printable import printable

if TYPE_CHECKING:
    from ganseg_dist.metrics.statistics import Interval

WIDEST = 1000

out = PlainConsole(soft_wrap=True)
err = PlainConsole(stderr=True, soft_wrap=True)


def echo(line: str = "", *, err: bool = False) -> None:
    """Write a line to stdout, or to stderr, with control characters made printable."""
    typer.echo(printable(line), err=err)


def echo_json(value: Any) -> None:
    """Write a value to stdout as ASCII JSON, so that a terminal obeys no control character in it."""
    typer.echo(json.dumps(value, indent=1))


def warn(message: str) -> None:
    """Write a warning to stderr, above a running progress bar."""
    err.print(f"warning: {message}")


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; without a terminal, one line at the end, with the count if there was one."""
    columns = (PlainColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        shown = progress.add_task(title, total=None)

        def advance(done: int, total: int) -> None:
            progress.update(shown, completed=done, total=total)

        yield advance
    if not err.is_terminal:
        task = progress.tasks[0]
        err.print(f"{title}: {task.completed} of {task.total}" if task.total else title)


@contextmanager
def transfer_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar over bytes, with the time left; without a terminal, one line with their number at the beginning.

    Nothing is shown until the bar is advanced, as there may be nothing to transfer.
    """
    columns = (PlainColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:

        def advance(done: int, total: int) -> None:
            if not progress.tasks:
                progress.add_task(title, total=total)
                if not err.is_terminal:
                    err.print(f"{title}: {decimal(total)}")
            progress.update(progress.task_ids[0], completed=done)

        yield advance


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to stdout: first column left, the others right. No cell is ever cut off.

    On a terminal that is too narrow each row becomes a block of lines.
    """
    rich_table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(header):
        rich_table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        rich_table.add_row(*row)
    width = Measurement.get(out, out.options.update(max_width=WIDEST), rich_table).maximum
    if out.is_terminal and width > out.width:
        _as_blocks(title, header, rows)
    else:
        # A console's own width is the limit of what it prints: 80 for a file.
        PlainConsole(width=max(width, len(printable(title)))).print(rich_table)


def interval(value: Interval | None, decimals: int = 3) -> str:
    """A mean with its interval; a dash for a missing value, and for the interval of a single patient."""
    if value is None:
        return "–"
    spread = f"[{value.low:.{decimals}f}, {value.high:.{decimals}f}]" if value.n > 1 else "–"
    return f"{value.mean:.{decimals}f} {spread}"


def _as_blocks(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    longest = max(len(name) for name in header)
    out.print(title, style="italic")
    for row in rows:
        out.print(row[0], style="bold")
        for name, cell in zip(header[1:], row[1:], strict=True):
            out.print(f"  {name:{longest}} {cell}")
