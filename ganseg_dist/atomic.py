"""Files and folders that are either there whole or not there: written beside, then renamed."""

from __future__ import annotations

import csv
import errno
import glob
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ganseg_dist.errors import GansegError

UNFINISHED = ".unfinished-"
"""How the names of what is being written begin."""


def refused(path: Path, error: OSError) -> GansegError:
    """What to raise when the disk refuses a file or folder, called by where it would have been in the end."""
    path = Path(*(part for part in path.parts if not part.startswith(UNFINISHED)))
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    mend = "free space" if full else "mend its permissions"
    return GansegError(f"{path}: cannot be written ({error.strerror or error}); {mend} or choose another folder")


def write_file(path: Path, save: Callable[[Path], object]) -> None:
    """Replace a file by what `save` writes to the path it is given, which ends in the same suffixes.

    Raises GansegError naming the file when the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two suffixes, because .nii.gz tells nibabel more than .gz does.
        suffix = "".join(path.suffixes[-2:])
        descriptor, name = tempfile.mkstemp(prefix=UNFINISHED, suffix=suffix, dir=path.parent)
        unfinished = Path(name)
        os.close(descriptor)
        try:
            save(unfinished)
            _flush(unfinished)
            unfinished.chmod(0o644)
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise refused(path, error) from None


def write_text(path: Path, text: str) -> None:
    """Replace a file's text. Raises GansegError naming the file when the disk refuses."""
    write_file(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a CSV file; columns in the order in which they first appear, empty where a row has none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `folder` when everything in it has been written.

    Raises GansegError naming the folder when the disk refuses; what was there before is then still there. After a
    kill between the two renames it is there again from the next call on.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _put_back(folder)
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder.parent) as beside:
            unfinished = Path(beside) / folder.name
            unfinished.mkdir()
            yield unfinished
            try:
                if folder.exists():
                    folder.rename(Path(beside) / f"earlier-{folder.name}")
                unfinished.rename(folder)
            finally:
                _put_back(folder)
    except OSError as error:
        raise refused(folder, error) from None


def _put_back(folder: Path) -> None:
    """The earlier folder, where a writer moved it aside and put nothing in its place."""
    aside = folder.parent.glob(f"{UNFINISHED}*/earlier-{glob.escape(folder.name)}")
    if not folder.exists() and (earlier := next(aside, None)):
        earlier.rename(folder)


def _flush(path: Path) -> None:
    """To the disk, before the rename makes it the file."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
