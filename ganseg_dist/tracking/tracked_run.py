"""A run in MLflow: the driver opens it once, before any worker writes to it by its id."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock

from ganseg_dist import __version__
from ganseg_dist.atomic import write_json
from ganseg_dist.compat.mlflow import EXPERIMENT_KIND, MISSING
from ganseg_dist.files import read_json
from ganseg_dist.runs import Run, experiment_command, runs_root
from ganseg_dist.tracking.connection import connect, reason, sqlite_file, sqlite_uri, without_password
from ganseg_dist.tracking.description import DOCUMENTS, run_document, run_params, run_tags
from ganseg_dist.tracking.pyfunc import ModelUpload

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "ganseg"
PERSIST_SECONDS = 20.0

Status = Literal["FINISHED", "FAILED", "KILLED"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a process needs in order to write to the run; small and picklable."""

    uri: str
    run_id: str | None = None
    """None: MLflow could not be used when the run began, and the run is untracked."""
    experiment_id: str | None = None

    @property
    def destination(self) -> str:
        """The store or server as log lines name it, without a password."""
        return f"MLflow at {without_password(self.uri)}"

    @property
    def child_tags(self) -> dict[str, str]:
        """The tag that places another run below this one in MLflow; none where this one is untracked."""
        return {} if self.run_id is None else {"mlflow.parentRunId": self.run_id}

    def to_dict(self) -> dict[str, str | None]:
        """For run.json; without any password."""
        return {**asdict(self), "uri": without_password(self.uri)}

    def log_results(self, run: Run) -> None:
        """Log the finished run's history and its model, loadable with `mlflow.pyfunc.load_model`.

        The model of a sweep's trial stays in its folder until it is calibrated: packed with the code that reads it, it
        is some 270 files, and the winner is trained in full.
        """
        self.persist("history", lambda client: client.log_dict(self.run_id, run.read("history.json"), "history.json"))
        if run.description().sweep is None:
            self.persist("model", ModelUpload(str(self.run_id), run.model).send)

    def end(self, status: Status) -> None:
        """Set the run's status; also that of a run whose worker was stopped and cannot do so itself."""
        self.persist("status", lambda client: client.set_terminated(self.run_id, status))

    def persist(self, what: str, send: Callable[[MlflowClient], object]) -> None:
        """Send with a client, retrying for PERSIST_SECONDS; a failure is logged and does not fail the run.

        Does nothing for an untracked run, and makes no new store where the run's SQLite file is missing.
        """
        if self.run_id is None:
            return
        database = sqlite_file(self.uri)
        if database is not None and not database.exists():
            logger.warning("%s: the run's %s could not be written (the file is missing)", self.destination, what)
            return
        deadline = time.monotonic() + PERSIST_SECONDS
        while True:
            try:
                send(connect(self.uri))
                return
            except Exception as error:
                if time.monotonic() > deadline:
                    logger.warning("%s: the run's %s could not be written (%s)", self.destination, what, reason(error))
                    return
            time.sleep(1)


def open_tracking(run: Run, *, uri: str | None = None, tags: Mapping[str, str] | None = None) -> TrackedRun:
    """Find or create the run in MLflow and describe it there; a failure is logged, and the run is untracked.

    Workers then find a store that is set up and a run that exists: several first users at once corrupt a new store.
    A resumed run keeps its id, even when MLflow is unreachable at first.

    Args:
        uri: server or store; none: MLFLOW_TRACKING_URI, else an SQLite file in the runs folder.
        tags: added to those of the run's folder, such as `mlflow.parentRunId` for a trial.
    """
    uri = uri or _store()
    earlier = run.mlflow_id
    try:
        tracked = _resume_or_create(uri, earlier, run.name, {**run_tags(run), **(tags or {})})
    except Exception as error:
        tracked = TrackedRun(uri, earlier)
        effect = "untracked" if earlier is None else "metrics wait"
        logger.warning("%s cannot be used (%s); training continues, %s", tracked.destination, reason(error), effect)
        return tracked
    if tracked.run_id != earlier:
        tracked.persist("description", lambda client: _describe(client, str(tracked.run_id), run))
    return tracked


def open_parent(
    folder: Path, kind: str, params: Mapping[str, str], tags: Mapping[str, str] | None = None
) -> TrackedRun:
    """Find or create the parent run of a study's trials in MLflow; its id is kept in the folder."""
    from mlflow.entities import Param

    uri = _store()
    note = folder / "mlflow.json"
    earlier = _read_parent_id(note)
    parent_tags = {
        "ganseg.run": folder.name,
        "ganseg.experiment": kind,
        "ganseg.version": __version__,
        "mlflow.source.name": experiment_command(kind),
        **(tags or {}),
    }
    try:
        tracked = _resume_or_create(uri, earlier, folder.name, parent_tags)
        if tracked.run_id != earlier:
            write_json(note, {"run_id": tracked.run_id})
            connect(uri).log_batch(tracked.run_id, params=[Param(name, value) for name, value in params.items()])
    except Exception as error:
        tracked = TrackedRun(uri)
        logger.warning(
            "%s cannot be used (%s); the trials continue without a parent run", tracked.destination, reason(error)
        )
    return tracked


def _resume_or_create(uri: str, earlier: str | None, name: str, tags: Mapping[str, str]) -> TrackedRun:
    """The earlier run, set to RUNNING, or a new one where the store does not have it."""
    with _store_lock(uri):
        client = connect(uri)
        experiment_id = _find_or_create_experiment(client, uri)
    if earlier is not None and _resume(client, earlier):
        return TrackedRun(uri, earlier, experiment_id)
    return TrackedRun(uri, client.create_run(experiment_id, run_name=name, tags=tags).info.run_id, experiment_id)


def _read_parent_id(note: Path) -> str | None:
    """The id of the parent run; None without a file, and with a warning for a damaged one: a new run is created."""
    if not note.exists():
        return None
    try:
        return str(read_json(note)["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        logger.warning("%s: is damaged; MLflow gets a new run for these trials", note)
        return None


def page_of(uri: str, name: str) -> str | None:
    """The URL of a run's newest page on a server; None where there is none, or the server is unreachable."""
    try:
        client = connect(uri)
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        run = client.search_runs([experiment], f"tags.`ganseg.run` = '{name}'", max_results=1)[0].info.run_id
        return f"{without_password(uri).rstrip('/')}/#/experiments/{experiment}/runs/{run}"
    except Exception:  # optional: training also prints where the run is tracked
        return None


def _store() -> str:
    """The default store: MLFLOW_TRACKING_URI, else an SQLite file in the runs folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(runs_root() / "mlflow.db")


def _store_lock(uri: str) -> AbstractContextManager[Any]:
    """Keep other processes out while a local store is set up; the store's file exists from then on."""
    database = sqlite_file(uri)
    if database is None:
        return nullcontext()
    database.parent.mkdir(parents=True, exist_ok=True)
    database.touch()  # with the umask's mode: SQLite makes files that a group cannot write
    return FileLock(f"{database}.lock")


def _find_or_create_experiment(client: MlflowClient, uri: str) -> str:
    """The experiment's id. Without a server its artifact location is given: MLflow's default is the working folder."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        location = None if uri.startswith(("http://", "https://")) else (runs_root() / "mlartifacts").as_uri()
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=location, tags=EXPERIMENT_KIND))
        except MlflowException:  # another first user was faster
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


def _resume(client: MlflowClient, run_id: str) -> bool:
    """Set the run's status to RUNNING; False where the store does not have the run, such as another store."""
    from mlflow.exceptions import MlflowException

    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code == MISSING:
            return False
        raise
    return True


def _describe(client: MlflowClient, run_id: str, run: Run) -> None:
    from mlflow.entities import Param

    params = [Param(name, value) for name, value in run_params(run.config()).items()]
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])
    for name in DOCUMENTS:
        client.log_dict(run_id, run_document(run, name), name)
