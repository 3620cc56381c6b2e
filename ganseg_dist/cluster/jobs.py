"""Jobs on a Ray cluster: a `ganseg` command runs there, its log comes here, and its exit code is the job's own."""

from __future__ import annotations

import logging
import os
import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganseg_dist.data.labels import is_scheme_file
from ganseg_dist.environment import environment
from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.names import folder_name

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

MOST_BYTES = 100 * 2**20
"""That a job may upload: Ray's own limit, and it says so only after packing and sending."""
UPLOADED = "working_dir_files"
"""The folder of a node where Ray unpacks what jobs upload, and deletes it when they have ended."""
BELIEVED_MORE = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Environment variables that Ray's client believes more than the address it is given."""
FOLDERS = ("--data", "--healthy")
"""Options whose values are paths on the cluster."""
POLL_SECONDS = 1.0
STOPPED = 130
"""Exit code of a job that somebody stopped, as of a command that was interrupted."""
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True, slots=True)
class Submission:
    """What is asked of a cluster."""

    words: tuple[str, ...]
    """Of the command, after `ganseg`."""
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: Path | None = None
    """Code to upload; none: the cluster has the package."""

    @property
    def entrypoint(self) -> str:
        """The job's command line."""
        return shlex.join(["python", "-m", "ganseg_dist", *self.words])

    @property
    def run_name(self) -> str | None:
        """Of the run that the command begins or goes on with, where the words say it."""
        names = (value for option, value in options_of(self.words) if option in ("--run-name", "--resume"))
        return next(names, None) or None

    @property
    def name(self) -> str:
        """What the job is called: its command and its run's name, or its first words."""
        told = self.run_name
        words = [self.words[0], told] if told else [word for word in self.words[:3] if not word.startswith("-")]
        return folder_name("-".join(words), longest=80)

    def runtime_env(self) -> dict[str, Any]:
        """As Ray has it."""
        place = {} if self.working_dir is None else {"working_dir": str(self.working_dir)}
        return {**place, "env_vars": dict(self.env)}


def connect(address: str) -> JobSubmissionClient:
    """Raises RunError when no cluster answers at this address."""
    from ray.job_submission import JobSubmissionClient

    try:
        with environment(dict.fromkeys(BELIEVED_MORE)):
            return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(
            f"--address {address}: no Ray cluster takes jobs there ({why}); give its dashboard's address, such as "
            "http://head:8265"
        ) from None


def submit(client: JobSubmissionClient, asked: Submission) -> tuple[str, bool]:
    """The job's id, and whether it was begun just now: a command that runs in this folder of runs is not begun again.

    A job that has ended and is submitted again is a new one with a number, and its command goes on where it was.

    Raises RunError when the run is being made by a job of other words, there is too much to upload, or the cluster
    refuses.
    """
    jobs = {job.submission_id: job for job in client.list_jobs() if job.submission_id}
    names = [name for name in jobs if re.fullmatch(rf"{re.escape(asked.name)}(-\d+)?", name)]
    for name in names:
        if str(jobs[name].status).endswith(ENDED) or _runs_of(jobs[name]) != asked.env.get("GANSEG_RUNS"):
            continue
        if jobs[name].entrypoint == asked.entrypoint:
            return name, False
        if asked.run_name:
            raise RunError(
                f"{asked.run_name}: is being made by job {name}, with other words ({jobs[name].entrypoint}); wait for "
                "it, end it with ray job stop, or choose another --run-name"
            )
    if asked.working_dir is not None:
        check_code_folder(asked.working_dir)
        check_upload_size(asked.working_dir)
    new = asked.name if not names else f"{asked.name}-{len(names) + 1}"
    try:
        return client.submit_job(entrypoint=asked.entrypoint, submission_id=new, runtime_env=asked.runtime_env()), True
    except RuntimeError as error:
        raise RunError(f"{new}: the cluster refuses the job: {str(error).strip().splitlines()[0]}") from None


def _runs_of(job: Any) -> Any:
    """The folder of runs that a job of the cluster was told; none where it was told none."""
    return ((job.runtime_env or {}).get("env_vars") or {}).get("GANSEG_RUNS")


def check_code_folder(folder: Path) -> None:
    """Raises RunError where a folder is not one of this code: it may be one of images, which nobody means to upload."""
    if not (folder / "ganseg_dist" / "__init__.py").is_file():
        raise RunError(f"--working-dir {folder}: holds no ganseg_dist; give the folder of the code, such as a clone")


def check_upload_size(folder: Path) -> int:
    """Bytes that uploading this folder takes, less what .gitignore and .rayignore name.

    Raises RunError when a job may not upload so much, naming the largest of what it holds.
    """
    held = _held(folder.absolute())
    size = held.total()
    if size < MOST_BYTES:
        return size
    largest = ", ".join(f"{name} ({most / 2**20:.0f} MiB)" for name, most in held.most_common(3))
    raise RunError(
        f"--working-dir {folder}: is {size / 2**20:.0f} MiB, and a job may upload {MOST_BYTES / 2**20:.0f}; "
        f"name what is not code in .rayignore, the largest being {largest}"
    )


def _held(folder: Path) -> Counter[str]:
    """Bytes of what Ray would pack, by the entry at the top of the folder; Ray packs without compressing."""
    from ray._private.ray_constants import RAY_RUNTIME_ENV_IGNORE_GITIGNORE
    from ray._private.runtime_env.packaging import _dir_travel

    held: Counter[str] = Counter()

    def weigh(path: Path) -> None:
        if path.is_file():
            held[path.relative_to(folder).parts[0]] += path.stat().st_size

    with_gitignore = os.environ.get(RAY_RUNTIME_ENV_IGNORE_GITIGNORE) != "1"
    _dir_travel(folder, [], weigh, include_gitignore=with_gitignore, logger=logging.getLogger(__name__))
    return held


def check_runs_folder(root: Path) -> None:
    """Raises ConfigError where the folder of runs lies in what a job uploaded: Ray deletes it after the job.

    Not where GANSEG_RUNS_URI keeps a copy.
    """
    if UPLOADED in root.parts and not os.environ.get("GANSEG_RUNS_URI"):
        raise ConfigError(
            "GANSEG_RUNS: this job's runs would lie in the uploaded code, which Ray deletes; name storage that "
            "all nodes share, as in deploy/ray/runtime_env.yaml"
        )


def follow(client: JobSubmissionClient, job: str, write: Callable[[str], None]) -> int:
    """Write the job's log as it comes; the exit code of its command."""
    written = 0
    while True:
        details = client.get_job_info(job)  # before the log: what is logged last is there when the job has ended
        log = client.get_job_logs(job)
        write(log[written:])
        written = len(log)
        if str(details.status).endswith(ENDED):
            return exit_code(details)
        time.sleep(POLL_SECONDS)


def exit_code(details: Any) -> int:
    """Of the job's command. Ray's own command line knows only whether it failed."""
    status = str(details.status)
    if status.endswith("STOPPED"):
        return STOPPED
    if details.driver_exit_code is not None:
        return int(details.driver_exit_code)
    return 0 if status.endswith("SUCCEEDED") else 1


def words_of(arguments: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Raises ConfigError for what is no command, or none that makes sense as a job, and for data by a relative path."""
    if not arguments or arguments[0] not in known:
        said = arguments[0] if arguments else "nothing"
        raise ConfigError(f"submit: {said} is no command to submit; give one of {', '.join(known)}, after --")
    for option, value in options_of(arguments):
        is_path = option in FOLDERS or (option == "--labels" and is_scheme_file(value))
        if is_path and not Path(value).is_absolute():
            raise ConfigError(
                f"{option} {value}: is relative to this folder, and the job runs in another; give it whole"
            )
    return tuple(arguments)


def options_of(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """`--option value` and `--option=value`, as pairs."""
    for word, after in pairwise((*words, "")):
        option, equals, value = word.partition("=")
        if option.startswith("--"):
            yield option, value if equals else after
