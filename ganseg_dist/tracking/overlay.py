"""Draws validation examples as one picture: image, truth, prediction, anomaly map and reconstruction."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw
from PIL.PngImagePlugin import PngInfo
from skimage.segmentation import find_boundaries

from ganseg_dist.data.nesting import regions_at
from ganseg_dist.display import PNG_TEXT, Convention, View, shared_caption
from ganseg_dist.plots.images import REGION_COLOURS, Pixels, grey, heat

ENLARGED = 2
"""Screen pixels per image pixel: outlines one screen pixel wide hide little of the image."""
TITLE_HEIGHT = 18
CAPTION_HEIGHT = 13
"""Height of the line under the titles that names the convention. Both together are lower than the smallest cell, which
is how reports find the cells."""
COLOURS = tuple(ImageColor.getrgb(colour) for colour in REGION_COLOURS.values())
"""Region outlines in order: whole tumour, core, enhancing."""
PROBABILITY_THRESHOLD = 0.5


def examples_png(
    pictures: Mapping[str, npt.NDArray[Any]], sides_known: npt.NDArray[np.bool_], convention: Convention
) -> bytes:
    """The picture of `draw_examples` as a PNG that carries its caption."""
    text, stream = PngInfo(), io.BytesIO()
    text.add_text(PNG_TEXT, shared_caption(_views(sides_known, convention)))
    draw_examples(pictures, sides_known, convention).save(stream, "PNG", pnginfo=text)
    return stream.getvalue()


def draw_examples(
    pictures: Mapping[str, npt.NDArray[Any]], sides_known: npt.NDArray[np.bool_], convention: Convention
) -> Image.Image:
    """One row an example; columns image, truth, prediction, anomaly and reconstruction, as far as they are given.

    A cell of a patient whose sides are known has L and R in its corners.

    Args:
        pictures: `image` (B, C, H, W) in [-1, 1] and `regions` (B, R, H, W) in {0, 1}; of the rest those the
            system has: `probability` (B, R, H, W) and `anomaly` (B, 1, H, W) in [0, 1], `reconstruction`
            (B, C', H, W) and `synthetic` (B, C, H, W) in [-1, 1]. The last channel is shown, FLAIR
            where the cohort has it.
        sides_known: (B,) whether the example's columns run from the patient's left to right.
    """
    views = _views(sides_known, convention)
    pictures = {
        name: np.stack([view.lay_out(planes) for view, planes in zip(views, parts, strict=True)])
        for name, parts in pictures.items()
    }
    plain = [_grey(image[-1]) for image in pictures["image"]]
    columns = {
        "image": plain,
        "truth": [_outlined(*pair) for pair in zip(plain, pictures["regions"] > 0, strict=True)],
    }
    if "probability" in pictures:
        predicted = [_region_masks(probability) for probability in pictures["probability"]]
        columns["prediction"] = [_outlined(*pair) for pair in zip(plain, predicted, strict=True)]
    if "anomaly" in pictures:
        columns["anomaly"] = [_enlarge(heat(np.nan_to_num(anomaly[0]), 0, 1)) for anomaly in pictures["anomaly"]]
    if "reconstruction" in pictures:
        columns["reconstruction"] = [_grey(image[-1]) for image in pictures["reconstruction"]]
    columns = {
        name: [view.mark(cell) for view, cell in zip(views, cells, strict=True)] for name, cells in columns.items()
    }
    if "synthetic" in pictures:
        columns["synthetic"] = [_grey(image[-1]) for image in pictures["synthetic"]]
    sheet = np.concatenate([np.concatenate(cells, axis=0) for cells in columns.values()], axis=1)
    return _titled(sheet, list(columns), views)


def _views(sides_known: npt.NDArray[np.bool_], convention: Convention) -> list[View]:
    return [View.of(convention, sides_known=bool(known)) for known in sides_known]


def _grey(plane: npt.NDArray[Any]) -> Pixels:
    """(H, W) in [-1, 1] to enlarged (h, w, 3)."""
    return np.repeat(_enlarge(grey(np.nan_to_num(plane)))[..., None], 3, axis=-1)


def _region_masks(probability: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Masks (R, H, W) at PROBABILITY_THRESHOLD; the regions are given outermost first."""
    count = len(probability)
    return regions_at(probability, [PROBABILITY_THRESHOLD] * count, [range(row, count) for row in range(count)])


def _outlined(plain: Pixels, regions: npt.NDArray[np.bool_]) -> Pixels:
    """The regions' inner boundaries over the image; later regions lie inside earlier ones and are drawn on top."""
    outlined = plain.copy()
    for region, colour in zip(regions, COLOURS, strict=False):
        outlined[find_boundaries(_enlarge(region), mode="inner")] = colour
    return outlined


def _enlarge(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return plane.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)


def _titled(sheet: Pixels, titles: list[str], views: Sequence[View]) -> Image.Image:
    """The sheet under its titles and, where sides are known, under the convention: spelled out where it fits."""
    height, width, _ = sheet.shape
    caption = shared_caption(views)
    above = TITLE_HEIGHT + (CAPTION_HEIGHT if caption else 0)
    titled = Image.new("RGB", (width, height + above))
    titled.paste(Image.fromarray(sheet), (0, above))
    pen = ImageDraw.Draw(titled)
    for index, title in enumerate(titles):
        pen.text((index * width // len(titles) + 4, 3), title, fill="white")
    pen.text(
        (4, TITLE_HEIGHT), caption if pen.textlength(caption) <= width - 8 else caption.split(":")[0], fill="white"
    )
    return titled
