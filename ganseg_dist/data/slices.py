"""Prepared slices of many cases as one indexable set, read straight from the memory-mapped store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ganseg_dist.data.store import PreparedCase

LESION_CLASSES = ("no lesion", "lesion")
"""Classes of a slice with a mask where the case has no class. Class folders may have these names too."""


@dataclass(frozen=True)
class SliceSet:
    """Slices of several prepared cases. Cheap to copy and to send to another process: the voxels stay on disk."""

    cases: tuple[PreparedCase, ...]
    modalities: tuple[str, ...]
    regions: tuple[str, ...]
    case_of: npt.NDArray[np.int64]
    """(N,) index into `cases`."""
    slice_of: npt.NDArray[np.int64]
    """(N,) index into the case's slices."""
    has_lesion: npt.NDArray[np.bool_]
    """(N,)"""
    label: npt.NDArray[np.int64]
    """(N,) index of each slice's class, -1 where the class is unknown."""

    @classmethod
    def open(
        cls,
        folders: Iterable[Path],
        modalities: Sequence[str],
        regions: Sequence[str],
        classes: Sequence[str] = LESION_CLASSES,
    ) -> SliceSet:
        """The usable slices of the prepared cases in these folders.

        The positions of `classes` are the labels. Where they are `LESION_CLASSES`, in any order, a slice of a case
        without such a class is labelled by its mask.
        """
        cases = tuple(PreparedCase.open(folder) for folder in folders)
        usable = [(index, case, np.flatnonzero(case.usable)) for index, case in enumerate(cases)]
        empty = np.zeros(0, np.int64)
        return cls(
            cases,
            tuple(modalities),
            tuple(regions),
            np.concatenate([empty, *(np.full(len(slices), index) for index, _, slices in usable)]),
            np.concatenate([empty, *(slices for _, _, slices in usable)]),
            np.concatenate([empty.astype(bool), *(case.has_lesion[slices] for _, case, slices in usable)]),
            np.concatenate([empty, *(_labels(case, tuple(classes))[slices] for _, case, slices in usable)]),
        )

    def __len__(self) -> int:
        return len(self.case_of)

    @property
    def patients(self) -> frozenset[str]:
        """Those with at least one of these slices."""
        return frozenset(self.cases[index].patient for index in np.unique(self.case_of))

    @property
    def sides_known(self) -> npt.NDArray[np.bool_]:
        """(N,) whether each slice's columns run from the patient's left to right."""
        return np.array([case.sides_known for case in self.cases], bool)[self.case_of]

    def of_modalities(self, modalities: Sequence[str]) -> SliceSet:
        """The same slices with other channels."""
        return replace(self, modalities=tuple(modalities))

    def read(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Images (n, C, H, W) in [-1, 1] and regions (n, R, H, W) in {0, 1} of these slices."""
        side = self.cases[0].size
        image = np.empty((len(indices), len(self.modalities), side, side), np.float32)
        regions = np.zeros((len(indices), len(self.regions), side, side), np.float32)
        for row, index in enumerate(indices):
            case, plane = self.cases[self.case_of[index]], self.slice_of[index]
            stored = case.image
            for channel, modality in enumerate(self.modalities):
                image[row, channel] = stored[plane, case.modalities.index(modality)]
            for channel, region in enumerate(self.regions if case.regions else ()):
                regions[row, channel] = case.masks[plane, case.regions.index(region)]
        return image, regions


def slice_classes(
    class_name: str | None, lesion: npt.NDArray[np.int64] | None, slices: int, classes: Sequence[str]
) -> list[str | None]:
    """Each slice's class: the whole image's, else by the mask's (S,) lesion pixels; None where it is unknown."""
    if class_name in classes:
        return [class_name] * slices
    if lesion is None or set(classes) != set(LESION_CLASSES):
        return [None] * slices
    return [LESION_CLASSES[int(pixels > 0)] for pixels in lesion]


def _labels(case: PreparedCase, classes: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """(S,) index of each slice's class, -1 where it is unknown."""
    lesion = case.lesion if case.regions else None
    named = slice_classes(case.class_name, lesion, len(case.lesion), classes)
    return np.array([-1 if name is None else classes.index(name) for name in named], np.int64)
