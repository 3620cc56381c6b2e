"""Files and folders that are either there whole or not there: written beside, then renamed. Modes follow the umask."""

from __future__ import annotations

import csv
import errno
import glob
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ganseg_dist.errors import GansegError

UNFINISHED = ".unfinished-"
"""How the names of what is being written begin."""
OWNERS_ALONE = 0o700
"""Mode of a folder that nobody else may enter."""


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
        unfinished = path.parent / f"{UNFINISHED}{secrets.token_hex(8)}{suffix}"
        try:
            save_new(unfinished, save)
            _flush(unfinished)
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise refused(path, error) from None


def save_new(path: Path, save: Callable[[Path], object]) -> None:
    """Let `save` write a new file, whose mode is what the umask leaves of 0666.

    For whatever sets a mode of its own, as safetensors does (0600). The mode is taken from the new file: to ask for
    the umask is to change it, for all threads.

    Raises FileExistsError when there is a file already.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    save(path)
    path.chmod(mode)


def write_text(path: Path, text: str) -> None:
    """Replace a file's text. Raises GansegError naming the file when the disk refuses.

    Bytes of a file's name that are no UTF-8, which Python keeps as surrogates, are written as escapes.
    """
    write_file(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8", errors="backslashreplace"))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a CSV file; columns in the order in which they first appear, empty where a row has none."""
    lines = _Lines()
    writer = csv.DictWriter(lines, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, "".join(lines))


class _Lines(list[str]):
    """What a CSV writer writes, a row at a time. It quotes a carriage return only where lines end in one."""

    def write(self, line: str) -> None:
        self.append(line.removesuffix("\r\n") + "\n")


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


def copy_files(folder: Path, to: Path) -> None:
    """Copy a folder's own files into another folder, as new files: without their modes and without links."""
    for file in folder.iterdir():
        shutil.copyfile(file, to / file.name)


def with_modes_of_new(folder: Path) -> None:
    """Give all below a folder the modes that the umask leaves to new files and folders: copies have their sources'."""
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        new_file, new_folder = Path(beside) / "file", Path(beside) / "folder"
        new_file.touch()
        new_folder.mkdir()
        file_mode, folder_mode = new_file.stat().st_mode, new_folder.stat().st_mode
    for path in folder.rglob("*"):
        path.chmod(stat.S_IMODE(folder_mode if path.is_dir() else file_mode))


def private_folder(folder: Path) -> None:
    """Make a folder that nobody but its owner may enter, whatever the umask is; one that is there becomes so.

    Raises OSError where it is somebody else's.
    """
    folder.mkdir(mode=OWNERS_ALONE, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(OWNERS_ALONE)


def _put_back(folder: Path) -> None:
    """The earlier folder, where a writer moved it aside and put nothing in its place."""
    aside = folder.parent.glob(f"{UNFINISHED}*/earlier-{glob.escape(folder.name)}")
    if not folder.exists() and (earlier := next(aside, None)):
        earlier.rename(folder)


def _flush(path: Path) -> None:
    """To the disk, before the rename makes it the file."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
