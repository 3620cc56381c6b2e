"""Checks before anything trains: every problem of a cohort, one finding a line, with its file and remedy."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ganseg_dist.data.alignment import better_moves
from ganseg_dist.data.cohort import Case, Cohort, Source, are_colours, are_of_pictures
from ganseg_dist.data.colours import colour_channels, shows_colour
from ganseg_dist.data.foreground import Mask, foreground_mask, is_skull_stripped
from ganseg_dist.data.grid import Flaw, Grid, Volume, distinct_notes, grid_flaw, reference_grid, reorient
from ganseg_dist.data.labels import BRATS_2024_GLI, Labels
from ganseg_dist.data.listing import data_files, data_folders, files_below, is_image, is_nifti
from ganseg_dist.data.mask_doubts import MOST_OUTSIDE, has_soft_edges, mask_doubt, share_outside
from ganseg_dist.data.mask_values import LEAST_BRIGHT
from ganseg_dist.data.picture import is_lossy, is_partly_transparent, load_picture, orientation
from ganseg_dist.data.preprocess import from_picture_axes, to_picture_axes
from ganseg_dist.data.readers import find_reader
from ganseg_dist.data.scan import LoadedMask, load_mask, load_mask_values, load_volume, voxel_flaw
from ganseg_dist.errors import DataError, one_line
from ganseg_dist.plural import counted

Severity = Literal["error", "warning"]

STRIPPERS = "HD-BET or SynthStrip"

MOST_MASK_LEVELS = 64
"""Most grey levels of a mask that is not blurred; one that was blurred or once a JPEG has more."""

MOST_COLOURS_NAMED = 5

FEWEST_OF_ONE_LABEL = 3
"""Least number of masks with one and the same label that is no coincidence."""

FEWEST_IN_AIR, MOST_IN_AIR = 3, 0.1
"""Least number of masks outside the head, and their share of those that are not empty, that are no single mistakes."""

CT_NAME = re.compile(r"(?<![a-z0-9])(ct|cta|ctp|ncct|cect|cbct|ldct)(?![a-z0-9])|computed.?tomography", re.IGNORECASE)
"""Matches whole words: t1ct and cT1 are MRI with contrast."""
AIR_HU, SOFT_HU = (-1100, -900), (-200, 300)
LOWEST_PADDING = 4096
"""Lowest plausible value, negated: scanners pad the area outside their field of view with such values."""
LEAST_OF_CT = 0.01
"""Least share of the voxels that is air, and soft tissue, in CT; a smaller share lies between air and padding."""
MOST_SAMPLED = 128
"""Most voxels along an axis that are examined for it."""

COHORT = ""
"""`Finding.case` of a finding about the whole cohort."""

DEEPEST_UNREAD = 6
"""Depth to which a folder beside the cases is searched for images."""

MOST_SHARING = 3
"""Least number of further cases with the same mask that is reported: a patient's sequences often share one mask."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem of one case, or of the cohort."""

    case: str
    """`COHORT` where it concerns the whole cohort."""
    file: str
    check: str
    """A short stable name, such as `labels` or `duplicate-image`."""
    severity: Severity
    """An error spoils training or scores; a warning needs a look by the user."""
    problem: str
    remedy: str

    @classmethod
    def of_cohort(cls, cohort: Cohort, check: str, severity: Severity, problem: str, remedy: str) -> Finding:
        """A finding about the whole cohort."""
        return cls(COHORT, str(cohort.root), check, severity, problem, remedy)

    @classmethod
    def of_case(
        cls, case: Case, check: str, severity: Severity, problem: str, remedy: str, *, file: Path | None = None
    ) -> Finding:
        """A finding about a case's file; without a file, about the folder of its first image."""
        return cls(case.id, str(file or _first_image(case).files[0].parent), check, severity, problem, remedy)

    @classmethod
    def of_flaw(cls, case: Case, file: Path, flaw: Flaw, severity: Severity = "error") -> Finding:
        """A finding about a file's flaw."""
        return cls(case.id, str(file), flaw.check, severity, flaw.problem, flaw.remedy)

    def line(self) -> str:
        """One line for a terminal or a log."""
        return f"{self.severity}: {self.message}"

    @property
    def message(self) -> str:
        """The line without its severity."""
        sentence = "; ".join(filter(None, (self.problem, self.remedy)))
        return ": ".join(filter(None, (self.case, self.file, sentence)))


@dataclass(frozen=True, slots=True)
class CaseReport:
    """Findings of one case, and what is needed to compare cases without reading them again."""

    findings: tuple[Finding, ...]
    digests: Mapping[str, str] = field(default_factory=dict)
    """Modality to a hash of its shape and voxels; constant volumes have none."""
    mask_digest: str | None = None
    """A hash of the mask's labels; None where it is empty or cannot be used."""
    skull_stripped: bool | None = None
    """None where no modality could be used, or the case is a picture."""
    coloured: bool | None = None
    """Whether a picture, stored in colour or grey, is coloured; None for other scans."""
    mask_colours: tuple[tuple[int, int, int], ...] = ()
    """Colours other than black of a mask in which every pixel that is not black counts."""
    hounsfield: tuple[str, ...] = ()
    """Modalities whose voxels are probably CT, in Hounsfield units."""
    mask_values: tuple[int, ...] = ()
    """The stored values in the mask that the case's labels define, without background."""


def expected_modalities(cohort: Cohort) -> tuple[str, ...]:
    """Modalities that at least half of the cases have, in the order they are met."""
    counts = Counter(modality for case in cohort.cases for modality in case.images)
    return tuple(modality for modality, count in counts.items() if 2 * count >= len(cohort.cases))


def check_case(case: Case, *, expected_modalities: Sequence[str] = ()) -> CaseReport:
    """Read one case and check its files, grids, voxels and mask. Never raises on bad data.

    A defective modality or mask is left out of the later checks, and equal findings of one file's channels are
    merged, so that one defect gives one finding.
    """
    try:
        return _examine(case, expected_modalities)
    except MemoryError:
        raise  # a limit of the machine, not a defect of the case
    except Exception as error:  # unusual voxels must not stop the check of the other cases
        problem = f"cannot be checked ({one_line(error, longest=120)})"
        remedy = "look at its images; leave the case out if they are no scans"
        return CaseReport((Finding.of_case(case, "unchecked", "error", problem, remedy),))


def _examine(case: Case, expected_modalities: Sequence[str]) -> CaseReport:
    findings = list(_missing_modalities(case, expected_modalities))
    volumes: dict[str, Volume] = {}
    grids: dict[str, Grid] = {}
    for modality, source in case.images.items():
        try:
            volumes[modality], grids[modality] = load_volume(source)
        except DataError as error:
            findings.append(_unreadable(case, source, error))
    reference = reference_grid(list(grids.values())) if grids else None
    constant = {modality for modality, volume in volumes.items() if volume.min() == volume.max()}
    in_colour = are_colours(case.images)
    readable = {}
    for modality, volume in volumes.items():
        misplaced = grid_flaw(grids[modality], reference) if reference is not None else None
        flaws = [flaw for flaw in (misplaced, voxel_flaw(modality, volume)) if flaw is not None]
        # One colour of a picture may be constant.
        if not flaws and modality in constant and not (in_colour and constant < set(volumes)):
            subject = "is of a single colour" if in_colour else f"{modality} is constant ({volume.flat[0]:g})"
            flaws = [Flaw("constant", f"{subject}, so it shows nothing", "export it again or leave the case out")]
        findings += [Finding.of_flaw(case, _file(case, modality), flaw) for flaw in flaws]
        if not flaws and reference is not None:
            readable[modality] = reorient(volume, grids[modality], reference)
    findings += _missing_slices(case)
    findings += _mismatched_slice_numbers(case)
    digests = {
        # On common axes, an image that is stored with other axes has the same digest.
        modality: _digest(to_picture_axes(volume, grids[modality]))
        for modality, volume in volumes.items()
        if modality not in constant
    }
    mask = None
    if case.mask is not None and (copy := _copy_of_image(case, case.mask, digests)):
        findings.append(copy)
    elif case.mask is not None:
        try:
            mask = load_mask(case, case.mask)
        except DataError as error:
            findings.append(_unreadable(case, case.mask, error))
    usable = mask is not None and not mask.flaw and mask.labels.any()
    findings += _header_notes(case, grids, mask.grid if mask is not None else None)
    is_picture = are_of_pictures(case.images)
    if not is_picture:
        findings += [*_copied_modalities(case, digests), *_unregistered(case, readable)]
    foreground = stripped = None  # a picture in colour is foreground everywhere
    if readable and reference is not None and not in_colour:
        image = np.stack([to_picture_axes(volume, reference) for volume in readable.values()])  # as prepared
        in_picture_axes = foreground_mask(image)
        foreground = from_picture_axes(in_picture_axes, reference)
        stripped = None if is_picture else is_skull_stripped(image, in_picture_axes, reference.spacing_mm)
    findings += _mask_findings(case, mask, reference, foreground)
    first_file = _first_image(case).files[0]
    return CaseReport(
        tuple(dict.fromkeys(findings)),
        digests,
        _digest(to_picture_axes(mask.labels, mask.grid)) if mask is not None and usable else None,
        skull_stripped=stripped,
        coloured=shows_colour(first_file) if is_picture and readable and not is_nifti(first_file) else None,
        mask_colours=_mask_colours(case) if is_picture else (),
        hounsfield=() if is_picture else tuple(name for name, volume in readable.items() if _in_hounsfield(volume)),
        mask_values=mask.values if mask is not None else (),
    )


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


def _missing_modalities(case: Case, expected: Sequence[str]) -> Iterator[Finding]:
    missing = [modality for modality in expected if modality not in case.images]
    if missing:
        problem = f"has no {', '.join(missing)}, which other cases have"
        yield Finding.of_case(case, "missing-modality", "error", problem, "add the file or leave the case out")


def _unreadable(case: Case, source: Source, error: DataError) -> Finding:
    """A finding from the loader's error, which reads `file: problem; remedy` and names the file of a stack."""
    message = str(error)
    file = next((file for file in source.files if message.startswith(f"{file}: ")), source.files[0])
    problem, _, remedy = message.removeprefix(f"{file}: ").rpartition("; ")
    return Finding.of_case(case, "unreadable", "error", problem, remedy, file=file)


def _header_notes(case: Case, grids: Mapping[str, Grid], mask_grid: Grid | None) -> Iterator[Finding]:
    """Contradictions and gaps in the files' headers, each once per case."""
    files = [(_file(case, modality), grid) for modality, grid in grids.items()]
    if case.mask is not None and mask_grid is not None:
        files.append((case.mask.files[0], mask_grid))
    for file, note in distinct_notes(files):
        yield Finding.of_flaw(case, file, note, "warning")


def _digest(volume: Volume | Labels) -> str:
    content = hashlib.blake2b(str(volume.shape).encode(), digest_size=16)
    content.update(np.ascontiguousarray(volume).data)
    return content.hexdigest()


def _copied_modalities(case: Case, digests: Mapping[str, str]) -> Iterator[Finding]:
    first_with: dict[str, str] = {}
    for modality, digest in digests.items():
        if digest in first_with:
            problem = f"{modality} is a copy of {first_with[digest]}"
            remedy = "replace it, or train without it if it was never acquired"
            yield Finding.of_case(case, "copied-modality", "warning", problem, remedy, file=_file(case, modality))
        first_with.setdefault(digest, modality)


def _unregistered(case: Case, volumes: Mapping[str, Volume]) -> Iterator[Finding]:
    for modality, move in better_moves(volumes).items():
        problem = f"{modality} does not lie on the other modalities: {move} would bring it closer"
        remedy = "look at the case, and register its modalities to each other"
        yield Finding.of_case(case, "unregistered", "warning", problem, remedy, file=_file(case, modality))


def _copy_of_image(case: Case, mask: Source, digests: Mapping[str, str]) -> Finding | None:
    """A finding where the mask's file, read as the first image is, holds the voxels of an image."""
    image = _first_image(case)
    try:
        volume, grid = load_volume(replace(image, files=mask.files))
    except DataError:
        return None  # the mask has no such channel
    if _digest(to_picture_axes(volume, grid)) not in digests.values():
        return None
    problem, remedy = "the mask is the image itself", "put the mask in its place"
    return Finding.of_case(case, "copied-mask", "error", problem, remedy, file=mask.files[0])


def _mask_findings(
    case: Case, mask: LoadedMask | None, reference: Grid | None, foreground: Mask | None
) -> Iterator[Finding]:
    if case.mask is None or mask is None:
        return
    file = case.mask.files[0]
    misplaced = grid_flaw(mask.grid, reference) if reference is not None else None
    if misplaced is not None:
        yield Finding.of_flaw(case, file, misplaced)
    if mask.flaw is not None:
        yield Finding.of_flaw(case, file, mask.flaw)
    elif not mask.labels.any():
        yield _empty_mask(case, case.mask)
    elif blurred := list(_blurred_mask(case, case.mask)):
        yield from blurred
    elif reference is not None and misplaced is None:
        yield from _doubtful_mask(case, file, reorient(mask.labels, mask.grid, reference) > 0, foreground)
        yield from _turned_mask(case, case.mask)


def _empty_mask(case: Case, mask: Source) -> Finding:
    """An empty-mask finding, with the reason where pixels are marked that do not count."""
    file, reason_text = mask.files[0], ""
    if not is_nifti(file):
        brightest = load_volume(Source(mask.files, mask.channel))[0].max()
        if brightest > 0 and is_lossy(file):
            reason_text = (
                f": its brightest value is {brightest:.0f}, and a JPEG below {LEAST_BRIGHT} shows nothing but noise"
            )
        elif any(is_partly_transparent(file) for file in mask.files):
            reason_text = ": its opaque pixels are black"
    remedy = "check that this case has no lesion"
    return Finding.of_case(case, "empty-mask", "warning", f"the mask is empty{reason_text}", remedy, file=file)


def _doubtful_mask(case: Case, file: Path, marked: Mask, foreground: Mask | None) -> Iterator[Finding]:
    """A warning for pictures, which may show anything; an error where most of a scan's mask lies in the air."""
    is_picture = are_of_pictures(case.images)
    if flaw := mask_doubt(marked, foreground, is_picture=is_picture):
        in_air = not is_picture and share_outside(marked, foreground) > MOST_OUTSIDE
        severity: Severity = "error" if in_air else "warning"
        yield Finding.of_flaw(case, file, flaw, severity)


def _turned_mask(case: Case, mask: Source) -> Iterator[Finding]:
    """Image and mask with different EXIF orientations that do not show in their sizes."""
    image = _first_image(case)
    for file, mask_file in zip(image.files, mask.files, strict=False):
        if (
            is_nifti(file)
            or is_nifti(mask_file)
            or (turn := orientation(file)) == (mask_turn := orientation(mask_file))
        ):
            continue
        rows, columns = load_picture(file).shape[:2]
        if rows != columns and (turn > 4) != (mask_turn > 4):
            continue
        problem = f"its image is displayed by EXIF orientation {turn}, the mask by {mask_turn}"
        remedy = "look whether they lie on each other, and save both upright"
        yield Finding.of_case(case, "turned-mask", "warning", problem, remedy, file=mask_file)
        return


def _blurred_mask(case: Case, mask: Source) -> Iterator[Finding]:
    """A blurred mask in which every pixel that is not black counts, and so does the blur's dark rim."""
    file = mask.files[0]
    if mask.reads != "not black" or is_lossy(file):
        return
    values, _ = load_mask_values(replace(mask, reads=None))
    levels = len(np.unique(values))
    if levels > MOST_MASK_LEVELS:
        problem = f"the mask has {levels} grey levels, and all but black is taken for the structure"
        yield Finding.of_case(case, "blurred-mask", "warning", problem, "save it in black and white", file=file)
    elif has_soft_edges(values):
        problem = (
            f"the mask has soft edges in {levels - 2} shades of grey, and all but black is taken for the structure"
        )
        yield Finding.of_case(case, "blurred-mask", "warning", problem, "save it without anti-aliasing", file=file)


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


def _in_hounsfield(volume: Volume) -> bool:
    """Whether these are whole numbers with air around -1000, soft tissue around 0, and only padding below air."""
    if not -LOWEST_PADDING <= (lowest := float(volume.min())) <= max(AIR_HU):
        return False
    sample = volume[tuple(slice(None, None, 1 + side // MOST_SAMPLED) for side in volume.shape)]
    if not np.array_equal(sample, np.rint(sample)):
        return False
    air, soft = (float(((sample >= low) & (sample <= high)).mean()) for low, high in (AIR_HU, SOFT_HU))
    below = float(((sample < min(AIR_HU)) & (sample > lowest)).mean())
    return min(air, soft) >= LEAST_OF_CT and below < LEAST_OF_CT


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
    return Finding.of_case(case, check, "error", problem, remedy, file=_file(case, modality))


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
        file = _first_image(case).files[0]
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


def _mask_colours(case: Case) -> tuple[tuple[int, int, int], ...]:
    """Colours of the first mask; empty where it cannot be read or is blurred, which other findings report."""
    if case.mask is None or case.mask.reads != "not black":
        return ()
    try:
        if is_lossy(case.mask.files[0]):
            return ()
        codes = np.unique(load_mask_values(replace(case.mask, reads="colour code"))[0])
    except DataError:
        return ()
    marked = codes[codes > 0]
    return tuple(colour_channels(int(code)) for code in marked) if len(marked) < MOST_MASK_LEVELS else ()


def _missing_slices(case: Case) -> Iterator[Finding]:
    """A gap in the numbers of a stack's slices, across which two slices would be taken for neighbours."""
    for files in {source.files for source in case.images.values() if len(source.files) > 1}:
        numbers = _slice_numbers(files)
        if not numbers:
            continue
        missing = sorted(set(range(min(numbers), max(numbers))) - set(numbers))
        if missing:
            problem = f"lacks slice {missing[0]} between {numbers[0]} and {numbers[-1]}"
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            remedy = "add the file, or leave the case out"
            yield Finding.of_case(case, "missing-slice", "error", problem + more, remedy, file=files[0].parent)


def _mismatched_slice_numbers(case: Case) -> Iterator[Finding]:
    """A mask whose slice numbers differ from the image's: slices are paired by their order, not by their numbers."""
    if case.mask is None:
        return
    image_numbers, mask_numbers = (_slice_numbers(source.files) for source in (_first_image(case), case.mask))
    if len(image_numbers) == len(mask_numbers) and sorted(image_numbers) != sorted(mask_numbers):
        ranges = [f"{min(numbers)} to {max(numbers)}" for numbers in (mask_numbers, image_numbers)]
        problem = (
            f"the mask's slices are numbered {ranges[0]}, the image's {ranges[1]}; each lies on the one in its place"
        )
        remedy = "look whether they belong together, and number them alike"
        yield Finding.of_case(case, "slice-numbers", "warning", problem, remedy, file=case.mask.files[0])


def _slice_numbers(files: Sequence[Path]) -> list[int]:
    """The last number in each name; empty unless there are several files and each has one."""
    numbers = [int(digits[-1]) for file in files if (digits := re.findall(r"\d+", file.stem))]
    return numbers if len(numbers) == len(files) > 1 else []


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


def _file(case: Case, modality: str) -> Path:
    return case.images[modality].files[0]


def _first_image(case: Case) -> Source:
    return next(iter(case.images.values()))
