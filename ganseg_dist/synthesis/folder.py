"""Synthetic images on disk: a cohort that readers mark as synthetic, with the evidence beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ganseg_dist.atomic import whole_folder, write_csv, write_json
from ganseg_dist.data.batch import BACKGROUND
from ganseg_dist.data.cohort import COLOURS, SYNTHETIC_TAG
from ganseg_dist.data.labels import LESION_IN_PICTURES, SCHEMES, LabelScheme
from ganseg_dist.errors import DataError
from ganseg_dist.names import folder_names
from ganseg_dist.plots import Figure
from ganseg_dist.plots.images import Pixels, rgb
from ganseg_dist.plots.save import save_png
from ganseg_dist.synthesis.generate import Generated, GeneratedSlices
from ganseg_dist.synthesis.memorisation import Audit
from ganseg_dist.synthesis.results import FromClassesQuality, FromMasksQuality

SITE = "synthetic"
PNG_TAGS = {"Description": "Synthetic image or mask, made by a generator; not a patient"}
"""Text in every PNG."""

PREFIX = "synthetic_"
"""Of the names of images and masks."""
SCHEME_FILE = "label_scheme.json"
BESIDE = frozenset({SYNTHETIC_TAG, SCHEME_FILE, "manifest.csv", "audit.json", "quality.json", "neighbours.png"})

MARGIN = 1 / 8
"""Share of an image's side that is added around it as background. A prepared slice ends where the foreground does, and
rotated and scaled it may fill its frame: readers find the background at the frame's border."""

Row = dict[str, str]
"""A line of manifest.csv."""


@dataclass(frozen=True, slots=True)
class SynthesisEvidence:
    """Files beside synthetic images."""

    audit: Audit
    quality: FromMasksQuality | FromClassesQuality
    neighbours: Figure
    facts: Mapping[str, Any]
    """Of the run and the request."""


def check_synthetic_folder(folder: Path) -> None:
    """Raises DataError where writing there would replace anything but an earlier synthesis."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"{folder}: is a file; give a new folder")
    if any(folder.iterdir()) and not (folder / SYNTHETIC_TAG).is_file():
        raise DataError(f"{folder}: exists and is no earlier synthesis; give a new folder")
    for file in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        place = file.relative_to(folder)
        if str(place) not in BESIDE and not (file.name.startswith(PREFIX) and file.suffix == ".png"):
            raise DataError(f"{folder}: holds {place}, which no synthesis wrote; move it or give a new folder")


def write_pairs(
    folder: Path,
    generated: GeneratedSlices,
    modalities: Sequence[str],
    regions: Sequence[str],
    scheme: LabelScheme,
    evidence: SynthesisEvidence,
    *,
    on_background: bool,
) -> None:
    """Write pairs in images/ and masks/, a manifest.csv that `--data` takes, and the evidence.

    Patients are numbered: generated images of one patient's masks share a number, so that a split keeps them together.

    Args:
        scheme: the model's; written beside manifest.csv where that cannot name it.
        on_background: whether images show a foreground in front of a background, which gets a margin all around; a
            picture in colour, foreground all over, gets none.

    Raises DataError where the folder holds anything but an earlier synthesis, and GansegError when a file cannot be
    written; the folder then stays as it was.
    """
    numbers = {patient: number for number, patient in enumerate(sorted(set(generated.patients)), start=1)}
    margin = round(MARGIN * generated.image.shape[-1]) if on_background else 0
    frame = ((0, 0), (0, 0), (margin, margin), (margin, margin))
    images = np.pad(generated.image, frame, constant_values=BACKGROUND)
    masks = np.pad(generated.regions, frame)
    one = len(regions) == 1
    stored = LabelScheme.of_lesion(scheme.title(regions[0])) if one else scheme  # black and white, or label values
    named = next((name for name, known in SCHEMES.items() if known == stored), SCHEME_FILE)

    def write_images(root: Path) -> list[Row]:
        rows = []
        (root / "masks").mkdir()
        if named == SCHEME_FILE:
            write_json(root / SCHEME_FILE, stored.to_json())
        for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
            name = _name(index)
            mask_file = f"masks/{name}.png"
            values = stored.label_map(mask > 0, regions)
            _save(root / mask_file, np.asarray(values * LESION_IN_PICTURES if one else values, np.uint8))
            rows.append(
                {"case": name, "patient": f"synthetic_of_{numbers[generated.patients[index]]:04d}", "site": SITE}
                | _write_image(root, f"images/{name}", image, modalities)
                | {"mask": mask_file, "labels": named}
            )
        return rows

    _write(folder, write_images, evidence)


def write_classes(folder: Path, generated: Generated, modalities: Sequence[str], evidence: SynthesisEvidence) -> None:
    """Write images in a folder a class, a manifest.csv that `--data` takes, and the evidence.

    Every image is its own patient. Raises as `write_pairs` does.
    """
    folders = folder_names(generated.classes, taken=BESIDE)  # manifest.csv has the classes' names unchanged

    def write_images(root: Path) -> list[Row]:
        return [
            {"case": _name(index), "patient": _name(index), "site": SITE, "class": class_name}
            | _write_image(root, f"{folders[class_name]}/{_name(index)}", image, modalities)
            for index, (image, class_name) in enumerate(zip(generated.image, generated.classes, strict=True))
        ]

    _write(folder, write_images, evidence)


def _write(folder: Path, write_images: Callable[[Path], list[Row]], evidence: SynthesisEvidence) -> None:
    check_synthetic_folder(folder)
    with whole_folder(folder) as unfinished:
        rows = write_images(unfinished)
        write_csv(unfinished / "manifest.csv", rows)
        write_json(unfinished / "audit.json", evidence.audit.model_dump(by_alias=True))
        write_json(unfinished / "quality.json", evidence.quality.model_dump())
        write_json(unfinished / SYNTHETIC_TAG, {"synthetic": True, "n": len(rows), **evidence.facts})
        save_png(evidence.neighbours, unfinished / "neighbours.png", metadata=PNG_TAGS)


def _name(index: int) -> str:
    return f"{PREFIX}{index + 1:05d}"


def _write_image(root: Path, stem: str, image: npt.NDArray[np.float32], modalities: Sequence[str]) -> Row:
    """One picture in colour, or a grey one for each modality; returns the manifest's cells."""
    (root / stem).parent.mkdir(exist_ok=True)
    if set(modalities) == set(COLOURS):
        _save(root / f"{stem}.png", rgb(image[[modalities.index(colour) for colour in COLOURS]]))
        return {colour: f"{stem}.png#{channel}" for channel, colour in enumerate(COLOURS)}
    cells, endings = {}, folder_names(modalities)
    for modality, plane in zip(modalities, image, strict=True):
        cells[modality] = f"{stem}.png" if len(modalities) == 1 else f"{stem}_{endings[modality]}.png"
        _save(root / cells[modality], np.asarray(np.rint((plane + 1) * 127.5), np.uint8))
    return cells


def _save(file: Path, pixels: Pixels) -> None:
    text = PngInfo()
    for name, value in PNG_TAGS.items():
        text.add_text(name, value)
    Image.fromarray(pixels).save(file, pnginfo=text)
