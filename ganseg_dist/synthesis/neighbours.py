"""Synthetic images above the training images nearest to them, as one labelled figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL.ImageColor import getrgb

from ganseg_dist.data.cohort import COLOURS
from ganseg_dist.display import AS_STORED, View
from ganseg_dist.metrics.synthesis import Images
from ganseg_dist.plots import Figure
from ganseg_dist.plots.images import REGION_COLOURS, GridRow, Mask, Pixels, Plane, grey, image_grid, rgb
from ganseg_dist.sampling import evenly_spaced
from ganseg_dist.synthesis.generate import Generated, GeneratedSlices
from ganseg_dist.synthesis.memorisation import Audit

COLUMNS = 10
SYNTHETIC = "synthetic"
"""The row of generated images, which are no patient's and have no L and R."""
SHOWN = ("flair", "t2", "t1ce", "t1")
"""Where a lesion shows best, best first. Several modalities as red, green and blue would mislead."""
NOTE = (
    "Nearest by pixels. Percentile: where the distance lies among those between training images of different patients."
)
OF_A_PHANTOM = " The training images are of a phantom: nothing here is a patient."
MIRRORED = "\nWithout L and R: training mirrors its images, and mirrored copies are among these."
MEMORISED = "\nmemorised"


def neighbour_figure(
    generated: GeneratedSlices | Generated,
    audit: Audit,
    training: Images,
    modalities: Sequence[str],
    regions: Sequence[str] = (),
    *,
    phantom: bool = False,
    view: View = AS_STORED,
    flipped: bool = False,
) -> Figure:
    """Generated images above their nearest training images, a column each, as many of each class.

    For images from masks, the mask and its real image are shown too.

    Args:
        phantom: whether the training images are a phantom's.
        view: of all images, which have known sides together or not at all.
        flipped: whether mirrored copies are among the training images; no side is then marked.
    """
    made_from = "noise"
    chosen = _chosen(generated, audit)
    nearest = training[[audit.images[index].pixels.index for index in chosen]]
    named, shown = _view(modalities, nearest)
    titles = [_column_title(generated, audit, index) for index in chosen]
    rows = {
        SYNTHETIC: [shown(generated.image[index]) for index in chosen],
        "nearest\ntraining image": [shown(image) for image in nearest],
    }
    if isinstance(generated, GeneratedSlices):
        made_from = "masks"
        real = f"{'phantom' if phantom else 'real'} image\nof this mask"
        rows = {
            "mask": [_mask(generated.regions[index], regions) for index in chosen],
            SYNTHETIC: rows.pop(SYNTHETIC),
            real: [shown(generated.real[index]) for index in chosen],
            **rows,
        }
    sides = f"\n{view.caption.capitalize()}." if view.caption else MIRRORED if flipped else ""
    return image_grid(
        f"Synthetic images generated from {made_from}, {named}: {len(chosen)} of "
        f"n = {len(audit.images)}, from the nearest to a training image to the farthest",
        titles,
        [
            GridRow(
                name,
                [view.lay_out(pixels, columns=1) for pixels in pictures],
                None if name == SYNTHETIC else view.letters,
            )
            for name, pictures in rows.items()
        ],
        note=NOTE + (OF_A_PHANTOM if phantom else "") + sides,
        warned=[column for column in titles if column.endswith(MEMORISED)],
    )


def _chosen(generated: GeneratedSlices | Generated, audit: Audit) -> list[int]:
    """Of each class some images, evenly from the nearest to a training image to the farthest."""
    classes = (None,) * len(audit.images) if isinstance(generated, GeneratedSlices) else generated.classes
    chosen: list[int] = []
    names = dict.fromkeys(classes)
    for name in names:
        ranked = sorted(
            (index for index, own in enumerate(classes) if own == name),
            key=lambda index: audit.images[index].pixels.percentile,
        )
        chosen += [ranked[place] for place in evenly_spaced(len(ranked), -(-COLUMNS // len(names)))]
    return chosen


def _column_title(generated: GeneratedSlices | Generated, audit: Audit, index: int) -> str:
    image = audit.images[index]
    above = "" if isinstance(generated, GeneratedSlices) else f"{generated.classes[index]}\n"
    return f"{above}percentile {image.pixels.percentile:.1f}" + (MEMORISED if image.memorised else "")


def _view(modalities: Sequence[str], training: Images) -> tuple[str, Callable[[Plane], Pixels]]:
    """Name of the channels that are shown, and how to draw those of (C, H, W): grey on the training images' scale."""
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
