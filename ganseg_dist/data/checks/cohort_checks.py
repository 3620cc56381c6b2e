"""Checks that only comparing cases makes: duplicates, missing masks and modalities, files that nothing reads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ganseg_dist.data.checks.finding import CaseReport, Finding
from ganseg_dist.data.cohort import Case, Cohort, are_colours, are_of_pictures
from ganseg_dist.data.labels import BRATS_2024_GLI
from ganseg_dist.data.listing import data_files, data_folders, files_below, is_image
from ganseg_dist.data.readers import find_reader
from ganseg_dist.plural import counted

STRIPPERS = "HD-BET or SynthStrip"

MOST_COLOURS_NAMED = 5

FEWEST_OF_ONE_LABEL = 3
"""Least number of masks with one and the same label that is no coincidence."""

FEWEST_IN_AIR, MOST_IN_AIR = 3, 0.1
"""Least number of masks outside the head, and their share of those that are not empty, that are no single mistakes."""

CT_NAME = re.compile(r"(?<![a-z0-9])(ct|cta|ctp|ncct|cect|cbct|ldct)(?![a-z0-9])|computed.?tomography", re.IGNORECASE)
"""Matches whole words: t1ct and cT1 are MRI with contrast."""

DEEPEST_UNREAD = 6
"""Depth to which a folder beside the cases is searched for images."""

MOST_SHARING = 3
"""Least number of further cases with the same mask that is reported: a patient's sequences often share one mask."""


def expected_modalities(cohort: Cohort) -> tuple[str, ...]:
    """Modalities that at least half of the cases have, in the order they are met."""
    counts = Counter(modality for case in cohort.cases for modality in case.images)
    return tuple(modality for modality, count in counts.items() if 2 * count >= len(cohort.cases))


def check_cohort(
    cohort: Cohort, reports: Sequence[CaseReport], *, needs_skull_stripping: bool = False
) -> tuple[Finding, ...]:
    """Findings that only comparing cases shows. `reports` are those of `cohort.cases`, in their order.

    Synthetic images are not checked for skulls and shared masks: a generator makes several images from one mask.
    """
    return (
        *_duplicates(cohort, reports),
        *_in_both_parts(cohort),
        *_only_class(cohort),
        *_missing_masks(cohort),
        *_rare_modalities(cohort),
        *_colour_mismatches(cohort, reports),
        *_unknown_patients(cohort),
        *_unread_folders(cohort),
        *_unread_files(cohort),
        *_other_layouts(cohort),
        *_not_heads(cohort, reports),
        *_outside_regions(cohort, reports),
        *_doubtful_labels(cohort, reports),
        *_single_label(cohort, reports),
        *_unnamed_colours(cohort, reports),
        *(() if cohort.synthetic else _shared_masks(cohort, reports)),
        *_computed_tomography(cohort, reports),
        *(() if cohort.synthetic else _unstripped(cohort, reports, needs_skull_stripping)),
    )


def _unnamed_colours(cohort: Cohort, reports: Sequence[CaseReport]) -> Iterator[Finding]:
    """Masks in several colours without a labels.json, all of which are then read as one structure."""
    colours = sorted({colour for report in reports for colour in report.mask_colours})
    if len(colours) < 2 or all(len(set(colour)) == 1 for colour in colours):
        return
    masks = sum(bool(report.mask_colours) for report in reports)
    listed = ", ".join(map(str, colours[:MOST_COLOURS_NAMED])) + (", ..." if len(colours) > MOST_COLOURS_NAMED else "")
    problem = f"{masks} masks hold {len(colours)} colours ({listed}), and all are read as one structure"
    remedy = "name the colours, and which counts, in masks/labels.json"
    yield Finding.of_cohort(cohort, "unnamed-colours", "warning", problem, remedy)


def _shared_masks(cohort: Cohort, reports: Sequence[CaseReport]) -> Iterator[Finding]:
    owners: dict[str, list[tuple[Case, CaseReport]]] = {}
    for case, report in zip(cohort.cases, reports, strict=True):
        if report.mask_digest is not None:
            owners.setdefault(report.mask_digest, []).append((case, report))
    for (first, first_report), *others in owners.values():
        sharing = [case for case, report in others if report.digests != first_report.digests]
        if len(sharing) >= MOST_SHARING and first.mask is not None:
            problem = f"the mask is that of {sharing[0].id} and {len(sharing) - 1} more cases too, whose images differ"
            remedy = "check which image it belongs to"
            yield Finding.of_case(first, "shared-mask", "warning", problem, remedy, file=first.mask.files[0])


def _computed_tomography(cohort: Cohort, reports: Sequence[CaseReport]) -> Iterator[Finding]:
    """CT images: preparation scales every volume by its own intensities, so that Hounsfield units are lost."""
    named = {modality for case in cohort.cases for modality in case.images if CT_NAME.search(modality)}
    counts = Counter(modality for report in reports for modality in report.hounsfield if modality not in named)
    evidence = [
        *([f"{', '.join(sorted(named))} is CT by its name"] if named else []),
        *(f"{modality} is probably CT, in Hounsfield units, in {n} cases" for modality, n in sorted(counts.items())),
    ]
    if evidence:
        problem = f"{' and '.join(evidence)}; training scales every channel as MRI, which has no units"
        remedy = "clip it to a window of the tissue of interest first, and compare with a method for CT"
        yield Finding.of_cohort(cohort, "ct", "warning", problem, remedy)


def _duplicates(cohort: Cohort, reports: Sequence[CaseReport]) -> Iterator[Finding]:
    """Compare each case with the earlier ones: the same id, else the same voxels in any modality.

    Test cases come first, so that for an image in both parts the training copy is left out.
    """
    ids: set[str] = set()
    owners: dict[str, Case] = {}
    pairs = sorted(zip(cohort.cases, reports, strict=True), key=lambda pair: pair[0].part != "test")
    for case, report in pairs:
        shared = next((m for m, digest in report.digests.items() if digest in owners), None)
        if case.id in ids:
            remedy = "list every case once, under its own id"
            yield Finding.of_case(case, "duplicate-case", "error", "is listed twice", remedy)
        elif shared is not None:
            yield _duplicate_image(case, shared, owners[report.digests[shared]])
        ids.add(case.id)
        for digest in report.digests.values():
            owners.setdefault(digest, case)


def _duplicate_image(case: Case, modality: str, owner: Case) -> Finding:
    same = "is the same image" if are_of_pictures(case.images) else f"{modality} is the same image"
    other_class = "" if case.class_name == owner.class_name else f", which is of class {owner.class_name}"
    check = "duplicate-image"
    if owner.part == "test" != case.part:
        problem = f"{same} as the test case {owner.id}{other_class}"
        remedy = "leave it out of training, as --exclude-bad does"
    elif not case.patient_known:
        problem = f"{same} as {owner.id}{other_class}"
        remedy = "leave one out, as --exclude-bad does: they could be in training and test at once"
    elif case.patient == owner.patient:
        check, problem = "duplicate-case", f"{same} as in case {owner.id} of the same patient"
        remedy = "leave one of the two cases out"
    else:
        problem = f"{same} as in case {owner.id} of patient {owner.patient}"
        remedy = "leave one out, or name one patient: it could be in training and test at once"
    return Finding.of_case(case, check, "error", problem, remedy, file=case.images[modality].files[0])


def _in_both_parts(cohort: Cohort) -> Iterator[Finding]:
    """Training cases of patients who are in the authors' test part too."""
    test_patients = {case.patient for case in cohort.cases if case.part == "test"}
    for case in cohort.cases:
        if case.part == "train" and case.patient in test_patients:
            problem = f"is a training case of patient {case.patient}, who is tested on too"
            remedy = "leave it out of training, as --exclude-bad does"
            yield Finding.of_case(case, "patient-in-both-parts", "error", problem, remedy)


def _only_class(cohort: Cohort) -> Iterator[Finding]:
    if len(cohort.classes) == 1:
        problem = f"every picture is of one class, {cohort.classes[0]}"
        remedy = "add the other classes' folders, or correct the path"
        yield Finding.of_cohort(cohort, "one-class", "error", problem, remedy)


def _colour_mismatches(cohort: Cohort, reports: Sequence[CaseReport]) -> Iterator[Finding]:
    """Grey pictures in a cohort in colour, and coloured ones in a grey cohort, which are read alike."""
    for case, report in zip(cohort.cases, reports, strict=True):
        if report.coloured is None or report.coloured == are_colours(case.images):
            continue
        file = case.first_image.files[0]
        remedy = "look whether it belongs here, and leave it out if not"
        if report.coloured:
            problem = "is in colour, the cohort grey: its luminance is read"
            yield Finding.of_case(case, "colour-picture", "warning", problem, remedy, file=file)
        else:
            problem = "is grey, the cohort in colour: its grey level is read as red, green and blue"
            yield Finding.of_case(case, "grey-picture", "warning", problem, remedy, file=file)


def _unknown_patients(cohort: Cohort) -> Iterator[Finding]:
    unknown = sum(not case.patient_known for case in cohort.cases)
    if unknown:
        problem = (
            f"the patients of {unknown} pictures are unknown, so each counts as its own: "
            "a split may put one patient's pictures on both sides"
        )
        remedy = "name them in a patients.csv there, with the columns file,patient"
        yield Finding.of_cohort(cohort, "unknown-patients", "warning", problem, remedy)


def _unread_folders(cohort: Cohort) -> Iterator[Finding]:
    """Folders beside the cases with images that no case uses: misnamed ones would be ignored silently."""
    if not cohort.root.is_dir():
        return
    used = _used_files(cohort)
    used_folders = {parent for file in used for parent in file.parents}
    reader = find_reader(cohort.layout)
    expected = reader.unread_folders if reader else ()
    for folder in data_folders(cohort.root):
        if folder in used_folders or folder.resolve() in used_folders or folder.name.lower() in expected:
            continue
        image = next((file for file in files_below(folder, DEEPEST_UNREAD) if is_image(file)), None)
        if image is not None:
            problem = f"holds images, such as {image.name}, that layout {cohort.layout} does not read"
            yield Finding(folder.name, str(folder), "unread", "warning", problem, "name folder and files as the others")
        elif not any(files_below(folder, DEEPEST_UNREAD)):
            yield Finding(folder.name, str(folder), "unread", "warning", "is an empty folder", "fill it or remove it")


def _unread_files(cohort: Cohort) -> Iterator[Finding]:
    """Images beside those that are read: a mask whose image is missing or misnamed would be ignored silently."""
    reader = find_reader(cohort.layout)
    if not cohort.root.is_dir() or (reader and reader.lists_cases):
        return
    used = _used_files(cohort)
    folders = sorted({file.parent for file in used})
    beside = [file for folder in folders for file in data_files(folder) if is_image(file) and file not in used]
    if beside:
        count_text = counted(len(beside), "file lies", "files lie")
        problem = f"{count_text} beside the cases' own without being read, such as {beside[0]}"
        yield Finding.of_cohort(cohort, "unread", "warning", problem, "check that no image is missing or misnamed")


def _other_layouts(cohort: Cohort) -> Iterator[Finding]:
    if cohort.other_layouts and not cohort.synthetic:  # a synthesis has a manifest of its own folders
        others = ", ".join(cohort.other_layouts)
        problem = f"matches layout {others} too, and is read as {cohort.layout}"
        remedy = f"name the one that is meant, as in --layout {cohort.layout}"
        yield Finding.of_cohort(cohort, "two-layouts", "warning", problem, remedy)


def _not_heads(cohort: Cohort, reports: Sequence[CaseReport]) -> Iterator[Finding]:
    """Images of lungs, or crops without a background: then the images are of another kind, and the masks correct.

    Leaving out those cases alone would keep the ones without a lesion.
    """
    in_air = ("mask-outside", "error")
    outside = sum(any((each.check, each.severity) == in_air for each in report.findings) for report in reports)
    masks = sum(report.mask_digest is not None for report in reports)
    if outside >= FEWEST_IN_AIR and outside > MOST_IN_AIR * masks:
        problem = (
            f"{outside} of {masks} masks lie outside the detected head or brain, where training ignores them: "
            "the images probably do not show whole heads or brains"
        )
        yield Finding.of_cohort(cohort, "no-heads", "error", problem, "train on scans of whole heads or brains")


def _outside_regions(cohort: Cohort, reports: Sequence[CaseReport]) -> Iterator[Finding]:
    """Labels of no region, such as a resection cavity: the user must know that training ignores them."""
    counts = Counter(
        (value, name)
        for case, report in zip(cohort.cases, reports, strict=True)
        for name, value in case.scheme.outside_regions.items()
        if value in report.mask_values
    )
    for (value, name), masks in counts.items():
        problem = f"{masks} mask(s) hold {value} ({name}), which is read as background"
        remedy = "state another scheme with --labels if it means something else"
        yield Finding.of_cohort(cohort, "read-as-background", "warning", problem, remedy)


def _doubtful_labels(cohort: Cohort, reports: Sequence[CaseReport]) -> Iterator[Finding]:
    """Masks of gliomas with BraTS 2024's names that could be of 2021: both have a 4, but only 2024 has a 3."""
    values = {value for report in reports for value in report.mask_values}
    by_name = cohort.labels is None and any(case.scheme == BRATS_2024_GLI for case in cohort.cases)
    if by_name and 4 in values and 3 not in values:
        problem = "masks hold 4 and never 3: a 4 is the resection cavity in BraTS 2024, the enhancing tumour to 2021"
        remedy = "state which it is with --labels brats2024-gli or --labels brats"
        yield Finding.of_cohort(cohort, "doubtful-labels", "error", problem, remedy)


def _single_label(cohort: Cohort, reports: Sequence[CaseReport]) -> Iterator[Finding]:
    """Black-and-white masks read by a scheme of several tumour tissues, by which all lesion becomes one of them."""
    schemes = {case.scheme.describe(): case.scheme for case in cohort.cases}
    for scheme in schemes.values():
        masks = [
            {case.labels[value] for value in report.mask_values if value in case.labels} - {0}
            for case, report in zip(cohort.cases, reports, strict=True)
            if case.scheme == scheme
        ]
        masks = [labels for labels in masks if labels]
        several = len(set(scheme.to_our_labels.values()) - {0}) > 1
        if several and len(masks) >= FEWEST_OF_ONE_LABEL and len(set.union(*masks)) == 1:
            (only,) = masks[0]
            meanings = [
                f"{value} ({name})" for name, value in scheme.labels.items() if scheme.to_our_labels[value] == only
            ]
            problem = f"all {len(masks)} masks that mark something hold {' or '.join(meanings)} alone"
            remedy = "state --labels binary if it marks lesion of any kind"
            yield Finding.of_cohort(cohort, "single-label", "warning", problem, remedy)


def _used_files(cohort: Cohort) -> set[Path]:
    sources = [source for case in cohort.cases for source in (*case.images.values(), case.mask) if source is not None]
    return {file for source in sources for file in source.files}


def _missing_masks(cohort: Cohort) -> Iterator[Finding]:
    """Cases without a mask, where others have one; where none has, that is intended."""
    if all(case.mask is None for case in cohort.cases):
        return
    for case in cohort.cases:
        if case.mask is None:
            problem = "has no mask, which other cases have"
            remedy = "add it, or leave the case out of supervised training"
            yield Finding.of_case(case, "missing-mask", "warning", problem, remedy)


def _rare_modalities(cohort: Cohort) -> Iterator[Finding]:
    """Modalities that less than half of the cases have; a modality of more cases is expected in each."""
    counts = Counter(modality for case in cohort.cases for modality in case.images)
    for modality, count in counts.items():
        if 2 * count < len(cohort.cases):
            problem = f"{count} of {len(cohort.cases)} cases have {modality}, so training ignores it"
            remedy = "add it to the others if it was acquired"
            yield Finding.of_cohort(cohort, "rare-modality", "warning", problem, remedy)


def _unstripped(cohort: Cohort, reports: Sequence[CaseReport], needed: bool) -> Iterator[Finding]:
    """Full heads, where brains are needed or other cases are brains: a network would learn to distinguish the sites."""
    mixed = any(report.skull_stripped for report in reports)
    if not (needed or mixed):
        return
    for case, report in zip(cohort.cases, reports, strict=True):
        if report.skull_stripped is False:
            problem = "is not skull-stripped, which " + ("this recipe expects" if needed else "other cases are")
            yield Finding.of_case(case, "not-skull-stripped", "warning", problem, f"strip it with {STRIPPERS}")
