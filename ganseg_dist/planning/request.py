"""A request to train, and the one of an interrupted run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Split
from ganseg_dist.display import Convention, display_convention
from ganseg_dist.errors import RunError
from ganseg_dist.runs import RequestRecord, Run, find_run, generated_name, named_run, runs_root, training_run


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """Config, data and place of a training; a resumed run repeats its first request."""

    config: RunConfig
    data: Path
    layout: str | None = None
    healthy: Path | None = None
    run_name: str | None = None
    workers: int = 1
    gpus: bool = False
    local: bool = False
    exclude_bad: bool = False
    split: Split | None = None
    """Patients by part, where an experiment decides them; the run saves it."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """More tags for MLflow, such as the run that this one is a trial of."""
    labels: str | None = None
    """The scheme of the masks' values, where the user stated it."""
    least_workers: int | None = None
    """Fewest workers to continue with when there is no room for all `workers`; none: all of them or none."""
    convention: Convention = field(default_factory=display_convention)
    """Orientation of example pictures: workers on other machines use this machine's GANSEG_DISPLAY."""

    def to_record(self) -> RequestRecord:
        """All but the config, which the run saves resolved, and the convention, which the resuming machine sets."""
        fields = {name: getattr(self, name) for name in RequestRecord.model_fields}
        healthy = None if self.healthy is None else str(self.healthy.absolute())
        return RequestRecord(**{**fields, "data": str(self.data.absolute()), "healthy": healthy})

    @classmethod
    def of_run(cls, run: Run) -> TrainingRequest:
        """The request that made a run."""
        stored = run.description().request
        if stored is None:
            file = run.folder / "run.json"
            raise RunError(f"{file}: does not hold the request; rerun the training command")
        return cls.of_record(run.config(), stored, run.name)

    @classmethod
    def of_record(cls, config: RunConfig, record: RequestRecord, run_name: str) -> TrainingRequest:
        """The request that `to_record` recorded."""
        healthy = None if record.healthy is None else Path(record.healthy)
        return cls(config, run_name=run_name, **{**dict(record), "data": Path(record.data), "healthy": healthy})

    def name(self) -> str:
        """The given name, or one of recipe and data that no finished run has."""
        if self.run_name is not None:
            return training_run(self.run_name).name
        place = self.data.resolve()
        stem = place.stem if place.suffix.lower() == ".csv" else place.name
        base = generated_name(self.config.recipe, stem)
        names = (base if count == 1 else f"{base}-{count}" for count in range(1, 10_000))
        return next(name for name in names if not named_run(name).finished)


def resumed(reference: str) -> TrainingRequest:
    """The request of a run to resume. Raises RunError when it is finished."""
    run = find_run(reference)
    if run.finished:
        raise RunError(f"{run.name}: is finished already; see it with: ganseg report {run.name}")
    about = run.description()
    if about.sites is not None:
        raise RunError(f"{run.name}: is a federation; resume with: {about.command or 'ganseg federate'}")
    if run.folder.parent != runs_root().resolve():
        raise RunError(f"{run.folder}: is not in {runs_root()}; resume it with GANSEG_RUNS={run.folder.parent}")
    return TrainingRequest.of_run(run)
