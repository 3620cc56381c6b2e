"""Pictures and their masks in two folders, one case a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ganseg_dist.data.cohort import Case, Source
from ganseg_dist.data.colours import colour_code
from ganseg_dist.data.labels import BINARY, LabelScheme
from ganseg_dist.data.listing import composed, file_called, read_json
from ganseg_dist.data.readers.shared.base import Reader, by_stem
from ganseg_dist.data.readers.shared.pictures import (
    Patients,
    distinct_pictures,
    in_colour,
    picture_case,
    pictures_in,
    without_mask,
)
from ganseg_dist.errors import DataError

LABELS_FILE = "labels.json"

STRUCTURE_KEY = "structure"
"""The key of `labels.json` that names the structure, or the list of structures, to segment."""

EXAMPLE = '{"vertebra": [255, 0, 0], "disc": [0, 255, 0], "structure": "vertebra"}'


@dataclass(frozen=True, slots=True)
class Colours:
    """The meaning of the masks' colours."""

    reads: Literal["not black", "colour code"]
    scheme: LabelScheme
    codes: Mapping[int, int] | None = None
    """0xRRGGBB to our labels."""


class ImageFolderReader(Reader):
    """A mask has its image's name, optionally followed by `_mask`; their file types may differ.

    Without a `labels.json`, in `masks/` or beside it, every pixel that is not black is the structure; in a JPEG mask,
    whose compression blurs, every pixel at least half as bright as its brightest one. With a `labels.json`, its
    colours are the structures; "structure" names those to segment, by default all but background. Pixels of a JPEG
    mask are then assigned to the nearest of those colours.
    """

    name = "image_folder"
    describes = "pictures: images/ and masks/ with a mask named as its image, or with _mask after that"
    order = 60
    names_patients = False

    def recognises(self, root: Path) -> bool:
        """By a folder `images/` that holds pictures; `masks/` is optional."""
        return (root / "images").is_dir() and bool(pictures_in(root / "images"))

    def cases(self, root: Path, scheme: LabelScheme | None = None) -> tuple[Case, ...]:
        """In name order. An image without a mask gives a case without a mask; a mask without an image is ignored."""
        images = distinct_pictures(root / "images")
        masks = _masks(root / "masks")
        colours = _colours(root)
        patients = Patients(root)
        colour = in_colour(images)
        return tuple(_case(image, masks.get(composed(image.stem)), colours, patients, colour) for image in images)


def _case(image: Path, mask: Path | None, colours: Colours, patients: Patients, colour: bool) -> Case:
    return picture_case(
        composed(image.stem),
        image,
        patients.of(image),
        colour=colour,
        mask=None if mask is None else Source((mask,), reads=colours.reads),
        scheme=colours.scheme,
        colours=colours.codes,
    )


def _masks(folder: Path) -> Mapping[str, Path]:
    """Masks by the stem of the image they belong to."""
    if not folder.is_dir():
        return {}
    masks = by_stem(pictures_in(folder), "the mask of", lambda file: without_mask(file.stem))
    if not masks:
        raise DataError(f"{folder}: holds no pictures; add the masks, or remove the folder if there are none")
    return masks


def _colours(root: Path) -> Colours:
    """Raises DataError naming the `labels.json` that cannot be used."""
    files = [file for folder in (root / "masks", root) if (file := file_called(folder, LABELS_FILE)) is not None]
    if not files:
        return Colours("not black", BINARY)
    file, *others = files
    stored = read_json(file, f"write it as in {EXAMPLE}")
    if any(read_json(other) != stored for other in others):
        raise DataError(f"{file}: differs from {others[0]}; keep one of them")
    if not isinstance(stored, dict):
        raise DataError(f"{file}: does not map names to colours; write it as in {EXAMPLE}")
    codes = {name: _code(file, name, colour) for name, colour in stored.items() if name != STRUCTURE_KEY}
    structures = _structures(file, stored.get(STRUCTURE_KEY), tuple(codes))
    name = structures[0] if len(structures) == 1 else f"{structures[0]} and {len(structures) - 1} more"
    scheme = LabelScheme.of_lesion(name, where=str(file))
    return Colours("colour code", scheme, {0: 0, **{code: int(name in structures) for name, code in codes.items()}})


def _code(file: Path, name: str, colour: Any) -> int:
    """0xRRGGBB of [red, green, blue], or of one grey level."""
    levels = [colour] * 3 if isinstance(colour, int) else colour
    in_range = isinstance(levels, list) and all(type(level) is int and 0 <= level <= 255 for level in levels)
    if not in_range or len(levels) != 3:
        raise DataError(f"{file}: {name}: {colour!r} is no colour; write [red, green, blue] of 0 to 255")
    return colour_code(*levels)


def _structures(file: Path, stored: Any, names: Sequence[str]) -> tuple[str, ...]:
    if stored is None:
        structures = tuple(name for name in names if name.lower() != "background")
    else:
        structures = tuple(stored) if isinstance(stored, list) else (stored,)
    unknown = [name for name in structures if name not in names]
    if unknown or not structures:
        raise DataError(
            f"{file}: {STRUCTURE_KEY} names {unknown[0] if unknown else 'nothing'}, "
            f"which has no colour; it may name {', '.join(names) or 'a name with a colour'}"
        )
    return structures


READER = ImageFolderReader()
