"""The folders that a command works with: each is as new as its kept copy when opened, and kept when changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from ganseg_dist.errors import ConfigError, GansegError, RunError
from ganseg_dist.storage.record import Record, Stamp, stamps
from ganseg_dist.storage.transfer import fetch, send
from ganseg_dist.storage.uri import Address, kept_at

logger = logging.getLogger(__name__)

_opened: dict[Path, Mapping[str, Stamp]] = {}
"""What of each folder is kept, or need not be: it was there before, and never copied."""


def synced(folder: Path) -> Path:
    """The folder, fetched first where GANSEG_RUNS_URI has a newer one. A command looks once, then it is the newer.

    Raises ConfigError when GANSEG_RUNS_URI cannot be read, and RunError as `fetch` does.
    """
    address = kept_at()
    if address is None or folder in _opened:
        return folder
    fetch(folder, address)
    record = Record.of(folder, address.identity)
    _opened[folder] = stamps(folder) if record is None else record.files
    return folder


def check_location() -> None:
    """Raises ConfigError when GANSEG_RUNS_URI cannot be written, before anything is trained for it."""
    address = kept_at()
    if address is not None:
        _probed(address.uri)


@lru_cache(maxsize=1)
def _probed(uri: str) -> None:
    """Once in a process is enough; what failed is tried again."""
    address = kept_at()
    assert address is not None
    address.probe()


@contextmanager
def session() -> Iterator[None]:
    """A command. However it ends, the folders that it opened and changed are copied, and with them their trials'.

    Raises RunError when that fails and nothing else did.
    """
    _opened.clear()
    try:
        yield
    except BaseException:
        for problem in _keep():
            logger.warning(problem)
        raise
    problems = _keep()
    if problems:
        raise RunError(problems[0])


def _keep() -> list[str]:
    """Copies what changed; what went wrong."""
    address = kept_at() if _opened else None
    problems: list[str] = []
    if address is None:
        return problems
    for folder in _with_trials(address):
        if stamps(folder) != _opened[folder]:
            try:
                send(folder, address)
                _opened[folder] = stamps(folder)
            except (GansegError, OSError) as error:
                problems.append(f"{folder}: is whole here, and not kept: {error}")
                if isinstance(error, ConfigError):  # the others would wait as long, for the same
                    break
    return problems


def _with_trials(address: Address) -> list[Path]:
    """The opened folders, and those of trials that other processes opened for them: NAME.TRIAL, of what is no run."""
    for folder in [folder for folder in _opened if not (folder / "run.json").exists()]:
        for trial in folder.parent.glob(f"{folder.name}.*"):
            if trial.is_dir() and trial not in _opened:
                record = Record.of(trial, address.identity)
                _opened[trial] = {} if record is None else record.files
    return [folder for folder in _opened if folder.is_dir()]
