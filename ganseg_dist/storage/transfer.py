"""A folder's copy: sent as far as it changed, fetched whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from ganseg_dist.atomic import private_folder, whole_folder
from ganseg_dist.errors import RunError
from ganseg_dist.storage.contents import LIST, Contents, Entry, place
from ganseg_dist.storage.record import Record, Stamp, stamps
from ganseg_dist.storage.uri import Address

ASIDE = ".kept"
"""Folder in the runs folder for locks, and for what is being sent."""

HOMES = "sites/*"
"""Of a simulated federation's run, each hospital's folder, which others may not enter."""

logger = logging.getLogger(__name__)


def send(folder: Path, address: Address) -> None:
    """Make the copy of a folder what the folder is now; what did not change is not sent again.

    Raises ConfigError when the address fails, and RunError when another folder was copied there meanwhile. What is
    there is then what was there before.
    """
    name = folder.name
    with _alone(folder):
        record = Record.of(folder, address.identity)
        if record is None:
            record = Record(address.identity)
            record.write(folder)  # before the first copy: a kill after it leaves the copy known as this folder's
        there = Contents.at(address, name)
        if there is not None and _is_another(there, record):
            raise _parted(folder, address)
        before: Mapping[str, Entry] = {} if there is None else there.files
        with _pinned(folder, before, record) as (now, changed, pins):
            if there is not None and not changed and now.keys() == before.keys():
                _delete_unlisted(address, name, there)  # an earlier copy may have been cut off before it
                return
            revision = 1 if there is None else there.revision + 1
            sent = {
                path: Entry(*now[path], address.send(pins / path, place(name, revision, path)), revision)
                for path in changed
            }
        contents = Contents(record.writer, revision, {path: sent.get(path) or before[path] for path in now})
        contents.put(address, name)
        replace(record, known=contents.identity, files=now).write(folder)
        _delete_unlisted(address, name, contents)


def fetch(folder: Path, address: Address) -> None:
    """Put the kept copy in the folder's place where the folder is missing, or is what the copy was earlier.

    Raises RunError when the folder was changed since, or when the copy is damaged; the folder is then as it was.
    """
    with _alone(folder):
        there = Contents.at(address, folder.name)
        if there is None:
            return
        here = stamps(folder)
        record = Record.of(folder, address.identity) if here else None
        if here and (record is None or _is_another(there, record)):
            if record is None or here != record.files:
                raise _parted(folder, address)
        elif here:
            return
        with whole_folder(folder) as unfinished:
            for path, entry in there.files.items():
                _fetch_file(address, there.place(folder.name, path), entry, unfinished / path)
            for home in unfinished.glob(HOMES):
                private_folder(home)
            Record(address.identity, known=there.identity, files=stamps(unfinished)).write(unfinished)
    logger.warning("%s: fetched from %s", folder.name, address.shown)


def _is_another(there: Contents, record: Record) -> bool:
    """Whether a copy is of another working folder, and not the one that this folder was fetched from."""
    return there.writer != record.writer and there.identity != record.known


def _parted(folder: Path, address: Address) -> RunError:
    return RunError(
        f"{folder}: is another than {address.shown}/{folder.name}, which was copied there from elsewhere; move away "
        "the one that is not wanted and start again"
    )


def _fetch_file(address: Address, place: str, entry: Entry, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    digest = address.fetch(place, file)
    if digest != entry.digest:
        what = "is missing" if digest is None else "is damaged (its digest differs)"
        run, list_of = place.partition("/")[0], f"{place.partition('/')[0]}/{LIST}"
        raise RunError(
            f"{address.shown}/{place}: {what}, and {list_of} lists it; start again if the run is being copied just "
            f"now, else restore it, or delete {run} there to begin anew"
        )
    os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))


@contextmanager
def _pinned(
    folder: Path, before: Mapping[str, Entry], record: Record
) -> Iterator[tuple[dict[str, Stamp], list[str], Path]]:
    """All files' stamps, which of them changed, and a folder with these as they are at this moment.

    Sending takes longer than an epoch may, and training deletes its old checkpoints: it is sent from links.
    """
    pins = _aside(folder) / f"{folder.name}.sending"
    try:
        while True:
            shutil.rmtree(pins, ignore_errors=True)  # of this try before, or of a process that was killed
            private_folder(pins)  # a federation's run holds what its hospitals keep to themselves
            now = stamps(folder)
            changed = [path for path in now if path not in before or record.files.get(path) != now[path]]
            try:
                _link(folder, changed, pins)
            except FileNotFoundError:  # deleted between looking and linking
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


def _delete_unlisted(address: Address, name: str, contents: Contents) -> None:
    """What earlier revisions had, and what was left of copies that were cut off."""
    listed = {contents.place(name, path) for path in contents.files}
    used = {_revision_folder(path) for path in listed}
    lying = {path for path in address.list_files(name) if _revision_folder(path) is not None} - listed
    for unused in {_revision_folder(path) for path in lying} - used:
        assert unused is not None
        address.delete_folder(unused)
    for path in lying:
        if _revision_folder(path) in used:
            address.delete_file(path)


def _revision_folder(path: str) -> str | None:
    """`first/000017` of `first/000017/model/card.md`; none of what lies beside the revisions."""
    parts = path.split("/")
    return "/".join(parts[:2]) if len(parts) > 2 else None


def _aside(folder: Path) -> Path:
    aside = folder.parent / ASIDE
    aside.mkdir(parents=True, exist_ok=True)
    return aside


def _alone(folder: Path) -> FileLock:
    """Holds off other processes that copy the same folder."""
    return FileLock(_aside(folder) / f"{folder.name}.lock")
