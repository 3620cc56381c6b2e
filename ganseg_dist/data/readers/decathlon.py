"""Medical Segmentation Decathlon and nnU-Net: a `dataset.json` that says what the files hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ganseg_dist.data.cohort import UNKNOWN_SITE, Case, Source
from ganseg_dist.data.formats import NIFTI_SUFFIXES, PICTURE_SUFFIXES
from ganseg_dist.data.labels import BACKGROUND_LABEL, REGION_LABELS, LabelScheme
from ganseg_dist.data.readers.base import canonical_modality
from ganseg_dist.errors import DataError
from ganseg_dist.files import read_json

Key = TypeVar("Key", int, str)

TISSUES = {
    1: ("nonenhancing", "necro", "ncr", "net"),
    2: ("edema", "oedema", "snfh"),
    3: ("enhancing", "et", "activetumor", "activetumour"),
}
"""Our label of a tissue, and how its name may begin, in lower case without punctuation."""

REGIONS = {
    "wt": ("whole", "wt"),
    "tc": ("tumorcore", "tumourcore", "core", "tc"),
    "et": ("enhancing", "et"),
}
"""The same for regions, which nnU-Net writes as lists of label values."""


class DecathlonReader:
    """The Decathlon's 4-D images and nnU-Net's one file a channel, versions 1 and 2."""

    name = "decathlon"
    describes = "Medical Segmentation Decathlon or nnU-Net: dataset.json beside imagesTr/ and labelsTr/"

    def recognises(self, root: Path) -> bool:
        """By its dataset.json."""
        return (root / "dataset.json").is_file()

    def cases(self, root: Path) -> tuple[Case, ...]:
        """The training cases; neither convention names hospitals or says which cases share a patient."""
        file = root / "dataset.json"
        description = _load(file)
        if "channel_names" in description:
            return _nnunet_cases(root, file, description)
        if "modality" in description and "training" in description:
            return _decathlon_cases(root, file, description)
        raise DataError(f"{file}: has neither channel_names (nnU-Net) nor modality, training (Decathlon); add them")


def _load(file: Path) -> Mapping[str, Any]:
    try:
        description = read_json(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: is not readable JSON ({error}); export it again") from None
    if not isinstance(description, dict) or not isinstance(description.get("labels"), dict):
        raise DataError(f"{file}: has no labels; name the label values there")
    return description


def _decathlon_cases(root: Path, file: Path, description: Mapping[str, Any]) -> tuple[Case, ...]:
    """`labels` maps value to name; `training` lists each image and its label file."""
    modalities = _modalities(file, description, "modality")
    scheme = _scheme(file, {name: value for value, name in _numbered_names(file, description, "labels").items()})
    if not isinstance(description["training"], list):
        raise DataError(f"{file}: training is no list; list each image with its label there")
    cases = []
    for entry in description["training"]:
        try:
            image, label = root / entry["image"], root / entry["label"]
        except (KeyError, TypeError):
            raise DataError(f"{file}: training entry {entry!r} needs an image and a label; complete it") from None
        case = _stem(image.name)
        cases.append(_case(case, _channel_sources(image, case, modalities), label, scheme))
    return tuple(sorted(cases, key=lambda case: case.id))


def _nnunet_cases(root: Path, file: Path, description: Mapping[str, Any]) -> tuple[Case, ...]:
    """`labels` maps name to value or, for regions, to a list of values; cases are found by file name."""
    modalities = _modalities(file, description, "channel_names")
    if not all(_is_value(value) for value in description["labels"].values()):
        raise DataError(f'{file}: labels do not map names to whole numbers; write them as in {{"tumour": 1}}')
    scheme = _scheme(file, description["labels"])
    ending = str(description.get("file_ending", ".nii.gz"))
    if not ending.lower().endswith((*NIFTI_SUFFIXES, *PICTURE_SUFFIXES)):
        raise DataError(f"{file}: file_ending {ending} is not supported; convert the images to .nii.gz")
    channel_file = re.compile(rf"(?P<case>.+)_\d{{4}}{re.escape(ending)}")
    matches = (channel_file.fullmatch(image.name) for image in (root / "imagesTr").glob("*"))
    masks = root / "labelsTr"
    return tuple(
        _case(
            case,
            {
                modality: Source((image,))
                for channel, modality in modalities.items()
                if (image := root / "imagesTr" / f"{case}_{channel:04d}{ending}").exists()
            },
            masks / f"{case}{ending}" if masks.is_dir() else None,
            scheme,
        )
        for case in sorted({match["case"] for match in matches if match})
    )


def _case(case: str, images: Mapping[str, Source], mask: Path | None, scheme: LabelScheme) -> Case:
    return Case(
        id=case,
        patient=case,
        site=UNKNOWN_SITE,
        images=images,
        mask=None if mask is None else Source((mask,)),
        scheme=scheme,
    )


def _modalities(file: Path, description: Mapping[str, Any], field: str) -> dict[int, str]:
    names = _numbered_names(file, description, field)
    return {channel: canonical_modality(name) for channel, name in names.items()}


def _numbered_names(file: Path, description: Mapping[str, Any], field: str) -> dict[int, str]:
    names = description[field]
    if not isinstance(names, dict) or not names:
        raise DataError(f'{file}: {field} does not map numbers to names; write it as in {{"0": "T1"}}')
    for number, name in names.items():
        if not (number.isdecimal() and isinstance(name, str)):
            raise DataError(
                f'{file}: {field} maps {number!r} to {name!r}; write a number and a name, as in {{"0": "T1"}}'
            )
    return {int(number): name for number, name in names.items()}


def _is_value(value: Any) -> bool:
    """A label's value or, for a region, its list of values."""
    return all(isinstance(one, int) for one in (value if isinstance(value, list) else [value]))


def _channel_sources(image: Path, case: str, modalities: Mapping[int, str]) -> dict[str, Source]:
    """Channels of one 4-D file; or, as nnU-Net's first version has it, a file a channel under the listed name."""
    ending = image.name.removeprefix(case)
    apart = {channel: image.with_name(f"{case}_{channel:04d}{ending}") for channel in modalities}
    if not image.exists() and any(file.exists() for file in apart.values()):
        return {name: Source((apart[i],)) for i, name in modalities.items() if apart[i].exists()}
    return {name: Source((image,), i if len(modalities) > 1 else None) for i, name in modalities.items()}


def _stem(name: str) -> str:
    suffix = next((suffix for suffix in (".nii.gz", ".nii") if name.endswith(suffix)), Path(name).suffix)
    return name.removesuffix(suffix)


def _scheme(file: Path, labels: Mapping[str, int | list[int]]) -> LabelScheme:
    """Raises DataError for labels that are neither one lesion nor the three tumour tissues."""
    lesions = {name: value for name, value in labels.items() if value != 0 and _letters(name) != BACKGROUND_LABEL}
    if len(lesions) == 1:
        ((name, value),) = lesions.items()
        return LabelScheme.of_lesion(name, _values(value), where=str(file))
    by_region = any(isinstance(value, list) for value in lesions.values())
    regions, names = _by_region(lesions) if by_region else _by_tissue(lesions)
    if not regions:
        raise DataError(
            f"{file}: labels {', '.join(labels)} are not supported; supported are one lesion label, or oedema, "
            "non-enhancing and enhancing tumour; recode the masks and name the labels so"
        )
    return LabelScheme.from_json({"labels": {BACKGROUND_LABEL: 0, **names}, "regions": regions}, str(file))


def _by_tissue(lesions: Mapping[str, int | list[int]]) -> tuple[Mapping[str, list[str]], Mapping[str, Any]]:
    """Regions of the tissues, and the tissues' names and values; of other labels none."""
    tissues = {name: _match(name, TISSUES) for name in lesions}
    if set(tissues.values()) != {1, 2, 3}:
        return {}, {}
    regions = {
        region: [name for name, ours in tissues.items() if ours in held] for region, held in REGION_LABELS.items()
    }
    return regions, lesions


def _by_region(lesions: Mapping[str, int | list[int]]) -> tuple[Mapping[str, list[str]], Mapping[str, Any]]:
    """The same of nested regions, whose tissues have no names of their own: oedema is WT without TC, necrotic core
    TC without ET.
    """
    held = {_match(name, REGIONS): _values(value) for name, value in lesions.items()}
    if len(lesions) != 3 or set(held) != {"wt", "tc", "et"}:
        return {}, {}
    whole, core, enhancing = held["wt"], held["tc"], held["et"]
    if not enhancing < core < whole:
        return {}, {}
    tissues = {"necrotic core": core - enhancing, "oedema": whole - core, "enhancing tumour": enhancing}
    values = {
        (tissue if len(of_tissue) == 1 else f"{tissue} {value}"): value
        for tissue, of_tissue in tissues.items()
        for value in sorted(of_tissue)
    }
    regions = {
        region: [name for name, value in values.items() if value in of_region]
        for region, of_region in (("wt", whole), ("tc", core), ("et", enhancing))
    }
    return regions, values


def _match(name: str, beginnings: Mapping[Key, Iterable[str]]) -> Key | None:
    letters = _letters(name)
    return next((key for key, names in beginnings.items() if letters.startswith(tuple(names))), None)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _values(value: int | list[int]) -> frozenset[int]:
    return frozenset(value if isinstance(value, list) else [value])
