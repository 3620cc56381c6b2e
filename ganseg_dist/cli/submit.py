"""`ganseg submit`: run a command as a job on a Ray cluster."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ganseg_dist.cli import show
from ganseg_dist.errors import INTERRUPTED, ConfigError
from ganseg_dist.printable import printable_log

if TYPE_CHECKING:
    from ganseg_dist.cluster.jobs import Submission

SUBMITTED = ("train", "tune", "federate", "prepare", "experiment")
PASSED = ("GANSEG_RUNS", "GANSEG_RUNS_URI", "GANSEG_STORE", "GANSEG_DISPLAY", "MLFLOW_TRACKING_URI")
"""Environment variables that are passed to a job if they are set here."""


def submit(
    arguments: list[str] = typer.Argument(
        metavar="-- COMMAND ...", help=f"What to run there: ganseg {', '.join(SUBMITTED)}, as here."
    ),
    address: str = typer.Option(
        "http://127.0.0.1:8265", metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard."
    ),
    working_dir: Path | None = typer.Option(
        None, metavar="DIR", help="Code to upload, less what .gitignore and .rayignore name; else the cluster's."
    ),
    env: list[str] = typer.Option(
        [], "--env", metavar="NAME=VALUE", help=f"For the job; {', '.join(PASSED)} go with it where they are set."
    ),
    detach: bool = typer.Option(False, "--detach", help="Do not wait for the job, nor show its log."),
) -> None:
    """Run a command as a job on a Ray cluster, and follow it.

    Its paths are the cluster's, and its exit code becomes this one's. Ctrl-C leaves the job running; rerun the same
    command to follow it or, when it has ended early, to resume its run. ray job stop ID ends it, and leaves a run
    that can be resumed.

    [bold]ganseg submit --address http://head:8265 -- train ganet_seg --data /data/BraTS2020 --run-name first[/bold]
    """
    from ganseg_dist.cluster.jobs import Submission, connect, follow, job_arguments
    from ganseg_dist.cluster.jobs import submit as send

    submission = Submission(job_arguments(arguments, SUBMITTED), _environment(env), working_dir)
    client = connect(address)
    job, new = send(client, submission)
    show.echo(f"{'submitted' if new else 'is running already'}: {job}", err=True)
    if detach:
        return
    try:
        code = follow(client, job, _write)
    except KeyboardInterrupt:
        show.echo(f"left running: {job}; to end it: ray job stop {job} --address {address}", err=True)
        sys.exit(INTERRUPTED)
    page = _mlflow_page(submission)
    if page is not None:
        show.echo(f"MLflow: {page}", err=True)
    sys.exit(code)  # without another message: the log already shows how the command ended


def _environment(assignments: list[str]) -> dict[str, str]:
    from ganseg_dist.tracking.connection import without_password

    variables = {name: os.environ[name] for name in PASSED if name in os.environ}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise ConfigError(f"--env {assignment}: expected NAME=VALUE, such as GANSEG_RUNS=/runs")
        variables[name] = value
    for name, value in variables.items():
        if without_password(value) != value:
            raise ConfigError(
                f"{name}: holds a password, and whoever sees the cluster's dashboard sees a job's environment; set it "
                "on the cluster, and unset it here"
            )
    return variables


def _write(text: str) -> None:
    sys.stdout.write(printable_log(text))
    sys.stdout.flush()


def _mlflow_page(submission: Submission) -> str | None:
    """URL of the run's page; None without a run name or a tracking server that is reached by HTTP."""
    from ganseg_dist.tracking.tracked_run import page_of

    uri = submission.env.get("MLFLOW_TRACKING_URI", "")
    has_page = submission.run_name is not None and uri.startswith(("http://", "https://"))
    return page_of(uri, str(submission.run_name)) if has_page else None
