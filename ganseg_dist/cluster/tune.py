"""Trials on Ray Tune: which values are tried, which trials are stopped, and going on after a kill."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ganseg_dist.environment import environment
from ganseg_dist.errors import RunError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

Scheduler = Literal["asha", "pbt", "none"]
Search = Literal["optuna", "random"]

EPOCH = "epoch"
"""What a trial reports how far its last stage has come by."""
A_BYTE = 1
RETRIES = 2
"""Times a trial whose process died goes on from its last checkpoint."""
REDUCTION = 3
"""Of ASHA: one trial in so many goes on past each rung."""
PERTURBATIONS = 5
"""Of PBT: times in a training that the worse trials take over a better one's weights."""

ENVIRONMENT: Mapping[str, str | None] = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # with it an interrupted sweep would look like one that has ended
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial's earlier stages do not have the metric
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the trials' runs hold what Tune would write again
    "RAY_AIR_NEW_OUTPUT": "0",  # its table of settings is printed at any verbosity
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How a sweep goes through its space."""

    ask: Callable[[BaseTrial], None]
    begin: Sequence[Mapping[str, Any]]
    """Values of the first trials."""
    distributions: Mapping[str, BaseDistribution]
    """With their ranges; PBT changes the numbers among them."""
    trials: int
    scheduler: Scheduler
    search: Search
    metrics: Mapping[str, Literal["max", "min"]]
    epochs: int
    """Of the last stage, at most."""
    seed: int
    cpus: float
    gpus: float
    """Of a trial."""
    at_once: int | None = None
    """Trials that may run together; none: as many as the cluster has room for."""


@dataclass(frozen=True, slots=True)
class TrialEnd:
    """How a trial stands when it has ended."""

    number: str
    values: Mapping[str, Any]
    """Of the space's fields; under PBT those of its end."""
    scores: Mapping[str, Any]
    """What it reported last; empty where it did not come so far."""
    failed: bool
    reason: str = ""
    """Why it failed, in one line."""


def run_trials(
    plan: Plan, trial: Callable[[dict[str, Any]], None], folder: Path, ended: Callable[[TrialEnd], None]
) -> list[TrialEnd]:
    """Every trial to its end, from where an earlier call was interrupted. A trial that fails does not end the others.

    Args:
        trial: trains with these values of fields, and reports to Tune.
        folder: of the sweep; Tune keeps its own state in it, which is read again as it was written, by this user.
        ended: told each trial that ends; what it raises ends the sweep.

    Raises RunError where Tune's own state is damaged.
    """
    from ray import tune

    watcher = _watcher(ended)

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # why a trial failed is in its run
    state = folder / "tune"
    # A trial that only waits for its own workers takes none of their CPUs, and Tune starts none that asks for nothing.
    trainable = tune.with_resources(trial, {"cpu": plan.cpus, "gpu": plan.gpus, "memory": A_BYTE})
    with environment(ENVIRONMENT):
        if tune.Tuner.can_restore(str(state)):
            tuner = _restored(state, trainable)
            # What watches is not kept, and the one before is of another process.
            tuner._local_tuner.get_run_config().callbacks = [watcher]
        else:
            tuner = tune.Tuner(
                trainable,
                param_space=population(plan.distributions) if plan.scheduler == "pbt" else None,
                tune_config=_tune_config(plan),
                run_config=tune.RunConfig(
                    name=state.name,
                    storage_path=str(folder),
                    callbacks=[watcher],
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=RETRIES),
                    checkpoint_config=tune.CheckpointConfig(num_to_keep=4 if plan.scheduler == "pbt" else 1),
                ),
            )
        try:
            results = tuner.fit()
        except Exception:
            if watcher.raised is not None:  # which Tune has wrapped in its own
                raise watcher.raised from None
            raise
        if len(results) < plan.trials:  # where its list of trials is damaged, Tune goes on without a word
            raise _damaged(state, f"knows {len(results)} of {plan.trials} trials")
        return [
            TrialEnd(
                Path(result.path).name,
                result.config or {},
                result.metrics or {},
                result.error is not None,
                "" if result.error is None else _reason(result.error),
            )
            for result in results
        ]


def _restored(state: Path, trainable: Any) -> Any:
    """Raises RunError where what Tune keeps is damaged: of whatever kind its error, or pickle's, is."""
    from ray import tune

    try:
        return tune.Tuner.restore(str(state), trainable, resume_unfinished=True, resume_errored=True)
    except Exception as error:
        raise _damaged(state, f"cannot be read ({type(error).__name__})") from None


def _damaged(state: Path, problem: str) -> RunError:
    return RunError(
        f"{state}: Ray Tune's own state {problem}; delete it and start the same command again: trials that have "
        "finished are not trained again"
    )


def _reason(error: Any) -> str:
    """The last line of what a trial's process raised; of one that was lost, that it died."""
    from ray.exceptions import RayActorError

    if error is None or isinstance(error, RayActorError):
        return "its process died"
    lines = str(getattr(error, "cause", None) or error).strip().splitlines()
    return lines[-1][:300] if lines else type(error).__name__


def _tune_config(plan: Plan) -> Any:
    from ray import tune

    single = next(iter(plan.metrics.items())) if len(plan.metrics) == 1 else (None, None)
    return tune.TuneConfig(
        metric=single[0],
        mode=single[1],
        num_samples=plan.trials,
        search_alg=_searcher(plan),
        scheduler=_scheduler(plan),
        max_concurrent_trials=plan.at_once,
        reuse_actors=True,
        trial_name_creator=partial(_number, counted_from=0 if plan.scheduler == "pbt" else 1),
        trial_dirname_creator=str,  # its name
    )


def _number(trial: Any, *, counted_from: int) -> str:
    """`003` of the third, by the tag that Tune gives it, which a generator without a searcher counts from 0.

    Such as `3_train.learning_rate=0.001`.
    """
    counted = re.match(r"\d+", str(trial.experiment_tag))
    assert counted is not None
    return f"{int(counted[0]) + 1 - counted_from:03d}"


def _watcher(ended: Callable[[TrialEnd], None]) -> Any:
    from ray.tune import Callback

    def tell(trial: Any, *, failed: bool) -> None:
        reason = _reason(trial.get_error()) if failed else ""
        try:
            ended(TrialEnd(str(trial), trial.config, trial.last_result or {}, failed, reason))
        except Exception as error:
            watcher.raised = error
            raise

    class Watcher(Callback):
        raised: Exception | None = None

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            tell(trial, failed=False)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            tell(trial, failed=True)

    watcher = Watcher()
    return watcher


def _searcher(plan: Plan) -> Any:
    """Optuna's samplers: they alone know spaces in which a field depends on another."""
    import optuna
    from optuna.samplers import RandomSampler, TPESampler
    from ray.tune.search.basic_variant import BasicVariantGenerator
    from ray.tune.search.optuna import OptunaSearch

    if plan.scheduler == "pbt":
        begin = [{name: values[name] for name in population(plan.distributions)} for values in plan.begin]
        return BasicVariantGenerator(points_to_evaluate=begin, random_state=plan.seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = TPESampler(seed=plan.seed) if plan.search == "optuna" else RandomSampler(seed=plan.seed)
    metrics, modes = list(plan.metrics), list(plan.metrics.values())
    return OptunaSearch(
        space=plan.ask,
        metric=metrics[0] if len(metrics) == 1 else metrics,
        mode=modes[0] if len(modes) == 1 else modes,
        points_to_evaluate=[dict(values) for values in plan.begin],
        sampler=sampler,
    )


def _scheduler(plan: Plan) -> Any:
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining

    match plan.scheduler:
        case "asha":
            return ASHAScheduler(
                EPOCH,
                max_t=max(1, plan.epochs - 1),  # none is stopped at its last epoch: who comes so far writes a model
                grace_period=max(1, plan.epochs // REDUCTION**2),
                reduction_factor=REDUCTION,
                stop_last_trials=False,
            )
        case "pbt":
            return PopulationBasedTraining(
                EPOCH,
                perturbation_interval=max(1, plan.epochs // PERTURBATIONS),
                hyperparam_mutations=population(plan.distributions),
                custom_explore_fn=partial(_within, ranges=plan.distributions),
                require_attrs=False,
            )
        case "none":
            return FIFOScheduler()


def _within(values: dict[str, Any], *, ranges: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that PBT made by multiplying others, none beyond its range."""
    ends = {name: (ranges[name].low, ranges[name].high) for name in values if hasattr(ranges.get(name), "low")}
    return values | {name: min(max(values[name], low), high) for name, (low, high) in ends.items()}


def population(distributions: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """The ranges of numbers as Tune has them, for PBT draws and perturbs them itself.

    Words and switches stay as the config has them: weights do not fit a network that another of them makes.
    """
    domains = {name: _domain(distribution) for name, distribution in distributions.items()}
    return {name: domain for name, domain in domains.items() if domain is not None}


def _domain(distribution: BaseDistribution) -> Any:
    from optuna.distributions import FloatDistribution, IntDistribution
    from ray import tune

    match distribution:
        case FloatDistribution(log=True):
            return tune.loguniform(distribution.low, distribution.high)
        case FloatDistribution():
            return tune.uniform(distribution.low, distribution.high)
        case IntDistribution():
            return tune.randint(distribution.low, distribution.high + 1)
    return None
