"""Trials on Ray Tune: samples values, stops bad trials, and resumes after a kill."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ganseg_dist.environment import environment
from ganseg_dist.errors import RunError, one_line

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

Scheduler = Literal["asha", "pbt", "none"]
Search = Literal["optuna", "random"]

EPOCH = "epoch"
"""Metric with which a trial reports the epoch of its last stage."""
A_BYTE = 1
RETRIES = 2
"""Times that a trial whose process died resumes from its last checkpoint."""
REDUCTION = 3
"""Of ASHA: one in this many trials continues past each rung."""
PERTURBATIONS = 5
"""Of PBT: times in a training that worse trials take over a better one's weights."""

ENVIRONMENT: Mapping[str, str | None] = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # with the handler an interrupted sweep looks finished
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial's earlier stages lack the metric
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the trials' runs already hold what Tune would log
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a table of settings at any verbosity
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@dataclass(frozen=True, slots=True)
class TunePlan:
    """How a sweep searches its space."""

    sample: Callable[[BaseTrial], None]
    first_values: Sequence[Mapping[str, Any]]
    """Values of the first trials, by field."""
    distributions: Mapping[str, BaseDistribution]
    """By field, with ranges; PBT changes those of numbers."""
    trials: int
    scheduler: Scheduler
    search: Search
    metrics: Mapping[str, Literal["max", "min"]]
    epochs: int
    """Most epochs of the last stage."""
    seed: int
    cpus: float
    gpus: float
    """Of each trial, like `cpus`."""
    max_concurrent: int | None = None
    """Most trials that run at the same time; None: as many as the cluster has room for."""


@dataclass(frozen=True, slots=True)
class TuneResult:
    """Result of an ended trial."""

    number: str
    values: Mapping[str, Any]
    """Of the space's fields; under PBT the final ones."""
    scores: Mapping[str, Any]
    """Its last report; empty if it made none."""
    failed: bool
    reason: str = ""
    """Why it failed, in one line."""


def run_trials(
    plan: TunePlan, trial: Callable[[dict[str, Any]], None], folder: Path, on_end: Callable[[TuneResult], None]
) -> list[TuneResult]:
    """Run every trial to its end, or resume an interrupted call. A failed trial does not end the others.

    Args:
        trial: trains with given values of fields, and reports to Tune.
        folder: of the sweep; Tune keeps its state in it, which is read again as it was written, by this user.
        on_end: called with each trial that ends; an exception of it ends the sweep.

    Raises RunError where Tune's state is damaged.
    """
    from ray import tune

    from ganseg_dist.compat.ray import set_tuner_callbacks

    watcher = _watcher(on_end)

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial's run records why it failed
    state = folder / "tune"
    # A trial that only waits for its own workers needs no CPU, but Tune does not start a trial without any resource.
    trainable = tune.with_resources(trial, {"cpu": plan.cpus, "gpu": plan.gpus, "memory": A_BYTE})
    with environment(ENVIRONMENT):
        if tune.Tuner.can_restore(str(state)):
            tuner = _restored(state, trainable)
            set_tuner_callbacks(tuner, [watcher])
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
            if watcher.raised is not None:  # which Tune has wrapped in its own error
                raise watcher.raised from None
            raise
        if len(results) < plan.trials:  # with a damaged list of trials Tune continues silently
            raise _damaged(state, f"has {len(results)} of {plan.trials} trials")
        return [
            TuneResult(
                Path(result.path).name,
                result.config or {},
                result.metrics or {},
                result.error is not None,
                "" if result.error is None else _reason(result.error),
            )
            for result in results
        ]


def _restored(state: Path, trainable: Any) -> Any:
    """A tuner from Tune's stored state. Raises RunError if it is damaged, whichever error Tune or pickle raises."""
    from ray import tune

    try:
        return tune.Tuner.restore(str(state), trainable, resume_unfinished=True, resume_errored=True)
    except Exception as error:
        raise _damaged(state, f"cannot be read ({type(error).__name__})") from None


def _damaged(state: Path, problem: str) -> RunError:
    return RunError(
        f"{state}: Ray Tune's state {problem}; delete it and rerun the same command: trials that have "
        "finished are not trained again"
    )


def _reason(error: Any) -> str:
    """Last line of the error of a trial's process, up to 300 characters; `its process died` for a lost one."""
    from ray.exceptions import RayActorError

    if error is None or isinstance(error, RayActorError):
        return "its process died"
    return one_line(getattr(error, "cause", None) or error, last=True)


def _tune_config(plan: TunePlan) -> Any:
    from ray import tune

    single = next(iter(plan.metrics.items())) if len(plan.metrics) == 1 else (None, None)
    return tune.TuneConfig(
        metric=single[0],
        mode=single[1],
        num_samples=plan.trials,
        search_alg=_searcher(plan),
        scheduler=_scheduler(plan),
        max_concurrent_trials=plan.max_concurrent,
        reuse_actors=True,
        trial_name_creator=partial(_number, counted_from=0 if plan.scheduler == "pbt" else 1),
        trial_dirname_creator=str,  # its name
    )


def _number(trial: Any, *, counted_from: int) -> str:
    """`003` for the third trial, from Tune's tag, such as `3_train.learning_rate=0.001`.

    A generator without a searcher counts tags from 0.
    """
    match = re.match(r"\d+", str(trial.experiment_tag))
    assert match is not None
    return f"{int(match[0]) + 1 - counted_from:03d}"


def _watcher(on_end: Callable[[TuneResult], None]) -> Any:
    from ray.tune import Callback

    class Watcher(Callback):
        def __init__(self, on_end: Callable[[TuneResult], None]) -> None:
            self.on_end = on_end
            self.raised: Exception | None = None

        def __getstate__(self) -> dict[str, Any]:
            """Nothing, as Tune pickles its callbacks and `on_end` may hold a terminal's progress bar."""
            return {}

        def report(self, trial: Any, *, failed: bool) -> None:
            reason = _reason(trial.get_error()) if failed else ""
            try:
                self.on_end(TuneResult(str(trial), trial.config, trial.last_result or {}, failed, reason))
            except Exception as error:
                self.raised = error
                raise

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.report(trial, failed=False)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.report(trial, failed=True)

    return Watcher(on_end)


def _searcher(plan: TunePlan) -> Any:
    """Optuna's samplers, which alone support spaces in which a field depends on another; for PBT Tune's generator."""
    import optuna
    from optuna.samplers import RandomSampler, TPESampler
    from ray.tune.search.basic_variant import BasicVariantGenerator
    from ray.tune.search.optuna import OptunaSearch

    if plan.scheduler == "pbt":
        first = [{name: values[name] for name in population(plan.distributions)} for values in plan.first_values]
        return BasicVariantGenerator(points_to_evaluate=first, random_state=plan.seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = TPESampler(seed=plan.seed) if plan.search == "optuna" else RandomSampler(seed=plan.seed)
    metrics, modes = list(plan.metrics), list(plan.metrics.values())
    return OptunaSearch(
        space=plan.sample,
        metric=metrics[0] if len(metrics) == 1 else metrics,
        mode=modes[0] if len(modes) == 1 else modes,
        points_to_evaluate=[dict(values) for values in plan.first_values],
        sampler=sampler,
    )


def _scheduler(plan: TunePlan) -> Any:
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining

    match plan.scheduler:
        case "asha":
            return ASHAScheduler(
                EPOCH,
                max_t=max(1, plan.epochs - 1),  # no trial is stopped at its last epoch, so that it writes a model
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
    """The values with PBT's multiplied numbers clipped to their ranges."""
    ends = {name: (ranges[name].low, ranges[name].high) for name in values if hasattr(ranges.get(name), "low")}
    return values | {name: min(max(values[name], low), high) for name, (low, high) in ends.items()}


def population(distributions: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """The ranges of numbers as Tune's domains, as PBT samples and perturbs numbers itself.

    Categorical fields keep the config's values: weights would not fit a network of another value.
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
