"""Validation examples as one picture: what is there, what the system drew, and what it thinks of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from skimage.segmentation import find_boundaries

ENLARGED = 2
"""Screen pixels per image pixel: outlines one screen pixel wide hide little of the image."""
TITLE_HEIGHT = 18
COLOURS = ((0, 220, 120), (255, 190, 0), (255, 80, 80))
"""Region outlines in order: whole tumour, core, enhancing."""
DRAWN_ABOVE = 0.5

Picture = npt.NDArray[np.uint8]


def draw_examples(pictures: Mapping[str, npt.NDArray[Any]]) -> Image.Image:
    """One row an example; columns image, truth, prediction, anomaly and reconstruction, as far as they are given.

    Args:
        pictures: `image` (B, C, H, W) in [-1, 1] and `regions` (B, R, H, W) in {0, 1}; of the rest those the
            system has: `probability` (B, R, H, W) and `anomaly` (B, 1, H, W) in [0, 1], `reconstruction`
            (B, C', H, W) in [-1, 1]. The last channel is shown, FLAIR where the cohort has it.
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
        columns["anomaly"] = [_heat(anomaly[0]) for anomaly in pictures["anomaly"]]
    if "reconstruction" in pictures:
        columns["reconstruction"] = [_grey(image[-1]) for image in pictures["reconstruction"]]
    sheet = np.concatenate([np.concatenate(cells, axis=0) for cells in columns.values()], axis=1)
    return _titled(sheet, list(columns))


def _grey(plane: npt.NDArray[Any]) -> Picture:
    """(H, W) in [-1, 1] to enlarged (h, w, 3)."""
    levels = (np.clip(np.nan_to_num(plane) * 0.5 + 0.5, 0, 1) * 255).round().astype(np.uint8)
    return np.repeat(_enlarge(levels)[..., None], 3, axis=-1)


def _outlined(grey: Picture, regions: npt.NDArray[np.bool_]) -> Picture:
    """The regions' inner boundaries over the image; later regions lie inside earlier ones and are drawn on top."""
    drawn = grey.copy()
    for region, colour in zip(regions, COLOURS, strict=False):
        drawn[find_boundaries(_enlarge(region), mode="inner")] = colour
    return drawn


def _heat(plane: npt.NDArray[Any]) -> Picture:
    """(H, W) in [0, 1] to black, red, yellow, white."""
    ramps = [np.clip(np.nan_to_num(plane) * 3 - start, 0, 1) for start in range(3)]
    return np.stack([_enlarge((ramp * 255).round().astype(np.uint8)) for ramp in ramps], axis=-1)


def _enlarge(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return plane.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)


def _titled(sheet: Picture, titles: list[str]) -> Image.Image:
    height, width, _ = sheet.shape
    titled = Image.new("RGB", (width, height + TITLE_HEIGHT))
    titled.paste(Image.fromarray(sheet), (0, TITLE_HEIGHT))
    pen = ImageDraw.Draw(titled)
    for index, title in enumerate(titles):
        pen.text((index * width // len(titles) + 4, 3), title, fill="white")
    return titled
