"""run.json, the description of a run in its folder, from its start to its end."""

from __future__ import annotations

from pydantic import Field

from ganseg_dist.records import Record


class RequestRecord(Record):
    """The request besides the config, as a resumed run repeats it; of a federation's site, its data alone."""

    data: str
    """Absolute path."""
    layout: str | None = None
    labels: str | None = None
    """The scheme of the masks' values, where the user stated it."""
    healthy: str | None = None
    """Absolute path."""
    workers: int = 1
    least_workers: int | None = None
    gpus: bool = False
    local: bool = False
    exclude_bad: bool = False


class MLflowRecord(Record):
    """Where MLflow keeps the run."""

    uri: str = ""
    """Without a password."""
    run_id: str | None = None
    """None: the run is untracked."""
    experiment_id: str | None = None


class Kept(Record):
    """The epoch whose weights a stage handed on."""

    epoch: int
    best_of: tuple[str, ...]
    """The scores whose mean is best in this epoch; none: it is the last epoch."""


class RunRecord(Record):
    """Facts of a run; those that are not known yet are not in the file."""

    name: str = ""
    recipe: str = "unknown"
    status: str = "unknown"
    """started, training, interrupted or finished; of a sweep's trial also how the sweep ended it."""
    created: str | None = None
    """ISO 8601, with its zone."""
    seconds: float | None = None
    """Wall time of all attempts together."""
    version: str | None = None
    commit: str | None = None
    """Of a source checkout; + at its end: files differ from it."""
    workers: int | None = None
    device: str | None = None
    command: str | None = None
    error: str | None = None
    """Why an unfinished run stopped: the exception's name and text."""
    request: RequestRecord | None = None
    mlflow: MLflowRecord | None = None
    sweep: str | None = None
    """The sweep whose trial it is."""
    federated: bool = False
    """Whether it is a site's part of a federation."""
    sites: dict[str, int] | None = None
    """Patients by site, of a simulated federation; a deployment's sites report theirs as they join. None: no
    federation."""
    absent: tuple[str, ...] = ()
    """Networks that stayed at the sites."""
    kept: dict[str, Kept] = Field(default_factory=dict)
    """By stage, of a finished run."""
