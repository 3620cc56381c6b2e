"""With GANSEG_RUNS_URI a command fetches the runs that it needs when it begins, and sends those that it changed.

Only commands do: functions that find, train or evaluate runs download nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from ganseg_dist.cli import show
from ganseg_dist.errors import ConfigError, GansegError, RunError
from ganseg_dist.names import RunName, is_name
from ganseg_dist.runs import name_of_trial, runs_root
from ganseg_dist.storage.remote import RemoteFolder, remote_folder
from ganseg_dist.storage.transfer import fetch, send
from ganseg_dist.storage.working_copy import CopyRecord, Stamp, stamps

logger = logging.getLogger(__name__)


def fetch_runs(*references: str, writing: bool = False) -> None:
    """Fetch the folders of these names that have a newer copy at GANSEG_RUNS_URI; folders and MLflow ids are ignored.

    When the command ends, with or without an error, those of them that it changed are sent, and their trials.

    Args:
        writing: first check that GANSEG_RUNS_URI can be written, so that a training fails before it begins.

    Raises ConfigError when GANSEG_RUNS_URI cannot be used, and RunError as `fetch` does.
    """
    remote = remote_folder()
    if remote is None:
        return
    if writing:
        remote.probe()
    context = click.get_current_context()
    if __name__ not in context.meta:
        context.meta[__name__] = context.with_resource(_send_changes(remote))
    fetched: dict[Path, Mapping[str, Stamp]] = context.meta[__name__]
    for folder in [runs_root() / name for name in references if is_name(name, RunName)]:
        if folder not in fetched:
            with show.transfer_bar(f"Fetching {folder.name} from {remote.display_uri}") as advance:
                fetch(folder, remote, advance)
            fetched[folder] = stamps(folder)


def fetch_sweep(reference: str) -> None:
    """`fetch_runs` of a sweep by its name or by that of one of its trials, such as sweep.003."""
    sweep, _, number = reference.rpartition(".")
    if number.isdecimal():
        fetch_runs(sweep)
    if not number.isdecimal() or not (runs_root() / sweep / "study.json").is_file():
        fetch_runs(reference)


def fetch_trials(experiment: str, trials: Sequence[str]) -> None:
    """`fetch_runs` of the trials of an experiment that are not scored yet, by their names within it."""
    outcomes = runs_root() / experiment / "trials"
    fetch_runs(*(name_of_trial(experiment, trial) for trial in trials if not (outcomes / f"{trial}.json").exists()))


@contextmanager
def _send_changes(remote: RemoteFolder) -> Iterator[dict[Path, Mapping[str, Stamp]]]:
    """Context of a command; at its end the folders that it changed are sent.

    Its value takes the stamps of each fetched folder. Raises RunError when sending fails and the command did not.
    """
    before: dict[Path, Mapping[str, Stamp]] = {}
    try:
        yield before
    except BaseException:
        for problem in _send_changed(before, remote):
            logger.warning(problem)
        raise
    problems = _send_changed(before, remote)
    if problems:
        raise RunError(problems[0])


def _send_changed(before: Mapping[Path, Mapping[str, Stamp]], remote: RemoteFolder) -> list[str]:
    """Send the folders that differ from their copies, or without a copy from `before`, and report it.

    Returns a message for each that failed.
    """
    problems, sent_in_training = [], []
    for folder in (*before, *_trials(before)):
        now, record = stamps(folder), CopyRecord.of(folder, remote.identity)
        if not now or now == (before.get(folder) if record is None else record.files):
            if now != before.get(folder, now):
                sent_in_training.append(folder.name)
            continue
        try:
            with show.transfer_bar(f"Sending {folder.name} to {remote.display_uri}") as advance:
                send(folder, remote, advance)
        except (GansegError, OSError) as error:
            problems.append(f"{folder}: is complete here, and not copied: {error}")
            if isinstance(error, ConfigError):  # it concerns the remote folder, so the others would fail too
                break
    if sent_in_training:
        others = f" and {len(sent_in_training) - 1} more" if len(sent_in_training) > 1 else ""
        show.err.print(f"Sent while training, to {remote.display_uri}: {sent_in_training[0]}{others}")
    return problems


def _trials(folders: Mapping[Path, object]) -> list[Path]:
    """Of each folder that is no run, those of its trials, NAME.TRIAL, which other processes changed."""
    return [
        trial
        for folder in folders
        if not (folder / "run.json").exists()
        for trial in folder.parent.glob(f"{folder.name}.*")
        if trial.is_dir() and trial not in folders
    ]
