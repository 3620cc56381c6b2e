"""Reads NIfTI files in no known layout as cases, by the modalities in their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ganseg_dist.data.cohort import MODALITIES, UNKNOWN_SITE, Case, Source
from ganseg_dist.data.listing import data_files, data_folders, is_nifti
from ganseg_dist.data.nifti import nifti_channels
from ganseg_dist.data.readers.decathlon import CHANNEL_FILE
from ganseg_dist.data.readers.shared.base import by_stem, canonical_modality, is_mask_folder, is_mask_name, one_of
from ganseg_dist.errors import DataError

DEEPEST = 3
"""Folders between the given one and a case's files: BIDS has `sub-01/ses-1/anat/`."""

CONTRAST = re.compile(r"(^|_)ce-[^_]+(_|$)", re.IGNORECASE)
"""BIDS' entity of a scan after a contrast agent: `sub-01_ce-gadolinium_T1w`."""

AFTER_CONTRAST = frozenset(("gd", "gado", "gadolinium", "ce", "post", "postcontrast", "contrast", "+c", "c+", "km"))
"""What follows T1 in the name of a scan after a contrast agent: `AX_T1_SE_POST`."""

BEFORE_CONTRAST = frozenset(("pre", "precontrast", "no", "non", "without", "wo", "native"))
"""What follows T1 in the name of a scan before the contrast agent: `T1_pre_contrast`."""

DERIVED = re.compile(r".+_(lesions?|rois?|probability[_-].+|anomaly|healthy[_-].+)", re.IGNORECASE)
"""Names of files that were derived from a scan beside them: drawn lesions, and what `ganseg predict` writes."""

Scans = Mapping[str, list[Path]]
"""Files by modality."""


def plain_scans(folder: Path, modalities: Sequence[str], in_file: Sequence[str]) -> tuple[Case, ...]:
    """The cases of a folder of NIfTI files, or of folders of them; none where there are no such files.

    Files are a case's modalities where their names give them, in one folder for all cases or a folder a case:
    `CASE_t1.nii.gz`, `CASE-t1c.nii.gz`, `CASE/T1.nii.gz`. Else each file is a case: a volume for a model of one
    modality (nnU-Net's `CASE_0000.nii.gz` too), or one with a channel for each, in the order of `in_file`.

    Raises DataError naming two files that could be one modality of a case, and one that names channels by numbers
    alone.
    """
    folders = _without_masks(folder)
    known = {*modalities, *MODALITIES} if set(modalities) <= set(MODALITIES) else set(modalities)
    named = any(_parse_name(stem, known) is not None for files in folders.values() for stem in files)
    cases: list[Case] = []
    for place, files in folders.items():
        if named:
            cases += _named_cases(folder, place, files, known, modalities)
        elif len(modalities) == 1:
            cases += _volume_cases(files, modalities[0])
        else:
            cases += _multichannel_cases(files, modalities, in_file)
    return tuple(sorted(_with_unique_ids(folder, cases), key=lambda case: case.id))


def _without_masks(root: Path) -> Mapping[Path, Mapping[str, Path]]:
    """NIfTI files by folder and by name without suffix, without folders of masks and without masks of other files."""
    places = [root, *data_folders(root, DEEPEST)]
    by_folder = {
        place: by_stem((file for file in data_files(place) if is_nifti(file)), "the image")
        for place in places
        if place == root or not any(is_mask_folder(part) for part in place.relative_to(root).parts)
    }
    images = {stem for files in by_folder.values() for stem in files if not _is_derived(stem)}
    kept = {
        place: {stem: file for stem, file in files.items() if not (_is_derived(stem) and _extends_a_name(stem, images))}
        for place, files in by_folder.items()
    }
    return {place: files for place, files in kept.items() if files}


def _is_derived(stem: str) -> bool:
    return is_mask_name(stem) or DERIVED.fullmatch(stem) is not None


def _extends_a_name(mask: str, images: Collection[str]) -> bool:
    """Whether a mask's name extends an image's: `p1_t1_brain_mask` extends `p1_t1`."""
    return any(mask[:end] in images for end in range(1, len(mask)) if mask[end] in "_-.")


@dataclass(frozen=True, slots=True)
class _ParsedName:
    """The parts of a file's name."""

    modality: str
    case: str
    """The name without the modality and the mark of a contrast agent."""
    begins: bool


def named_modality(stem: str, known: Collection[str]) -> str | None:
    """The modality in a name without suffix; None where there is none, or several."""
    parsed = _parse_name(stem, known)
    return None if parsed is None else parsed.modality


def _parse_name(stem: str, known: Collection[str]) -> _ParsedName | None:
    """Parse a name without suffix; None where no part of it is a modality, or where several are."""
    for separator in "_-":
        parts = _joined(stem.split(separator))
        matches = [place for place, part in enumerate(parts) if canonical_modality(part) in known]
        if len(matches) == 1:
            modality, later = canonical_modality(parts[matches[0]]), parts[matches[0] + 1 :]
            case = separator.join([*parts[: matches[0]], *later])
            if modality == "t1" and (CONTRAST.search(stem) or _is_after_contrast(later)):
                modality = "t1ce"
                case = separator.join(part for part in case.split(separator) if part.lower() not in AFTER_CONTRAST)
            return _ParsedName(modality, CONTRAST.sub(r"\1", case).strip("_-"), matches[0] == 0)
        if matches:
            return None
    return None


def _is_after_contrast(parts: Iterable[str]) -> bool:
    lowered = {part.lower() for part in parts}
    return bool(lowered & AFTER_CONTRAST) and not lowered & BEFORE_CONTRAST


def _joined(parts: list[str]) -> list[str]:
    """`T2` and `FLAIR` one after the other are one modality, as dcm2niix writes it in `AX_T2_FLAIR`."""
    whole: list[str] = []
    for part in parts:
        if whole and canonical_modality(whole[-1]) == "t2" and canonical_modality(part) == "flair":
            whole[-1] += part
        else:
            whole.append(part)
    return whole


def _named_cases(
    root: Path, folder: Path, files: Mapping[str, Path], known: Collection[str], modalities: Sequence[str]
) -> Iterator[Case]:
    """Cases by their names without modality; or the folder as one case, where each modality occurs once."""
    named = {file: parsed for stem, file in files.items() if (parsed := _parse_name(stem, known)) is not None}
    whole: dict[str, list[Path]] = {}
    apart: dict[str, dict[str, list[Path]]] = {}
    for file, parsed in named.items():
        whole.setdefault(parsed.modality, []).append(file)
        apart.setdefault(parsed.case or folder.name, {}).setdefault(parsed.modality, []).append(file)
    needed = set(modalities)
    are_apart = any(needed <= set(scans) for scans in apart.values()) or not needed <= set(whole)
    is_one = all(len(several) == 1 for several in whole.values())
    begin = all(parsed.begins for parsed in named.values())
    if whole and is_one and (folder != root or begin or not are_apart):
        yield _case(folder.name, whole)
    elif are_apart:
        yield from (_case(case, scans) for case, scans in apart.items())
    else:
        yield _case(folder.name, whole)


def _case(name: str, scans: Scans) -> Case:
    images = {modality: Source((one_of(files, f"{modality} of {name}"),)) for modality, files in scans.items()}
    return Case(name, name, UNKNOWN_SITE, images)


def _volume_cases(files: Mapping[str, Path], modality: str) -> Iterator[Case]:
    """A case a file; the case of `CASE_0000` is CASE, as in nnU-Net."""
    matches = {stem: CHANNEL_FILE.fullmatch(stem) for stem in files}
    _check_channels(files, modality)
    by_number = all(match is not None and match["channel"] == "0000" for match in matches.values())
    for stem, file in files.items():
        match = matches[stem]
        yield _case(match["case"] if by_number and match is not None else stem, {modality: [file]})


def _check_channels(files: Mapping[str, Path], modality: str) -> None:
    """Raises DataError where several cases have the same several channel numbers, and nothing gives the needed one."""
    numbers: dict[str, list[str]] = {}
    for stem in files:
        if match := CHANNEL_FILE.fullmatch(stem):
            numbers.setdefault(match["case"], []).append(match["channel"])
    same = {tuple(sorted(channels)) for channels in numbers.values()}
    if len(numbers) > 1 and len(same) == 1 and len(channels := next(iter(same))) > 1 and channels[0] == "0000":
        raise DataError(
            f"{next(iter(files.values()))}: is one of {len(channels)} channels by its number, and no dataset.json "
            f"beside it or one level up states which is {modality}; add one with channel_names, or give its files alone"
        )


def _multichannel_cases(files: Mapping[str, Path], modalities: Sequence[str], in_file: Sequence[str]) -> Iterator[Case]:
    for stem, file in files.items():
        try:
            channels = nifti_channels(file)
        except DataError:
            channels = len(in_file)  # loading the file raises the error that names the problem
        if channels == 1 and CHANNEL_FILE.fullmatch(stem):
            raise DataError(
                f"{file}: gives only a channel number, and no dataset.json beside it or one level up states which of "
                f"{', '.join(modalities)} it is; add one with channel_names, or name the files by modality"
            )
        if channels != len(in_file):
            raise DataError(
                f"{file}: has {channels} channel(s) and the model needs {len(in_file)} ({', '.join(in_file)}); "
                "name a case's files by modality, as in CASE_t1.nii.gz, or list them in a CSV manifest"
            )
        yield Case(stem, stem, UNKNOWN_SITE, {name: Source((file,), in_file.index(name)) for name in modalities})


def _with_unique_ids(root: Path, cases: Sequence[Case]) -> Iterator[Case]:
    """Cases that share an id, such as every `anat` of BIDS, get the names of the folders above them too."""
    counts = Counter(case.id for case in cases)
    for case in cases:
        if counts[case.id] == 1:
            yield case
            continue
        folders = case.first_image.files[0].relative_to(root).parts[:-1]
        name = "_".join(folders if folders and folders[-1] == case.id else [*folders, case.id])
        yield replace(case, id=name, patient=name)
