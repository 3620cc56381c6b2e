"""The public `kaggle_3m` set of lower-grade gliomas: one folder per patient, an RGB picture and a mask per slice."""

from __future__ import annotations

import filecmp
import re
from pathlib import Path

from ganseg_dist.data.cohort import Case, Source
from ganseg_dist.data.labels import LabelScheme
from ganseg_dist.data.listing import data_files, data_folders
from ganseg_dist.data.readers.shared.base import Reader, by_stem, in_numeric_order
from ganseg_dist.errors import DataError

FOLDER = re.compile(r"(?P<patient>TCGA_(?P<site>[A-Z0-9]{2})_[A-Z0-9]+)_\d{8}")

CHANNELS = {"t1": 0, "flair": 1, "t1ce": 2}
"""Red is before contrast, blue after (Buda, Saha & Mazurowski 2019)."""

MASK = "_mask"

DEEPEST = 3
"""Most folders between the root and a patient's: the download nests `kaggle_3m` once or twice."""


class KaggleLggReader(Reader):
    """Sites are the tissue source sites in the TCGA ids."""

    name = "kaggle_lgg"
    describes = "kaggle_3m: TCGA_<site>_<patient>_<date>/<case>_<slice>.tif with <case>_<slice>_mask.tif beside it"

    def recognises(self, root: Path) -> bool:
        """Whether a patient's folder, at most `DEEPEST` levels down, holds slices."""
        return root.is_dir() and any(_pictures(folder) for folder in _folders(root))

    def cases(self, root: Path, scheme: LabelScheme | None = None) -> tuple[Case, ...]:
        """A slice without a mask stays listed, so that the missing file is reported.

        The download holds the whole set twice: raises DataError naming two folders of one patient that differ.
        """
        folders: dict[str, Path] = {}
        for folder in _folders(root):
            first = folders.setdefault(folder.name, folder)
            if first != folder and not _is_copy(first, folder):
                raise DataError(f"{first}: holds other pictures than {folder}; keep one of the two")
        return tuple(case for name in sorted(folders) if (case := _case(folders[name])) is not None)


def _folders(root: Path) -> list[Path]:
    """`root` where it is a patient's folder, else the patients' folders below it."""
    if FOLDER.fullmatch(root.resolve().name):
        return [root.resolve()]
    return [folder for folder in data_folders(root, DEEPEST) if FOLDER.fullmatch(folder.name)]


def _pictures(folder: Path) -> list[Path]:
    prefix = f"{folder.name}_".lower()
    return [
        file
        for file in data_files(folder)
        if file.suffix.lower() in (".tif", ".tiff") and file.name.lower().startswith(prefix)
    ]


def _is_copy(folder: Path, other: Path) -> bool:
    """Whether two folders hold the same pictures.

    Files of equal size and modification time are taken for copies without reading them, as every command checks the
    whole set.
    """
    names = [file.name for file in _pictures(folder)]
    same, _, _ = filecmp.cmpfiles(folder, other, names)
    return names == [file.name for file in _pictures(other)] == same


def _case(folder: Path) -> Case | None:
    match = FOLDER.fullmatch(folder.name)
    pictures = by_stem(_pictures(folder), "the picture", lambda file: file.stem.lower())
    slices = in_numeric_order(file for stem, file in pictures.items() if not stem.endswith(MASK))
    if match is None or not slices:
        return None
    masks = tuple(
        pictures.get(f"{file.stem}{MASK}".lower(), file.with_name(f"{file.stem}{MASK}.tif")) for file in slices
    )
    return Case(
        id=folder.name,
        patient=match["patient"],
        site=match["site"],
        images={modality: Source(slices, channel) for modality, channel in CHANNELS.items()},
        mask=Source(masks) if any(f"{file.stem}{MASK}".lower() in pictures for file in slices) else None,
    )


READER = KaggleLggReader()
