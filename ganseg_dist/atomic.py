"""Atomic writes: files and folders are written under a temporary name, then renamed. Modes follow the umask."""

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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ganseg_dist.errors import GansegError

UNFINISHED = ".unfinished-"
"""Prefix of the names of files and folders that are being written."""
OWNERS_ALONE = 0o700
"""Mode of a folder that only its owner may enter."""


def write_error(path: Path, error: OSError) -> GansegError:
    """The error to raise when a file or folder cannot be written; it names the final path, not the temporary one."""
    path = Path(*(part for part in path.parts if not part.startswith(UNFINISHED)))
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "free space" if full else "correct its permissions"
    return GansegError(f"{path}: cannot be written ({error.strerror or error}); {remedy} or choose another folder")


def write_file(path: Path, save: Callable[[Path], object]) -> None:
    """Replace a file by the one that `save` writes to a temporary path with the same suffixes.

    Raises GansegError naming the file when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two suffixes, as nibabel needs all of .nii.gz.
        suffix = "".join(path.suffixes[-2:])
        unfinished = path.parent / f"{UNFINISHED}{secrets.token_hex(8)}{suffix}"
        try:
            save_new(unfinished, save)
            _flush(unfinished)  # before the rename
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise write_error(path, error) from None


def save_new(path: Path, save: Callable[[Path], object]) -> None:
    """Let `save` write a new file, whose mode is 0666 less the umask.

    For writers that set another mode, as safetensors does (0600). The mode is read from the new file, because
    the umask can only be read by changing it, for all threads.

    Raises FileExistsError when the file exists.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    save(path)
    path.chmod(mode)


def write_text(path: Path, text: str) -> None:
    """Replace a file's text. Raises GansegError naming the file when it cannot be written.

    Lone surrogates, with which Python keeps bytes of file names that are no UTF-8, are written as escapes.
    """
    write_file(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8", errors="backslashreplace"))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a CSV file; columns are in order of first appearance, with empty cells for missing values."""
    lines = _Lines()
    writer = csv.DictWriter(lines, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, "".join(lines))


class _Lines(list[str]):
    """Collects a CSV writer's rows. The writer ends lines in CR LF, as it quotes carriage returns only then."""

    def write(self, line: str) -> None:
        self.append(line.removesuffix("\r\n") + "\n")


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


@contextmanager
def unfinished_folder(parent: Path) -> Iterator[Path]:
    """A new folder inside `parent`, to be renamed when it is whole; at the end it is deleted where it still exists.

    Unlike `tempfile`'s, it has the umask's mode.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f"{UNFINISHED}{secrets.token_hex(8)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def discard_folder(folder: Path) -> None:
    """Delete a folder that other processes may open or delete: it is renamed first, so that it vanishes as a whole."""
    aside = folder.parent / f"{UNFINISHED}{secrets.token_hex(8)}"
    with suppress(FileNotFoundError):
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which replaces `folder` when the context ends without an error.

    Raises GansegError naming the folder when it cannot be written; the earlier folder then remains. After a kill
    between the two renames, the next call restores it.
    """
    try:
        with unfinished_folder(folder.parent) as temporary:
            _restore(folder)
            unfinished = temporary / folder.name
            unfinished.mkdir()
            yield unfinished
            try:
                if folder.exists():
                    folder.rename(temporary / f"earlier-{folder.name}")
                unfinished.rename(folder)
            finally:
                _restore(folder)
    except OSError as error:
        raise write_error(folder, error) from None


def copy_files(folder: Path, to: Path) -> None:
    """Copy the files directly in a folder into another folder, with default modes and links resolved."""
    for file in folder.iterdir():
        shutil.copyfile(file, to / file.name)


def set_default_modes(folder: Path) -> None:
    """Set everything below a folder to the default modes under the umask: copies keep the modes of their sources."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        new_file, new_folder = Path(temporary) / "file", Path(temporary) / "folder"
        new_file.touch()
        new_folder.mkdir()
        file_mode, folder_mode = new_file.stat().st_mode, new_folder.stat().st_mode
    for path in folder.rglob("*"):
        path.chmod(stat.S_IMODE(folder_mode if path.is_dir() else file_mode))


def private_folder(folder: Path) -> None:
    """Create a folder with access for its owner only, under any umask, or restrict an existing one.

    Raises OSError for a folder of another owner.
    """
    folder.mkdir(mode=OWNERS_ALONE, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(OWNERS_ALONE)


def _restore(folder: Path) -> None:
    """Restore the earlier folder if a writer moved it aside and did not replace it."""
    aside = folder.parent.glob(f"{UNFINISHED}*/earlier-{glob.escape(folder.name)}")
    if not folder.exists() and (earlier := next(aside, None)):
        earlier.rename(folder)


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
