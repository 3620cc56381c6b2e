"""Checks of one case: its files, grids, voxels and mask."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ganseg_dist.data.alignment import better_moves
from ganseg_dist.data.checks.finding import CaseReport, Finding, Severity
from ganseg_dist.data.cohort import Case, Source, are_colours, are_of_pictures
from ganseg_dist.data.colours import colour_channels, shows_colour
from ganseg_dist.data.foreground import Mask, foreground_mask, is_skull_stripped
from ganseg_dist.data.grid import Flaw, Grid, Volume, distinct_notes, grid_flaw, reference_grid, reorient
from ganseg_dist.data.labels import Labels
from ganseg_dist.data.listing import is_nifti
from ganseg_dist.data.mask_doubts import MOST_OUTSIDE, has_soft_edges, mask_doubt, share_outside
from ganseg_dist.data.mask_values import LEAST_BRIGHT
from ganseg_dist.data.picture import is_lossy, is_partly_transparent, load_picture, orientation
from ganseg_dist.data.preprocess import from_picture_axes, to_picture_axes
from ganseg_dist.data.scan import LoadedMask, load_mask, load_mask_values, load_volume, voxel_flaw
from ganseg_dist.errors import DataError, one_line

MOST_MASK_LEVELS = 64
"""Most grey levels of a mask that is not blurred; one that was blurred or once a JPEG has more."""

AIR_HU, SOFT_HU = (-1100, -900), (-200, 300)

LOWEST_PADDING = 4096
"""Lowest plausible value, negated: scanners pad the area outside their field of view with such values."""

LEAST_OF_CT = 0.01
"""Least share of the voxels that is air, and soft tissue, in CT; a smaller share lies between air and padding."""

MOST_SAMPLED = 128
"""Most voxels along an axis that are examined for it."""


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
        findings += [Finding.of_flaw(case, case.images[modality].files[0], flaw) for flaw in flaws]
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
    first_file = case.first_image.files[0]
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
    files = [(case.images[modality].files[0], grid) for modality, grid in grids.items()]
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
            yield Finding.of_case(
                case, "copied-modality", "warning", problem, remedy, file=case.images[modality].files[0]
            )
        first_with.setdefault(digest, modality)


def _unregistered(case: Case, volumes: Mapping[str, Volume]) -> Iterator[Finding]:
    for modality, move in better_moves(volumes).items():
        problem = f"{modality} does not lie on the other modalities: {move} would bring it closer"
        remedy = "look at the case, and register its modalities to each other"
        yield Finding.of_case(case, "unregistered", "warning", problem, remedy, file=case.images[modality].files[0])


def _copy_of_image(case: Case, mask: Source, digests: Mapping[str, str]) -> Finding | None:
    """A finding where the mask's file, read as the first image is, holds the voxels of an image."""
    image = case.first_image
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
    image = case.first_image
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
    image_numbers, mask_numbers = (_slice_numbers(source.files) for source in (case.first_image, case.mask))
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
