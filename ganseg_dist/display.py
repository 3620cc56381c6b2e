"""Left and right in pictures of patients: one convention for all pictures, chosen by GANSEG_DISPLAY.

Prepared planes have anterior at the top and the patient's left on the left. Only pictures of them are mirrored: no
training, score, stored file or written mask depends on the convention.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ganseg_dist.errors import ConfigError

if TYPE_CHECKING:
    from ganseg_dist.plots.images import Pixels

VARIABLE = "GANSEG_DISPLAY"

PNG_TEXT = "Orientation"
"""Keyword under which a PNG carries its caption."""

LETTER_SHARE = 1 / 16
"""Height of the letters L and R, as a share of their picture's."""
SMALLEST_LETTER = 9
"""Pixels below which a letter is illegible."""


class Convention(StrEnum):
    """Which side of the patient is drawn on the left."""

    RADIOLOGICAL = "radiological"
    """The right: the patient is seen from the feet."""
    NEUROLOGICAL = "neurological"
    """The left: the patient is seen from the head."""


def display_convention() -> Convention:
    """The convention that GANSEG_DISPLAY names; radiological where it is not set.

    Raises ConfigError for any other value.
    """
    value = os.environ.get(VARIABLE) or Convention.RADIOLOGICAL
    try:
        return Convention(value)
    except ValueError:
        raise ConfigError(
            f"{VARIABLE}: {value!r} is not a display convention; set it to {' or '.join(Convention)}"
        ) from None


@dataclass(frozen=True, slots=True)
class View:
    """How the planes of one image, its masks and its maps are shown."""

    convention: Convention | None
    """None if the patient's left is not known: planes are then shown as stored, without letters."""

    @classmethod
    def of(cls, convention: Convention, *, sides_known: bool) -> View:
        """The view in this convention; without one if the image's left and right are not known."""
        return cls(convention if sides_known else None)

    @property
    def letters(self) -> tuple[str, str] | None:
        """The patient's side that is drawn on the left, and the one on the right."""
        if self.convention is None:
            return None
        return ("R", "L") if self.convention is Convention.RADIOLOGICAL else ("L", "R")

    @property
    def caption(self) -> str:
        """The convention as text; empty where the sides are not known."""
        if self.convention is None:
            return ""
        side = "right" if self.convention is Convention.RADIOLOGICAL else "left"
        return f"{self.convention}: the patient's {side} is on the left"

    def describe(self, text: str) -> str:
        """A picture's description, followed by the convention."""
        return f"{text}; {self.caption}" if self.caption else text

    def lay_out(self, planes: npt.NDArray[Any], *, columns: int = -1) -> npt.NDArray[Any]:
        """Planes whose columns (an axis; of (H, W, 3) it is 1) run from the patient's left to right, as drawn."""
        return np.flip(planes, columns) if self.convention is Convention.RADIOLOGICAL else planes

    def mark(self, pixels: Pixels) -> Pixels:
        """L and R in the upper corners of laid-out pixels (H, W, 3)."""
        if self.letters is None:
            return pixels
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        pen = ImageDraw.Draw(picture)
        font = ImageFont.load_default(max(SMALLEST_LETTER, pixels.shape[0] * LETTER_SHARE))
        for letter, x, anchor in zip(self.letters, (2, picture.width - 3), ("lt", "rt"), strict=True):
            pen.text((x, 2), letter, fill="white", font=font, anchor=anchor, stroke_width=1, stroke_fill="black")
        return np.asarray(picture)


AS_STORED = View(None)


def shared_caption(views: Sequence[View]) -> str:
    """One caption for pictures shown together, some of which may have unknown sides."""
    captions = [view.caption for view in views if view.caption]
    if not captions:
        return ""
    return captions[0] if len(captions) == len(views) else f"{captions[0]}, where L and R are marked"
