"""Jobs on a Ray cluster: runs a `ganseg` command there, follows its log, and returns the job's exit code."""

from __future__ import annotations

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

from ganseg_dist.data.labels import is_scheme_path
from ganseg_dist.environment import environment
from ganseg_dist.errors import INTERRUPTED, ConfigError, RunError, one_line
from ganseg_dist.names import folder_name

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

MOST_BYTES = 100 * 2**20
"""Limit of a job's upload: Ray's, which Ray checks only after packing and sending."""
UPLOADED = "working_dir_files"
"""A node's folder in which Ray unpacks the uploads of jobs, and deletes them when the jobs have ended."""
ADDRESS_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Environment variables that Ray's client prefers to the address that it is given."""
FOLDERS = ("--data", "--healthy")
"""Options whose values are paths on the cluster."""
POLL_SECONDS = 1.0
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True, slots=True)
class Submission:
    """The request for a job."""

    arguments: tuple[str, ...]
    """Arguments of the command, after `ganseg`."""
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: Path | None = None
    """Folder of code to upload; None: the cluster has the package."""

    @property
    def entrypoint(self) -> str:
        """The job's command line."""
        return shlex.join(["python", "-m", "ganseg_dist", *self.arguments])

    @property
    def run_name(self) -> str | None:
        """Name of the run that the command starts or resumes; None if the arguments do not name it."""
        names = (value for option, value in options_of(self.arguments) if option in ("--run-name", "--resume"))
        return next(names, None) or None

    @property
    def name(self) -> str:
        """The job's name: its command with its run's name, or else its first arguments."""
        run = self.run_name
        parts = [self.arguments[0], run] if run else [part for part in self.arguments[:3] if not part.startswith("-")]
        return folder_name("-".join(parts), longest=80)

    def runtime_env(self) -> dict[str, Any]:
        """Ray's runtime environment of the job."""
        place = {} if self.working_dir is None else {"working_dir": str(self.working_dir)}
        return {**place, "env_vars": dict(self.env)}


def connect(address: str) -> JobSubmissionClient:
    """A client of the cluster at this address. Raises RunError when none answers there."""
    from ray.job_submission import JobSubmissionClient

    try:
        with environment(dict.fromkeys(ADDRESS_OVERRIDES)):
            return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RunError(
            f"--address {address}: no Ray cluster takes jobs there ({one_line(error)}); give its dashboard's "
            "address, such as http://head:8265"
        ) from None


def submit(client: JobSubmissionClient, request: Submission) -> tuple[str, bool]:
    """The job's id, and whether it was started now: a command that already runs in this folder of runs is not.

    An ended job that is submitted again is a new one with a number, and its command resumes.

    Raises RunError when a job with other arguments makes the run, the upload is too large, or the cluster rejects it.
    """
    jobs = {job.submission_id: job for job in client.list_jobs() if job.submission_id}
    names = [name for name in jobs if re.fullmatch(rf"{re.escape(request.name)}(-\d+)?", name)]
    for name in names:
        if str(jobs[name].status).endswith(ENDED) or _runs_of(jobs[name]) != request.env.get("GANSEG_RUNS"):
            continue
        if jobs[name].entrypoint == request.entrypoint:
            return name, False
        if request.run_name:
            raise RunError(
                f"{request.run_name}: is being made by job {name}, with other arguments ({jobs[name].entrypoint}); "
                "wait for it, end it with ray job stop, or choose another --run-name"
            )
    if request.working_dir is not None:
        check_code_folder(request.working_dir)
        check_upload_size(request.working_dir)
    new = request.name if not names else f"{request.name}-{len(names) + 1}"
    try:
        return client.submit_job(
            entrypoint=request.entrypoint, submission_id=new, runtime_env=request.runtime_env()
        ), True
    except RuntimeError as error:
        raise RunError(f"{new}: the cluster rejects the job: {one_line(error)}") from None


def _runs_of(job: Any) -> Any:
    return ((job.runtime_env or {}).get("env_vars") or {}).get("GANSEG_RUNS")


def check_code_folder(folder: Path) -> None:
    """Raises RunError for a folder without this code, which may be one of images that must not be uploaded."""
    if not (folder / "ganseg_dist" / "__init__.py").is_file():
        raise RunError(f"--working-dir {folder}: holds no ganseg_dist; give the folder of the code, such as a clone")


def check_upload_size(folder: Path) -> int:
    """Bytes of this folder's upload, without what .gitignore and .rayignore name.

    Raises RunError above MOST_BYTES, naming the folder's largest entries.
    """
    sizes = _entry_sizes(folder.absolute())
    size = sizes.total()
    if size < MOST_BYTES:
        return size
    largest = ", ".join(f"{name} ({most / 2**20:.0f} MiB)" for name, most in sizes.most_common(3))
    raise RunError(
        f"--working-dir {folder}: is {size / 2**20:.0f} MiB, and a job may upload {MOST_BYTES / 2**20:.0f}; "
        f"name what is not code in .rayignore, the largest being {largest}"
    )


def _entry_sizes(folder: Path) -> Counter[str]:
    """Bytes that Ray would pack, by the folder's top-level entries; Ray does not compress them."""
    from ganseg_dist.compat.ray import uploaded_files

    sizes: Counter[str] = Counter()
    for file in uploaded_files(folder):
        sizes[file.relative_to(folder).parts[0]] += file.stat().st_size
    return sizes


def check_runs_folder(root: Path) -> None:
    """Raises ConfigError if the folder of runs lies in the upload, which Ray deletes after the job.

    With GANSEG_RUNS_URI, which keeps a copy, this is allowed.
    """
    if UPLOADED in root.parts and not os.environ.get("GANSEG_RUNS_URI"):
        raise ConfigError(
            "GANSEG_RUNS: this job's runs would lie in the uploaded code, which Ray deletes; name storage that "
            "all nodes share, as in deploy/ray/runtime_env.yaml"
        )


def follow(client: JobSubmissionClient, job: str, write: Callable[[str], None]) -> int:
    """Write the job's log as it grows; returns the exit code of its command."""
    written = 0
    while True:
        details = client.get_job_info(job)  # before the log, which is then complete when the job has ended
        log = client.get_job_logs(job)
        write(log[written:])
        written = len(log)
        if str(details.status).endswith(ENDED):
            return exit_code(details)
        time.sleep(POLL_SECONDS)


def exit_code(details: Any) -> int:
    """Exit code of the job's command, of which Ray's command line only shows whether it failed."""
    status = str(details.status)
    if status.endswith("STOPPED"):
        return INTERRUPTED
    if details.driver_exit_code is not None:
        return int(details.driver_exit_code)
    return 0 if status.endswith("SUCCEEDED") else 1


def job_arguments(arguments: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The arguments of a job. Raises ConfigError for an unknown command and for data given by a relative path."""
    if not arguments or arguments[0] not in known:
        given = arguments[0] if arguments else "nothing"
        raise ConfigError(f"submit: {given} is no command to submit; give one of {', '.join(known)}, after --")
    for option, value in options_of(arguments):
        is_path = option in FOLDERS or (option == "--labels" and is_scheme_path(value))
        if is_path and not Path(value).is_absolute():
            raise ConfigError(
                f"{option} {value}: is relative to this folder, and the job runs in another; give it whole"
            )
    return tuple(arguments)


def options_of(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of option and value, from `--option value` and `--option=value`."""
    for argument, after in pairwise((*arguments, "")):
        option, equals, value = argument.partition("=")
        if option.startswith("--"):
            yield option, value if equals else after
