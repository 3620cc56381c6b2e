"""Sends a folder's changed files to its copy, and fetches a copy as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from ganseg_dist.atomic import private_folder, whole_folder
from ganseg_dist.errors import RunError
from ganseg_dist.storage.contents import LIST, Contents, Entry, place
from ganseg_dist.storage.remote import RemoteFolder
from ganseg_dist.storage.working_copy import CopyRecord, Stamp, stamps

ASIDE = ".copies"
"""Folder in the runs folder for locks and for the files that are being sent."""

SITE_FOLDERS = "sites/*"
"""The hospitals' folders in a simulated federation's run, which only their owner may enter."""


def send(folder: Path, remote: RemoteFolder, advance: Callable[[int, int], object] = lambda done, total: None) -> None:
    """Update a folder's copy; unchanged files are not sent again.

    Args:
        advance: called with the bytes that were sent and all that are to be, before the first file and after each;
            never when no file changed.

    Raises ConfigError when the remote folder fails, and RunError when another folder was copied there meanwhile. The
    copy is then unchanged.
    """
    name = folder.name
    with _lock(folder):
        record = CopyRecord.of(folder, remote.identity)
        if record is None:
            record = CopyRecord(remote.identity)
            record.write(folder)  # before the first copy, which is then known as this folder's even after a kill
        copy = Contents.at(remote, name)
        if copy is not None and _is_foreign(copy, record):
            raise _conflict(folder, remote)
        before: Mapping[str, Entry] = {} if copy is None else copy.files
        with _pinned(folder, before, record) as (now, changed, pins):
            if copy is not None and not changed and now.keys() == before.keys():
                _delete_unlisted(remote, name, copy)  # an earlier call may have been interrupted before it
                return
            revision = 1 if copy is None else copy.revision + 1
            sent = {
                path: Entry(*now[path], remote.send(pins / path, place(name, revision, path)), revision)
                for path in _counted({path: now[path][0] for path in changed}, advance)
            }
        contents = Contents(record.writer, revision, {path: sent.get(path) or before[path] for path in now})
        contents.put(remote, name)
        replace(record, known=contents.identity, files=now).write(folder)
        _delete_unlisted(remote, name, contents)


def fetch(folder: Path, remote: RemoteFolder, advance: Callable[[int, int], object] = lambda done, total: None) -> None:
    """Replace the folder by its copy if the folder is missing or equals an earlier revision of the copy.

    Args:
        advance: called with the bytes that were fetched and all that are to be, before the first file and after each;
            never when the folder is up to date.

    Raises RunError when the folder was changed since, or when the copy is damaged; the folder is then unchanged.
    """
    with _lock(folder):
        copy = Contents.at(remote, folder.name)
        if copy is None:
            return
        local = stamps(folder)
        record = CopyRecord.of(folder, remote.identity) if local else None
        if local and (record is None or _is_foreign(copy, record)):
            if record is None or local != record.files:
                raise _conflict(folder, remote)
        elif local:
            return
        with whole_folder(folder) as unfinished:
            for path in _counted({path: entry.size for path, entry in copy.files.items()}, advance):
                _fetch_file(remote, copy.place(folder.name, path), copy.files[path], unfinished / path)
            for site in unfinished.glob(SITE_FOLDERS):
                private_folder(site)
            CopyRecord(remote.identity, known=copy.identity, files=stamps(unfinished)).write(unfinished)


def _counted(sizes: Mapping[str, int], advance: Callable[[int, int], object]) -> Iterator[str]:
    """The paths of these sizes in bytes, one by one, each counted once the caller takes the next."""
    done, total = 0, sum(sizes.values())
    advance(done, total)
    for path, size in sizes.items():
        yield path
        done += size
        advance(done, total)


def _is_foreign(copy: Contents, record: CopyRecord) -> bool:
    """Whether a copy is of another working folder, and is not the one from which this folder was fetched."""
    return copy.writer != record.writer and copy.identity != record.known


def _conflict(folder: Path, remote: RemoteFolder) -> RunError:
    return RunError(
        f"{folder}: is another than {remote.display_uri}/{folder.name}, which was copied there from elsewhere; move "
        "away the one that is not wanted and rerun the same command"
    )


def _fetch_file(remote: RemoteFolder, place: str, entry: Entry, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    digest = remote.fetch(place, file)
    if digest != entry.digest:
        problem = "is missing" if digest is None else "is damaged (its digest differs)"
        run, list_of = place.partition("/")[0], f"{place.partition('/')[0]}/{LIST}"
        raise RunError(
            f"{remote.display_uri}/{place}: {problem}, and {list_of} lists it; rerun the same command if the run is "
            f"being copied now, else restore it, or delete {run} there to start over"
        )
    os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))


@contextmanager
def _pinned(
    folder: Path, before: Mapping[str, Entry], record: CopyRecord
) -> Iterator[tuple[dict[str, Stamp], list[str], Path]]:
    """All files' stamps, the paths of the changed ones, and a folder with hard links to these.

    Sending may take longer than an epoch, and training deletes old checkpoints meanwhile: files are sent from links.
    """
    pins = _aside(folder) / f"{folder.name}.sending"
    try:
        while True:
            shutil.rmtree(pins, ignore_errors=True)  # left by an earlier try or by a killed process
            private_folder(pins)  # a simulated federation's run holds the hospitals' private folders
            now = stamps(folder)
            changed = [path for path in now if path not in before or record.files.get(path) != now[path]]
            try:
                _link(folder, changed, pins)
            except FileNotFoundError:  # deleted between stamping and linking
                continue
            break
        yield now, changed, pins
    finally:
        shutil.rmtree(pins, ignore_errors=True)


def _link(folder: Path, paths: Iterable[str], pins: Path) -> None:
    for path in paths:
        pin = pins / path
        pin.parent.mkdir(parents=True, exist_ok=True)
        try:
            pin.hardlink_to(folder / path)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without hard links
            shutil.copy2(folder / path, pin)


def _delete_unlisted(remote: RemoteFolder, name: str, contents: Contents) -> None:
    """Delete files of earlier revisions and of interrupted copies."""
    listed = {contents.place(name, path) for path in contents.files}
    used = {_revision_folder(path) for path in listed}
    unlisted = {path for path in remote.list_files(name) if _revision_folder(path) is not None} - listed
    for unused in {_revision_folder(path) for path in unlisted} - used:
        assert unused is not None
        remote.delete_folder(unused)
    for path in unlisted:
        if _revision_folder(path) in used:
            remote.delete_file(path)


def _revision_folder(path: str) -> str | None:
    """`first/000017` for `first/000017/model/card.md`; None for a file beside the revisions."""
    parts = path.split("/")
    return "/".join(parts[:2]) if len(parts) > 2 else None


def _aside(folder: Path) -> Path:
    aside = folder.parent / ASIDE
    aside.mkdir(parents=True, exist_ok=True)
    return aside


def _lock(folder: Path) -> FileLock:
    """A lock against other processes that copy the same folder."""
    return FileLock(_aside(folder) / f"{folder.name}.lock")
