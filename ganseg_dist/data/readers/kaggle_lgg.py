"""The public `kaggle_3m` set of lower-grade gliomas: a folder a patient, an RGB picture and a mask a slice."""

from __future__ import annotations

import re
from pathlib import Path

from ganseg_dist.data.cohort import Case, Source
from ganseg_dist.data.readers.base import in_numeric_order

FOLDER = re.compile(r"(?P<patient>TCGA_(?P<site>[A-Z0-9]{2})_[A-Z0-9]+)_\d{8}")

CHANNELS = {"t1": 0, "flair": 1, "t1ce": 2}
"""Red is before contrast, blue after (Buda, Saha & Mazurowski 2019)."""


class KaggleLggReader:
    """Sites are the tissue source sites in the TCGA ids, so hospitals are known."""

    name = "kaggle_lgg"
    describes = "kaggle_3m: TCGA_<site>_<patient>_<date>/<case>_<slice>.tif with <case>_<slice>_mask.tif beside it"

    def recognises(self, root: Path) -> bool:
        """Whether some patient folder, here or one level down, holds slices."""
        return any(any(folder.glob(f"{folder.name}_*.tif")) for folder in _folders(root))

    def cases(self, root: Path) -> tuple[Case, ...]:
        """A slice without its mask stays listed, so that the missing file is reported."""
        return tuple(case for folder in _folders(root) if (case := _case(folder)) is not None)


def _folders(root: Path) -> list[Path]:
    """`root` where it is a patient's, else those in it, or in the `kaggle_3m` that the download nests once or twice."""
    if FOLDER.fullmatch(root.resolve().name):
        return [root.resolve()]
    folders = (folder for depth in ("*", "*/*", "*/*/*") for folder in root.glob(f"{depth}/"))
    named: dict[str, Path] = {}
    for folder in folders:
        if FOLDER.fullmatch(folder.name):
            named.setdefault(folder.name, folder)  # the download holds a second copy of the whole set
    return [named[name] for name in sorted(named)]


def _case(folder: Path) -> Case | None:
    match = FOLDER.fullmatch(folder.name)
    slices = in_numeric_order(f for f in folder.glob(f"{folder.name}_*.tif") if not f.stem.endswith("_mask"))
    if match is None or not slices:
        return None
    masks = tuple(file.with_name(f"{file.stem}_mask.tif") for file in slices)
    return Case(
        id=folder.name,
        patient=match["patient"],
        site=match["site"],
        images={modality: Source(slices, channel) for modality, channel in CHANNELS.items()},
        mask=Source(masks) if any(mask.exists() for mask in masks) else None,
    )
