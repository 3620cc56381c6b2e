"""Layout readers: one file a layout, tried in turn."""

from __future__ import annotations

from pathlib import Path

from ganseg_dist.data.cohort import Cohort
from ganseg_dist.data.readers.base import Reader
from ganseg_dist.data.readers.brats import BratsReader
from ganseg_dist.data.readers.class_folder import ClassFolderReader
from ganseg_dist.data.readers.decathlon import DecathlonReader
from ganseg_dist.data.readers.image_folder import ImageFolderReader
from ganseg_dist.data.readers.kaggle_lgg import KaggleLggReader
from ganseg_dist.data.readers.manifest import ManifestReader
from ganseg_dist.errors import ConfigError, DataError

READERS: tuple[Reader, ...] = (
    ManifestReader(),
    BratsReader(),
    DecathlonReader(),
    KaggleLggReader(),
    ImageFolderReader(),
    ClassFolderReader(),
)
"""In the order they are tried: a manifest is written on purpose, so it outranks what lies around it, and what
looks like classes may be much else."""


def read_cohort(root: Path, layout: str | None = None) -> Cohort:
    """Every case under `root`, still on disk. No layout named: the first that recognises it.

    Raises DataError where nothing can be read there, saying what would be.
    """
    reader = _named(layout) if layout is not None else None
    if not root.exists():
        raise DataError(f"{root}: no such file or folder; give the folder that holds the cohort, or a CSV manifest")
    if root.is_dir() and not any(root.iterdir()):
        raise DataError(f"{root}: is an empty folder; give the folder that holds the cohort, or a CSV manifest")
    if reader is None:
        reader = recognised(root)
    if reader is None:
        raise DataError(
            f"{root}: no known layout recognised ({_names()}); list the files in a CSV manifest "
            "with the columns case,patient,site,<one per modality>,mask and give that instead"
        )
    cases = reader.cases(root)
    if not cases:
        raise DataError(f"{root}: holds no cases in layout {reader.name} ({reader.describes}); check the path")
    return Cohort(root, reader.name, cases)


def recognised(root: Path) -> Reader | None:
    """The first layout that these files look like; none where they look like none."""
    return next((candidate for candidate in READERS if candidate.recognises(root)), None)


def _named(layout: str) -> Reader:
    for reader in READERS:
        if reader.name == layout:
            return reader
    raise ConfigError(f"layout {layout}: no such layout; choose one of {_names()}")


def _names() -> str:
    return ", ".join(reader.name for reader in READERS)
