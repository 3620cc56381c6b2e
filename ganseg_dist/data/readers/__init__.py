"""Layout readers: one module a layout, with its `Reader` as READER; they are tried in turn.

Installed packages add readers of their own, see `ganseg_dist.registry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from ganseg_dist.data.cohort import Case, Cohort
from ganseg_dist.data.labels import BINARY, SCHEMES, UNSTATED, LabelScheme, is_scheme_path, read_scheme
from ganseg_dist.data.listing import check_file, data_files, data_folders, files_below, is_image
from ganseg_dist.data.readers.shared.base import Reader
from ganseg_dist.errors import ConfigError, DataError
from ganseg_dist.files import open_regular
from ganseg_dist.registry import readers
from ganseg_dist.suggestion import suggestion

UNREAD_FORMATS = {
    ".dcm": "DICOM",
    ".ima": "DICOM",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
    ".nrrd": "NRRD",
    ".mgh": "FreeSurfer",
    ".mgz": "FreeSurfer",
    ".hdr": "Analyze",
}
"""Suffix to the name of a format that is not read, for the error message."""

UNREAD_DEPTH, UNREAD_FILES = 6, 5000
"""Depth of folders, and number of files, that are searched for such a format."""


def read_cohort(root: Path, layout: str | None = None, labels: str | None = None, *, with_masks: bool = True) -> Cohort:
    """Every case under `root`, still on disk; without a layout, by the first reader that recognises `root`.

    Args:
        labels: one of SCHEMES or a JSON file, for all masks, in place of the layout's; None: the layout's.
        with_masks: whether masks will be read, so that their label schemes must be known.

    Raises ConfigError for an unknown layout or scheme, and DataError where nothing can be read there, or where a
    mask's label scheme is unknown.
    """
    if layout is not None and layout not in readers():
        raise ConfigError(f"layout {layout}: no such layout; choose one of {_names()}")
    scheme = None if labels is None else resolve_scheme(labels)
    _check_place(root)
    matching = matching_readers(root) if layout is None else [readers()[layout]]
    if not matching:
        if unread := _describe_unread_format(root):
            raise DataError(
                f"{root}: holds {unread}, which are not read; convert them to .nii.gz and give their folder"
            )
        raise DataError(
            f"{root}: no known layout recognised ({_names()}); list the files in a CSV manifest "
            "with the columns case,patient,site,<one per modality>,mask and give that instead"
        )
    reader, *others = matching
    if scheme not in (None, BINARY) and not reader.takes_labels:
        raise ConfigError(f"--labels {labels}: masks of layout {reader.name} show one structure; leave it out")
    cases = reader.cases(root, scheme if with_masks else UNSTATED)
    if not cases:
        raise DataError(f"{root}: holds no cases in layout {reader.name} ({reader.describes}); check the path")
    if with_masks:
        _check_schemes_known(root, cases)
    return Cohort(root, reader.name, cases, tuple(other.name for other in others), labels)


def resolve_scheme(labels: str) -> LabelScheme:
    """The scheme of this name, or in this JSON file. Raises ConfigError or DataError where there is none."""
    if is_scheme_path(labels):
        return read_scheme(Path(labels))
    if labels not in SCHEMES:
        choices = f"choose one of {', '.join(SCHEMES)}, or give a JSON file"
        raise ConfigError(f"--labels {labels}: no such label scheme; {suggestion(labels, SCHEMES, choices)}")
    return SCHEMES[labels]


def find_reader(layout: str) -> Reader | None:
    """The reader of this name; None for a cohort in no layout."""
    return readers().get(layout)


def matching_readers(root: Path) -> list[Reader]:
    """The readers that recognise `root`, in the order in which they are tried."""
    return [reader for reader in readers().values() if reader.recognises(root)]


def _check_place(root: Path) -> None:
    """Raises DataError where `root` is missing or empty, or cannot be listed or opened."""
    remedy = "give the folder that holds the cohort, or a CSV manifest"
    try:
        is_folder = root.is_dir()
        is_missing = not is_folder and not root.exists() and not root.is_symlink()
    except OSError as error:
        raise DataError(f"{root}: cannot be opened ({error.strerror}); check its permissions, or {remedy}") from None
    if is_missing:
        raise DataError(f"{root}: no such file or folder; {remedy}")
    if not is_folder:
        check_file(root)
    elif not any(data_files(root)) and not any(data_folders(root)):
        raise DataError(f"{root}: is an empty folder; {remedy}")


def _describe_unread_format(root: Path) -> str | None:
    """The unread formats in a folder without readable images, such as `DICOM files (scan/1.dcm)`; else None."""
    if not root.is_dir():
        return None
    examples: dict[str, Path] = {}
    for file in islice(files_below(root, UNREAD_DEPTH), UNREAD_FILES):
        if is_image(file):
            return None
        if (kind := UNREAD_FORMATS.get(file.suffix.lower(), "DICOM" if _starts_as_dicom(file) else None)) is not None:
            examples.setdefault(kind, file)
    return " and ".join(f"{kind} files ({file.relative_to(root)})" for kind, file in examples.items()) or None


def _starts_as_dicom(file: Path) -> bool:
    """Whether DICM follows the preamble of 128 bytes; series are often stored without a suffix."""
    try:
        with open_regular(file) as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _check_schemes_known(root: Path, cases: Sequence[Case]) -> None:
    unstated = [case for case in cases if case.mask is not None and case.scheme == UNSTATED]
    if unstated:
        schemes = "; ".join(f"{name} ({scheme.describe()})" for name, scheme in SCHEMES.items())
        raise DataError(
            f"{root}: neither the name of {unstated[0].id} nor its files state what the values of its mask mean; "
            f"state it with --labels SCHEME or FILE.json, or a column labels in a manifest: {schemes}"
        )


def _names() -> str:
    return ", ".join(readers())
