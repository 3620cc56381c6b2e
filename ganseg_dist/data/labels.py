"""Label schemes: the meaning of a mask's values, our own label values, and the regions that they form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, StrictInt, TypeAdapter, ValidationError, with_config

from ganseg_dist.data.nesting import rows_inside
from ganseg_dist.errors import DataError
from ganseg_dist.files import read_json
from ganseg_dist.names import LabelName
from ganseg_dist.records import first_problem

Labels = npt.NDArray[np.uint8]

BACKGROUND_LABEL = "background"
LESION_IN_PICTURES = 255
LARGEST_VALUE = 2**16 - 1
Value = Annotated[StrictInt, Field(ge=0, le=LARGEST_VALUE)]


@with_config(extra="forbid")
@dataclass(frozen=True, slots=True)
class LabelScheme:
    """The contract between a data set, the model trained on it and the masks that the model writes.

    A mask holds the values of `labels`. In a picture (PNG), the mask of a scheme with one region
    is black and white: the lesion is LESION_IN_PICTURES.
    """

    labels: Annotated[Mapping[LabelName, Value], Field(min_length=1, max_length=256)]
    """Name to value in a mask; background is 0."""
    regions: Annotated[
        Mapping[LabelName, Annotated[tuple[LabelName, ...], Field(min_length=1, max_length=256)]], Field(max_length=256)
    ]
    """Region to the names of its labels. Regions may be single labels, or overlap."""
    nested: bool = True
    """Whether a region lies inside another that has all of its labels: its voxels then belong to both."""
    ignore: Value | None = None
    """The value of unlabelled voxels, which are neither trained on nor scored."""

    def __post_init__(self) -> None:
        """Raises ValueError when values repeat, background is not 0, or a region has a label that is not in `labels`
        or that the region around it lacks.
        """
        values = [*self.labels.values(), *([] if self.ignore is None else [self.ignore])]
        if len(set(values)) < len(values):
            raise ValueError("labels: a value has two names; give every label its own value")
        if self.labels.get(BACKGROUND_LABEL) != 0:
            raise ValueError("labels: background is not 0; add background: 0")
        for region, names in self.regions.items():
            unknown = [name for name in names if name not in self.labels or name == BACKGROUND_LABEL]
            if unknown:
                raise ValueError(f"regions: {region} has {unknown[0]}, which is none of the labels but background")
        for inner, outer in (("et", "tc"), ("et", "wt"), ("tc", "wt")):
            names, outer_labels = self.regions.get(inner, ()), self.regions.get(outer)
            missing = [name for name in names if outer_labels is not None and name not in outer_labels]
            if missing:
                raise ValueError(f"regions: {inner} has {missing[0]}, which {outer} around it lacks; add it there")

    @classmethod
    def of_lesion(cls, name: str, values: Iterable[int] = (1,), *, where: str = "labels") -> LabelScheme:
        """The scheme of one lesion, of one or several values. Raises DataError beginning with `where`."""
        several = sorted(values)
        names = {name: several[0]} if len(several) == 1 else {f"{name} {value}": value for value in several}
        return cls.from_json({"labels": {BACKGROUND_LABEL: 0} | names, "regions": {"wt": list(names)}}, where)

    @classmethod
    def from_json(cls, stored: Any, where: str) -> LabelScheme:
        """The inverse of `to_json`. Raises DataError beginning with `where`."""
        try:
            return TypeAdapter(cls).validate_python(stored)
        except ValidationError as error:
            raise DataError(f"{where}: is no label scheme ({first_problem(error, 'scheme')})") from None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return {
            "labels": dict(self.labels),
            "regions": {region: list(names) for region, names in self.regions.items()},
            "nested": self.nested,
            "ignore": self.ignore,
        }

    @property
    def to_our_labels(self) -> dict[int, int]:
        """Values in a mask to our label values of the same regions; labels of no region map to 0."""
        known = REGION_LABELS.keys() & self.regions.keys()
        by_regions = {
            frozenset(region for region in known if label in REGION_LABELS[region]): label for label in (3, 2, 1, 0)
        }
        return {
            value: by_regions[frozenset(region for region in known if name in self.regions[region])]
            for name, value in self.labels.items()
        }

    def of_model(self, regions: Sequence[str], where: str) -> LabelScheme:
        """The scheme by which a model of these regions writes masks, of its cohort's scheme.

        Raises DataError beginning with `where` when one of the regions is missing.
        """
        missing = [region for region in regions if region not in self.regions]
        if missing:
            raise DataError(f"{where}: has no region {missing[0]}; it has {', '.join(self.regions) or 'none'}")
        return self.of_regions(regions)

    def rows_inside(self, regions: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """For each region, its own row and those of the regions inside it."""
        return rows_inside(regions, self.regions) if self.nested else tuple((row,) for row in range(len(regions)))

    def of_regions(self, regions: Sequence[str]) -> LabelScheme:
        """The scheme of a model of these regions alone: labels that they do not distinguish are merged into one.

        A merged label has the lowest of their values, and the region's name. Labels of no region are left out.
        """
        if set(regions) == set(self.regions):
            return replace(
                self, labels={name: v for name, v in self.labels.items() if name not in self.outside_regions}
            )
        groups: dict[frozenset[str], list[str]] = {}
        for name in self.labels:
            groups.setdefault(frozenset(region for region in regions if name in self.regions[region]), []).append(name)
        groups.pop(frozenset(), None)
        merged: dict[frozenset[str], tuple[str, int]] = {}
        for group, names in groups.items():
            innermost = min(group, key=lambda region: len(self.regions[region]))
            value, title = min(self.labels[label] for label in names), REGION_NAMES.get(innermost, innermost)
            title = f"{title} {value}" if title in self.labels else title
            merged[group] = names[0] if len(names) == 1 else title, value
        return LabelScheme(
            {BACKGROUND_LABEL: 0, **dict(merged.values())},
            {region: tuple(name for group, (name, _) in merged.items() if region in group) for region in regions},
            self.nested,
            self.ignore,
        )

    def written(self, region: str) -> int:
        """The value written for a voxel of a region and of none inside it: its first label that no inner region has."""
        names, regions = self.regions[region], list(self.regions)
        rows = self.rows_inside(regions)[regions.index(region)]
        inner = {name for row in rows if regions[row] != region for name in self.regions[regions[row]]}
        return self.labels[next((name for name in names if name not in inner), names[0])]

    def label_map(self, masks: npt.NDArray[np.bool_], regions: Sequence[str]) -> npt.NDArray[np.uint8 | np.uint16]:
        """Values (...) of (R, ...) masks of regions: an inner region is written over those around it."""
        labels = np.zeros(masks.shape[1:], np.uint8 if max(self.labels.values()) < 256 else np.uint16)
        outermost_first = sorted(range(len(regions)), key=lambda row: -len(self.regions[regions[row]]))
        for row in outermost_first:
            labels[masks[row]] = self.written(regions[row])
        return labels

    @property
    def outside_regions(self) -> dict[str, int]:
        """Labels of no region, such as a resection cavity: their voxels are read as background."""
        inside = {name for names in self.regions.values() for name in names}
        return {name: value for name, value in self.labels.items() if value and name not in inside}

    def title(self, region: str) -> str:
        """A region's name in print: its label's where it has one label, else the usual name of the region."""
        names = self.regions[region]
        return names[0] if len(names) == 1 else REGION_NAMES.get(region, region)

    def describe(self) -> str:
        """`0 background, 1 lesion`, in the order of the values."""
        return ", ".join(f"{value} {name}" for name, value in sorted(self.labels.items(), key=lambda item: item[1]))


def is_scheme_path(stated: str) -> bool:
    """Whether a value of `--labels`, or of a manifest's labels column, is a file and not a scheme's name."""
    return stated.lower().endswith(".json")


def read_scheme(file: Path) -> LabelScheme:
    """A user's scheme. Raises DataError naming the file, also where a region cannot be trained on."""
    try:
        stored = read_json(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: is not readable JSON ({error}); write the masks' label scheme there") from None
    scheme = LabelScheme.from_json(stored, str(file))
    unknown = [region for region in scheme.regions if region not in REGION_LABELS]
    if unknown:
        raise DataError(f"{file}: regions: {unknown[0]} cannot be trained on yet; name {', '.join(REGION_LABELS)}")
    return scheme


def most_common_scheme(schemes: Iterable[LabelScheme]) -> LabelScheme:
    """The most frequent scheme; of equals, the first in the order of their JSON texts; UNSTATED without any."""
    counts: dict[str, tuple[int, LabelScheme]] = {}
    for scheme in schemes:
        text = json.dumps(scheme.to_json())
        counts[text] = counts.get(text, (0, scheme))[0] + 1, scheme
    if not counts:
        return UNSTATED
    return counts[min(counts, key=lambda text: (-counts[text][0], text))][1]


REGION_LABELS: Mapping[str, tuple[int, ...]] = {"wt": (1, 2, 3), "tc": (1, 3), "et": (3,)}
"""Our labels in each region: 1 necrotic core (or any lesion in binary sets), 2 oedema, 3 enhancing tumour."""
REGION_NAMES = {"wt": "whole tumour", "tc": "tumour core", "et": "enhancing tumour"}

BRATS_REGIONS = ("wt", "tc", "et")
BINARY_REGIONS = ("wt",)


TUMOUR_REGIONS: Mapping[str, tuple[str, ...]] = {
    "wt": ("necrotic core", "oedema", "enhancing tumour"),
    "tc": ("necrotic core", "enhancing tumour"),
    "et": ("enhancing tumour",),
}

BINARY = LabelScheme.of_lesion("lesion")
BRATS = LabelScheme({BACKGROUND_LABEL: 0, "necrotic core": 1, "oedema": 2, "enhancing tumour": 4}, TUMOUR_REGIONS)
"""BraTS 2017-2021, by its pages (med.upenn.edu/cbica/brats2019/tasks.html), and FeTS, which has its data."""
BRATS_2023 = LabelScheme({BACKGROUND_LABEL: 0, "necrotic core": 1, "oedema": 2, "enhancing tumour": 3}, TUMOUR_REGIONS)
"""BraTS 2023, all its tumours, as scored by github.com/rachitsaluja/BraTS-2023-Metrics (eval.py), the challenge's code;
GoAT, SSA and metastases of 2024 too (BraTS-2024-Metrics)."""
BRATS_2024_GLI = LabelScheme(
    {BACKGROUND_LABEL: 0, "necrotic core": 1, "oedema": 2, "enhancing tumour": 3, "resection cavity": 4},
    TUMOUR_REGIONS,
)
"""Gliomas after treatment, BraTS 2024, as scored by github.com/rachitsaluja/BraTS-2024-Metrics (metrics_GLI.py), the
challenge's code: WT is 1 to 3, TC 1 and 3; the cavity is in neither. 1 to 3 are as in 2023."""
BRATS_2024_PED = LabelScheme(
    {BACKGROUND_LABEL: 0, "enhancing tumour": 1, "non-enhancing tumour": 2, "cystic component": 3, "oedema": 4},
    {
        "wt": ("non-enhancing tumour", "cystic component", "oedema", "enhancing tumour"),
        "tc": ("non-enhancing tumour", "cystic component", "enhancing tumour"),
        "et": ("enhancing tumour",),
    },
)
"""Children's tumours, BraTS 2024 (metrics_PED.py in the same place): WT is 1 to 4, TC 1 to 3, ET 1."""

SCHEMES: Mapping[str, LabelScheme] = {
    "binary": BINARY,
    "brats": BRATS,
    "brats2023": BRATS_2023,
    "brats2024-gli": BRATS_2024_GLI,
    "brats2024-ped": BRATS_2024_PED,
}
"""By the name that a manifest or `--labels` gives."""

UNSTATED = LabelScheme({BACKGROUND_LABEL: 0}, {})
"""For masks whose values neither the data set nor the user defines, and where nothing is segmented."""
