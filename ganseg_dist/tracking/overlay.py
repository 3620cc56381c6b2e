"""Validation examples as one picture: what is there, what the system drew, and what it thinks of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw
from skimage.segmentation import find_boundaries

from ganseg_dist.drawing import REGION_COLOURS, Pixels, grey, heat

ENLARGED = 2
"""Screen pixels per image pixel: outlines one screen pixel wide hide little of the image."""
TITLE_HEIGHT = 18
COLOURS = tuple(ImageColor.getrgb(colour) for colour in REGION_COLOURS.values())
"""Region outlines in order: whole tumour, core, enhancing."""
DRAWN_ABOVE = 0.5


def draw_examples(pictures: Mapping[str, npt.NDArray[Any]]) -> Image.Image:
    """One row an example; columns image, truth, prediction, anomaly and reconstruction, as far as they are given.

    Args:
        pictures: `image` (B, C, H, W) in [-1, 1] and `regions` (B, R, H, W) in {0, 1}; of the rest those the
            system has: `probability` (B, R, H, W) and `anomaly` (B, 1, H, W) in [0, 1], `reconstruction`
            (B, C', H, W) and `synthetic` (B, C, H, W) in [-1, 1]. The last channel is shown, FLAIR
            where the cohort has it.
    """
    grey = [_grey(image[-1]) for image in pictures["image"]]
    columns = {
        "image": grey,
        "truth": [_outlined(*pair) for pair in zip(grey, pictures["regions"] > 0, strict=True)],
    }
    if "probability" in pictures:
        predicted = pictures["probability"] > DRAWN_ABOVE
        columns["prediction"] = [_outlined(*pair) for pair in zip(grey, predicted, strict=True)]
    if "anomaly" in pictures:
        columns["anomaly"] = [_enlarge(heat(np.nan_to_num(anomaly[0]), 0, 1)) for anomaly in pictures["anomaly"]]
    if "reconstruction" in pictures:
        columns["reconstruction"] = [_grey(image[-1]) for image in pictures["reconstruction"]]
    if "synthetic" in pictures:
        columns["synthetic"] = [_grey(image[-1]) for image in pictures["synthetic"]]
    sheet = np.concatenate([np.concatenate(cells, axis=0) for cells in columns.values()], axis=1)
    return _titled(sheet, list(columns))


def _grey(plane: npt.NDArray[Any]) -> Pixels:
    """(H, W) in [-1, 1] to enlarged (h, w, 3)."""
    return np.repeat(_enlarge(grey(np.nan_to_num(plane)))[..., None], 3, axis=-1)


def _outlined(grey: Pixels, regions: npt.NDArray[np.bool_]) -> Pixels:
    """The regions' inner boundaries over the image; later regions lie inside earlier ones and are drawn on top."""
    drawn = grey.copy()
    for region, colour in zip(regions, COLOURS, strict=False):
        drawn[find_boundaries(_enlarge(region), mode="inner")] = colour
    return drawn


def _enlarge(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return plane.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)


def _titled(sheet: Pixels, titles: list[str]) -> Image.Image:
    height, width, _ = sheet.shape
    titled = Image.new("RGB", (width, height + TITLE_HEIGHT))
    titled.paste(Image.fromarray(sheet), (0, TITLE_HEIGHT))
    pen = ImageDraw.Draw(titled)
    for index, title in enumerate(titles):
        pen.text((index * width // len(titles) + 4, 3), title, fill="white")
    return titled
