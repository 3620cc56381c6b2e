"""Save figures: as an SVG in the page's colours, or as a PNG; names are shown literally."""

from __future__ import annotations

import hashlib
import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

from ganseg_dist.plots.style import PAGE, for_page, for_paper
from ganseg_dist.printable import printable, printable_lines

COLOUR_NAMES = {getattr(PAGE, name): name for name in ("ink", "muted", "rule", "shade", "accent")} | {
    stand_in: str(index) for index, stand_in in enumerate(PAGE.series, start=1)
}


@for_page
def svg(figure: Figure, description: str) -> str:
    """The figure as an `<svg>` element in the page's colours, with ids unique on the page; letters stay text."""
    stream = io.StringIO()
    with plain_text(figure), mpl.rc_context({"svg.hashsalt": description}):
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    for stand_in, name in COLOUR_NAMES.items():
        text = text.replace(stand_in, f"var(--figure-{name})")
    text = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--sans)", text)
    prefix = "f" + hashlib.blake2b((description + text).encode(), digest_size=4).hexdigest()
    text = re.sub(r"\bid=\"", f'id="{prefix}-', text)
    text = re.sub(r"(url\(#|href=\"#)", rf"\1{prefix}-", text)
    width, height = (round(figure.get_size_inches()[side] * 72) for side in (0, 1))
    head = (
        f'<svg viewBox="0 0 {width} {height}" style="width: {width}px" class="figure" role="img" '
        f'aria-label="{html.escape(printable(description))}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return head + text[text.index(">") + 1 :].strip()


@for_paper
def save_png(figure: Figure, file: Path, **settings: Any) -> None:
    """Save a figure as a PNG, with its text shown literally (`plain_text`)."""
    with plain_text(figure):
        figure.savefig(file, format="png", **settings)


@contextmanager
def plain_text(figure: Figure) -> Iterator[None]:
    """Context for saving a figure: `$` in a name starts no formula, and control characters are visible.

    Characters that the font lacks are drawn as boxes, without warnings.
    """
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        text.set_text(printable_lines(text.get_text()))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if isinstance(axis.get_major_locator(), FixedLocator):  # drawing would set these labels again
            places = axis.get_majorticklocs()
            labels = axis.get_major_formatter().format_ticks(list(places))
            plain = [printable_lines(label) for label in labels]
            if plain != labels:
                axis.set_ticks(places, plain)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        yield
