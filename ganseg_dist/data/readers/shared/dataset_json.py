"""Channels, labels and training cases of a `dataset.json`, by the Decathlon's convention or by nnU-Net's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganseg_dist.data.cohort import COLOURS
from ganseg_dist.data.labels import BACKGROUND_LABEL, REGION_LABELS, LabelScheme
from ganseg_dist.data.listing import NIFTI_SUFFIXES, PICTURE_SUFFIXES, file_called, read_json
from ganseg_dist.data.readers.shared.base import canonical_modality
from ganseg_dist.errors import DataError

NAME = "dataset.json"

CHANNEL_FIELDS = ("channel_names", "modality")
"""nnU-Net's, and the Decathlon's."""

COLOUR_LETTERS = dict(zip("rgb", COLOURS, strict=True))
"""Channel names of nnU-Net's example in colour, to our modalities."""

ABBREVIATIONS = {
    1: ("ncr", "net", "netc", "ncrnet", "ncrnetc", "nec", "cc"),
    2: ("ed", "snfh"),
    3: ("et", "at"),
}
"""Our label of a tissue to its abbreviations, such as NCR/NET or ED, without punctuation."""

ENHANCING = r"((gd|gadolinium|contrast) )?enhanc(ing|ed)( (tumou?r|tissue|core|lesion|region))*"

PHRASES = (
    (2, re.compile(r".*(oedema|edema|hyperintens).*")),
    (1, re.compile(r".*(\bnecro|\bcystic|\bnon ?(contrast )?enhanc).*")),
    (3, re.compile(rf"(et )?({ENHANCING}|active tumou?r)( et)?")),
)
"""Our label of a tissue and a pattern of its written-out name; the first match counts."""

CAVITY = re.compile(r"rc|resection cavity( rc)?")
"""Belongs to no region of the tumour, in BraTS 2024."""

REGIONS = (
    ("wt", re.compile(r"(wt )?whole( ?tumou?r)?( region)?( wt)?|wt")),
    ("tc", re.compile(r"(tc )?(tumou?r ?)?core( region)?( tc)?|tc")),
    ("et", re.compile(rf"(et )?{ENHANCING}( et)?|et")),
)
"""Nested regions and patterns of their names: nnU-Net writes them as lists of label values."""


@dataclass(frozen=True, slots=True)
class Description:
    """One `dataset.json`."""

    file: Path
    content: Mapping[str, Any]

    @classmethod
    def beside(cls, folder: Path) -> Description | None:
        """The `dataset.json` in a folder, or None. Raises DataError naming one that cannot be read."""
        file = file_called(folder, NAME)
        if file is None:
            return None
        content = read_json(file)
        if not isinstance(content, dict):
            raise DataError(f"{file}: does not map names to values; export it again")
        return cls(file, content)

    @classmethod
    def of_images(cls, folder: Path) -> Description | None:
        """The `dataset.json` that names the channels of a folder's images, in it or one level up; None without one.

        Raises DataError naming one that cannot be read, or whose channels are not valid.
        """
        for place in (folder, folder.resolve().parent):
            description = cls.beside(place)
            if description is not None and any(field in description.content for field in CHANNEL_FIELDS):
                return description if description.channels else None
        return None

    @property
    def is_nnunet(self) -> bool:
        """Whether channels and labels are in the form of nnU-Net's second version.

        Raises DataError where the file has neither form, or has both and they name different channels.
        """
        has_channel_names, has_modality = "channel_names" in self.content, "modality" in self.content
        if has_channel_names and has_modality and self._channels("channel_names") != self._channels("modality"):
            raise DataError(f"{self.file}: channel_names and modality name other channels; keep the one that is right")
        if has_channel_names and has_modality and "training" in self.content:
            labels = self.content.get("labels")
            return not (isinstance(labels, dict) and all(name.isdecimal() for name in labels))
        if not has_channel_names and not (has_modality and "training" in self.content):
            raise DataError(
                f"{self.file}: has neither channel_names (nnU-Net) nor modality, training (Decathlon); add them"
            )
        return has_channel_names

    @property
    def channels(self) -> dict[int, str]:
        """Channel number to modality, each once: channels of the same name get their number appended.

        Raises DataError where the channels are missing or not valid.
        """
        field = next((field for field in CHANNEL_FIELDS if field in self.content), None)
        if field is None:
            raise DataError(f"{self.file}: has neither channel_names (nnU-Net) nor modality (Decathlon); add them")
        return self._channels(field)

    @property
    def ending(self) -> str:
        """Suffix of nnU-Net's files. Raises DataError for a format that is not supported."""
        ending = str(self.content.get("file_ending", ".nii.gz"))
        if not ending.lower().endswith((*NIFTI_SUFFIXES, *PICTURE_SUFFIXES)) or Path(ending).name != ending:
            raise DataError(f"{self.file}: file_ending {ending} is not supported; convert the images to .nii.gz")
        return ending

    @property
    def scheme(self) -> LabelScheme:
        """The label scheme of its masks. Raises DataError for labels that are not supported."""
        if not isinstance(self.content.get("labels"), dict):
            raise DataError(f"{self.file}: has no labels; name the label values there")
        if self.is_nnunet:
            labels = self.content["labels"]
            if not all(_is_value(value) for value in labels.values()):
                raise DataError(
                    f'{self.file}: labels do not map names to whole numbers; write them as in {{"tumour": 1}}'
                )
        else:
            labels = {name: value for value, name in self._numbered_names("labels").items()}
        return _scheme(self.file, labels)

    def _channels(self, field: str) -> dict[int, str]:
        names = {channel: canonical_modality(name) for channel, name in self._numbered_names(field).items()}
        if set(names.values()) == set(COLOUR_LETTERS):
            return {channel: COLOUR_LETTERS[name] for channel, name in names.items()}
        counts = Counter(names.values())
        return {channel: name if counts[name] == 1 else f"{name}_{channel}" for channel, name in names.items()}

    def _numbered_names(self, field: str) -> dict[int, str]:
        names = self.content[field]
        if not isinstance(names, dict) or not names:
            raise DataError(f'{self.file}: {field} does not map numbers to names; write it as in {{"0": "T1"}}')
        for number, name in names.items():
            if not (number.isdecimal() and isinstance(name, str)):
                raise DataError(
                    f'{self.file}: {field} maps {number!r} to {name!r}; write a number and a name, as in {{"0": "T1"}}'
                )
        return {int(number): name for number, name in names.items()}


def _is_value(value: Any) -> bool:
    """A label's value or, for a region, its list of values."""
    return all(isinstance(number, int) for number in (value if isinstance(value, list) else [value]))


def _scheme(file: Path, labels: Mapping[str, int | list[int]]) -> LabelScheme:
    """Raises DataError for labels that are neither one lesion nor the three tumour tissues."""
    lesions = {name: value for name, value in labels.items() if value != 0 and _words(name) != BACKGROUND_LABEL}
    if len(lesions) == 1:
        ((name, value),) = lesions.items()
        return LabelScheme.of_lesion(name, _values(value), where=str(file))
    has_lists = any(isinstance(value, list) for value in lesions.values())
    regions, names = _by_region(lesions) if has_lists else _by_tissue(lesions)
    if not regions and not has_lists:
        regions, names = _by_innermost_region(lesions)
    if not regions:
        raise DataError(
            f"{file}: labels {', '.join(labels)} are not supported; supported are one lesion label, or oedema, "
            "non-enhancing and enhancing tumour; recode the masks and name them so, or state a scheme with --labels"
        )
    return LabelScheme.from_json({"labels": {BACKGROUND_LABEL: 0, **names}, "regions": regions}, str(file))


RegionLabels = tuple[Mapping[str, list[str]], Mapping[str, Any]]
"""Region to the names of its labels, and names to values; both empty where the labels are of another kind."""


def _by_tissue(lesions: Mapping[str, Any]) -> RegionLabels:
    tissues = {name: _tissue(name) for name in lesions if not CAVITY.fullmatch(_words(name))}
    if set(tissues.values()) != {1, 2, 3}:
        return {}, {}
    regions = {
        region: [name for name, label in tissues.items() if label in labels] for region, labels in REGION_LABELS.items()
    }
    return regions, lesions


def _by_innermost_region(lesions: Mapping[str, Any]) -> RegionLabels:
    """For values named whole, core and enhancing: a voxel has the value of its innermost region."""
    named = {_region(name): name for name in lesions}
    if len(lesions) != 3 or set(named) != {"wt", "tc", "et"}:
        return {}, {}
    whole, core, enhancing = (named[region] for region in ("wt", "tc", "et"))
    return {"wt": [whole, core, enhancing], "tc": [core, enhancing], "et": [enhancing]}, lesions


def _by_region(lesions: Mapping[str, int | list[int]]) -> RegionLabels:
    """For nested lists of values of unnamed tissues: oedema is WT without TC, and necrotic core TC without ET."""
    region_values = {_region(name): _values(value) for name, value in lesions.items()}
    if len(lesions) != 3 or set(region_values) != {"wt", "tc", "et"}:
        return {}, {}
    whole, core, enhancing = region_values["wt"], region_values["tc"], region_values["et"]
    if not enhancing < core < whole:
        return {}, {}
    tissues = {"necrotic core": core - enhancing, "oedema": whole - core, "enhancing tumour": enhancing}
    values = {
        (tissue if len(tissue_values) == 1 else f"{tissue} {value}"): value
        for tissue, tissue_values in tissues.items()
        for value in sorted(tissue_values)
    }
    regions = {
        region: [name for name, value in values.items() if value in inside]
        for region, inside in (("wt", whole), ("tc", core), ("et", enhancing))
    }
    return regions, values


def _tissue(name: str) -> int | None:
    words = _words(name)
    letters = words.replace(" ", "")
    for tissue, abbreviations in ABBREVIATIONS.items():
        if letters in abbreviations:
            return tissue
    return next((tissue for tissue, phrase in PHRASES if phrase.fullmatch(words)), None)


def _region(name: str) -> str | None:
    return next((region for region, pattern in REGIONS if pattern.fullmatch(_words(name))), None)


def _words(name: str) -> str:
    """Lower case, with spaces between words: `GD-enhancing_tumor` is `gd enhancing tumor`, `NCR/NET` `ncr net`."""
    return " ".join(re.sub(r"[^a-z]", " ", name.lower()).split())


def _values(value: int | list[int]) -> frozenset[int]:
    return frozenset(value if isinstance(value, list) else [value])
