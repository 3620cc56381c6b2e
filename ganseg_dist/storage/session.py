"""The folders that a command works with: fetched from their copies when opened, and copied when changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from ganseg_dist.errors import ConfigError, GansegError, RunError
from ganseg_dist.storage.record import Record, Stamp, stamps
from ganseg_dist.storage.remote import RemoteFolder, remote_folder
from ganseg_dist.storage.transfer import fetch, send

logger = logging.getLogger(__name__)

_folders: dict[Path, Mapping[str, Stamp]] = {}
"""By folder, the stamps that need no copying: those already copied or, for a folder without a copy, those found at
opening."""


def synced(folder: Path) -> Path:
    """The folder, fetched first if GANSEG_RUNS_URI has a newer copy. Later calls of one command do not check again.

    Raises ConfigError when GANSEG_RUNS_URI cannot be read, and RunError as `fetch` does.
    """
    remote = remote_folder()
    if remote is None or folder in _folders:
        return folder
    fetch(folder, remote)
    record = Record.of(folder, remote.identity)
    _folders[folder] = stamps(folder) if record is None else record.files
    return folder


def check_location() -> None:
    """Raises ConfigError when GANSEG_RUNS_URI cannot be written, before any training."""
    remote = remote_folder()
    if remote is not None:
        _probed(remote.uri)


@lru_cache(maxsize=1)
def _probed(uri: str) -> None:
    """Test writing once in a process; a failure is not cached, so the next call tries again."""
    remote = remote_folder()
    assert remote is not None
    remote.probe()


@contextmanager
def session() -> Iterator[None]:
    """Context of a command. When it ends, with or without an error, the folders that it opened and changed are copied,
    and those of their trials.

    Raises RunError when copying fails and the command did not.
    """
    _folders.clear()
    try:
        yield
    except BaseException:
        for problem in _copy_changed():
            logger.warning(problem)
        raise
    problems = _copy_changed()
    if problems:
        raise RunError(problems[0])


def _copy_changed() -> list[str]:
    """Copy changed folders; returns a message for each that failed."""
    remote = remote_folder() if _folders else None
    problems: list[str] = []
    if remote is None:
        return problems
    for folder in _with_trials(remote):
        if stamps(folder) != _folders[folder]:
            try:
                send(folder, remote)
                _folders[folder] = stamps(folder)
            except (GansegError, OSError) as error:
                problems.append(f"{folder}: is whole here, and not kept: {error}")
                if isinstance(error, ConfigError):  # it concerns the remote folder, so the others would fail too
                    break
    return problems


def _with_trials(remote: RemoteFolder) -> list[Path]:
    """The opened folders, and for each that is no run those of its trials, NAME.TRIAL, which other processes opened."""
    for folder in [folder for folder in _folders if not (folder / "run.json").exists()]:
        for trial in folder.parent.glob(f"{folder.name}.*"):
            if trial.is_dir() and trial not in _folders:
                record = Record.of(trial, remote.identity)
                _folders[trial] = {} if record is None else record.files
    return [folder for folder in _folders if folder.is_dir()]
