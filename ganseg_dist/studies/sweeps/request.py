"""The request of a sweep, from options or from study.json, and the check that its combination can be searched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ganseg_dist.cluster.tune import Scheduler, Search, population
from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Split
from ganseg_dist.errors import ConfigError
from ganseg_dist.federation.privacy import withholds_scores
from ganseg_dist.planning.plan import Plan as TrainingPlan
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import SWEEP, RequestRecord
from ganseg_dist.studies.study import Study
from ganseg_dist.studies.sweeps.metric import Metric
from ganseg_dist.studies.sweeps.privacy import describe_budget
from ganseg_dist.studies.sweeps.space import Space


@dataclass(frozen=True, slots=True)
class Hospitals:
    """The hospitals of a simulated federation, as in the options of `ganseg federate`."""

    sites: str
    skew: str | None = None


@dataclass(frozen=True, slots=True)
class SweepRequest:
    """The arguments of a sweep."""

    training: TrainingRequest
    """The recipe, the data, and the workers and GPUs of a trial."""
    space: Space
    trials: int
    scheduler: Scheduler = "asha"
    search: Search = "optuna"
    metrics: tuple[str, ...] = ()
    gpu_share: float = 1.0
    """Share of a GPU for a trial of one worker."""
    hospitals: Hospitals | None = None
    """Hospitals that train each trial as a federation; None trains it on all data in one place."""
    fixed: tuple[str, ...] = ()
    """Fields of the space that are not searched and stay at the config's values."""

    @property
    def name(self) -> str:
        """The sweep's name, that of `training`, which must have one."""
        assert self.training.run_name is not None
        return self.training.run_name


def stored_request(study: Study, spaces: Mapping[str, Space]) -> SweepRequest:
    """The request of the sweep to resume."""
    stored = study.request
    hospitals = stored["hospitals"]
    config = RunConfig.from_json(json.dumps(stored["config"]), str(study.folder / "study.json"))
    training = TrainingRequest.of_record(config, RequestRecord(**stored["request"]), study.name)
    return SweepRequest(
        training, spaces[stored["space"]], stored["trials"], stored["scheduler"], stored["search"],
        tuple(metric["name"] for metric in stored["metrics"]), stored["gpu_share"],
        None if hospitals is None else Hospitals(**hospitals), tuple(stored["fixed"]),
    )  # fmt: skip


def validate_search(request: SweepRequest, metrics: Sequence[Metric], config: RunConfig) -> None:
    """Raises ConfigError for a combination that the scheduler or the search does not support."""
    if request.hospitals is not None and (request.scheduler == "pbt" or request.training.workers > 1):
        raise ConfigError("--sites: trains a trial in its own process, round by round; leave out --workers and pbt")
    if request.hospitals is not None and config.train.privacy.on and config.train.privacy.noise_multiplier is None:
        raise ConfigError(
            "train.privacy.epsilon: every site would need separate noise for all trials; give "
            "train.privacy.noise_multiplier in a sweep of federations"
        )
    if request.scheduler == "pbt" and withholds_scores(config):
        raise ConfigError("--scheduler pbt: trains epochs again, which no privacy budget counts; take asha or none")
    if request.scheduler != "none" and len(metrics) > 1:
        raise ConfigError(
            f"--scheduler {request.scheduler}: compares trials in training by one metric; give one, or --scheduler none"
        )
    if request.scheduler != "none" and not metrics[0].every_epoch:
        raise ConfigError(
            f"--scheduler {request.scheduler}: compares trials in training by a score of every epoch, and "
            f"{metrics[0].name} is of whole scans, after the last; give --scheduler none"
        )
    if request.scheduler == "pbt" and not population(request.space.distributions(config, request.fixed)):
        raise ConfigError(
            f"--scheduler pbt: changes numbers, and --space {request.space.name} searches none; take asha or none"
        )
    if request.scheduler == "pbt" and request.training.workers > 1:
        raise ConfigError("--scheduler pbt: moves weights between trials of one worker; leave out --workers")


def describe_request(
    request: SweepRequest, plan: TrainingPlan, split: Split, metrics: Sequence[Metric], first: Mapping[str, Any]
) -> dict[str, Any]:
    """Contents of study.json."""
    return {
        "kind": SWEEP,
        "config": plan.config.model_dump(mode="json"),
        "space": request.space.name,
        "first": dict(first),
        "trials": request.trials,
        "scheduler": request.scheduler,
        "search": request.search,
        "gpu_share": request.gpu_share,
        "fixed": {name: plan.config.flat()[name] for name in sorted(request.fixed)},
        "hospitals": None if request.hospitals is None else asdict(request.hospitals),
        "metrics": [asdict(metric) for metric in metrics],
        "split": split.to_dict(),
        "patients": len(split.validation),
        "request": request.training.to_record().model_dump(),
        "phantom": plan.cohort.phantom,
        "privacy": describe_budget(plan.config, request.trials, hospitals=request.hospitals is not None),
    }
