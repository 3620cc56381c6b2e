"""Synthetic images above the training images nearest to them, as one labelled figure to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL.ImageColor import getrgb

from ganseg_dist.data.cohort import COLOURS
from ganseg_dist.display import View
from ganseg_dist.metrics.synthesis import Images
from ganseg_dist.plots import Figure
from ganseg_dist.plots.images import ImageRow, image_grid
from ganseg_dist.plots.pixels import REGION_COLOURS, Mask, Pixels, Plane, grey, rgb
from ganseg_dist.sampling import evenly_spaced
from ganseg_dist.synthesis.audit import Audit
from ganseg_dist.synthesis.from_classes import Generated
from ganseg_dist.synthesis.from_masks import GeneratedSlices

COLUMNS = 10
SYNTHETIC = "synthetic"
"""The row of what is no patient's and so has no L and R."""
SHOWN = ("flair", "t2", "t1ce", "t1")
"""Where a lesion shows best, best first. Several modalities as red, green and blue would mislead."""
NOTE = (
    "Nearest by pixels. Percentile: where the distance lies among those between training images of different patients."
)
OF_A_PHANTOM = " The training images are of a phantom: nothing here is a patient."
AS_STORED = View(None)
MIRRORED = "\nWithout L and R: training mirrors its images, and mirrored copies are among these."
MEMORISED = "\nmemorised"


def mask_conditioned_figure(
    generated: GeneratedSlices,
    audit: Audit,
    training: Images,
    modalities: Sequence[str],
    regions: Sequence[str],
    *,
    phantom: bool = False,
    view: View = AS_STORED,
    flipped: bool = False,
) -> Figure:
    """Mask, generated image, the mask's real image and the nearest training image, a column a generated image.

    Args:
        phantom: whether the training images are one's.
        view: of all the images: they have known sides together or not at all.
        flipped: whether mirrored copies are among the training images; of such no side is marked.
    """
    chosen = _spread(audit, range(len(audit.images)), COLUMNS)
    nearest = training[[audit.images[index].pixels.index for index in chosen]]
    named, shown = _view(modalities, nearest)
    rows = {
        "mask": [_mask(generated.regions[index], regions) for index in chosen],
        SYNTHETIC: [shown(generated.image[index]) for index in chosen],
        f"{'phantom' if phantom else 'real'} image\nof this mask": [shown(generated.real[index]) for index in chosen],
        "nearest\ntraining image": [shown(image) for image in nearest],
    }
    title = f"Synthetic images generated from masks, {named}: {_share_text(chosen, audit)}"
    return _figure(
        rows, [_column_title(audit, index) for index in chosen], title, phantom=phantom, view=view, flipped=flipped
    )


def class_conditioned_figure(
    generated: Generated,
    audit: Audit,
    training: Images,
    modalities: Sequence[str],
    *,
    phantom: bool = False,
    view: View = AS_STORED,
    flipped: bool = False,
) -> Figure:
    """Generated images and their nearest training images, as many of each class.

    Args:
        phantom: whether the training images are one's.
        view: of all the images: they have known sides together or not at all.
        flipped: whether mirrored copies are among the training images; of such no side is marked.
    """
    names = list(dict.fromkeys(generated.classes))
    chosen = [
        index
        for name in names
        for index in _spread(
            audit, [index for index, own in enumerate(generated.classes) if own == name], -(-COLUMNS // len(names))
        )
    ]
    nearest = training[[audit.images[index].pixels.index for index in chosen]]
    named, shown = _view(modalities, nearest)
    rows = {
        SYNTHETIC: [shown(generated.image[index]) for index in chosen],
        "nearest\ntraining image": [shown(image) for image in nearest],
    }
    titles = [f"{generated.classes[index]}\n{_column_title(audit, index)}" for index in chosen]
    title = f"Synthetic images generated from noise, {named}: {_share_text(chosen, audit)}"
    return _figure(rows, titles, title, phantom=phantom, view=view, flipped=flipped)


def _spread(audit: Audit, indices: Sequence[int], count: int) -> list[int]:
    """Some of these images, evenly from the nearest to a training image to the farthest."""
    ranked = sorted(indices, key=lambda index: audit.images[index].pixels.percentile)
    return [ranked[place] for place in evenly_spaced(len(ranked), count)]


def _share_text(chosen: Sequence[int], audit: Audit) -> str:
    return f"{len(chosen)} of n = {len(audit.images)}, from the nearest to a training image to the farthest"


def _column_title(audit: Audit, index: int) -> str:
    image = audit.images[index]
    return f"percentile {image.pixels.percentile:.1f}" + (MEMORISED if image.memorised else "")


def _view(modalities: Sequence[str], training: Images) -> tuple[str, Callable[[Plane], Pixels]]:
    """What of an image (C, H, W) is shown, and how: grey has one scale, that of the training images."""
    if set(COLOURS) <= set(modalities):
        order = [modalities.index(colour) for colour in COLOURS]
        return "in colour", lambda image: rgb(image[order])
    name = next((name for name in SHOWN if name in modalities), modalities[0])
    channel = modalities.index(name)
    named = f"{name} shown of {', '.join(modalities)}" if len(modalities) > 1 else name
    return named, lambda image: grey(image[channel], like=training[:, channel])


def _mask(mask: Mask, regions: Sequence[str]) -> Pixels:
    """(R, H, W) as pixels (H, W, 3): one region white, nested ones in their colours, the innermost on top."""
    pixels = np.zeros((*mask.shape[1:], 3), np.uint8)
    for region, inside in zip(regions, mask, strict=True):
        pixels[inside > 0] = getrgb(REGION_COLOURS[region]) if len(regions) > 1 else 255
    return pixels


def _figure(
    rows: Mapping[str, Sequence[Pixels]],
    titles: Sequence[str],
    title: str,
    *,
    phantom: bool,
    view: View,
    flipped: bool,
) -> Figure:
    sides = f"\n{view.caption.capitalize()}." if view.caption else MIRRORED if flipped else ""
    return image_grid(
        title,
        titles,
        [
            ImageRow(
                name,
                [view.lay_out(pixels, columns=1) for pixels in pictures],
                None if name == SYNTHETIC else view.letters,
            )
            for name, pictures in rows.items()
        ],
        note=NOTE + (OF_A_PHANTOM if phantom else "") + sides,
        warned=[column for column in titles if column.endswith(MEMORISED)],
    )
