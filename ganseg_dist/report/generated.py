"""Generated images beside real ones: cuts a sheet of examples into tiles, each with its own caption.

On a sheet an example is a row of squares of one size, all under a line of titles: first the image, then the same with
its mask, and last the image from the generator.
"""

from __future__ import annotations

from dataclasses import dataclass

from ganseg_dist.config import RunConfig
from ganseg_dist.display import View
from ganseg_dist.report.pictures import Tile, picture_tile
from ganseg_dist.report.sheets import Sheet

UNCHANGED = View(None)
"""A sheet is already laid out and marked, so its tiles are not laid out again."""

ENLARGED = 2
"""Screen pixels of a sheet per image pixel."""


@dataclass(frozen=True, slots=True)
class GeneratedView:
    """The section of generated images, in the fields that report.html.j2 lays out."""

    stage: str
    step: int
    explanation: str
    caption: str
    """Which side of the patient is on the left; empty where it is not known."""
    rows: tuple[tuple[Tile, ...], ...]
    """One example a row."""


def generated_view(sheet: Sheet, config: RunConfig) -> GeneratedView | None:
    """None where the sheet is not one of this config's slices."""
    cell = config.data.size * ENLARGED
    height, width = sheet.pixels.shape[:2]
    columns, title = width // cell, height % cell
    if width % cell or columns < 2 or height < cell:
        return None
    generated_caption, explained = config.system.example_label, config.system.example_note
    column_of = {"real image": 0, **({"its mask": 1} if config.data.regions else {}), generated_caption: columns - 1}
    rows = tuple(
        tuple(
            picture_tile(
                name,
                f"{name}, example {number + 1} of stage {sheet.stage}"
                + (f"; {sheet.caption}" if sheet.caption else ""),
                sheet.pixels[top : top + cell, column * cell : (column + 1) * cell],
                UNCHANGED,
            )
            for name, column in column_of.items()
        )
        for number, top in enumerate(range(title, height, cell))
    )
    return GeneratedView(sheet.stage, sheet.step, explained, sheet.caption, rows)
