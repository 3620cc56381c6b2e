"""Search a space with Ray Tune, recording the result of each trial that ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ganseg_dist.cluster.tune import TunePlan, TuneResult, run_trials
from ganseg_dist.errors import RunError
from ganseg_dist.runs import Run, RunRecord
from ganseg_dist.studies.study import Study, write_result
from ganseg_dist.studies.sweeps.sweep import Sweep
from ganseg_dist.studies.trial import TrialResult
from ganseg_dist.tracking.results import log_trial, tracked
from ganseg_dist.training.run_training import only_trainer

SAME_ERRORS = 3
"""Number of first trials that must all fail with one error for the sweep to be abandoned."""

Watch = Callable[[TrialResult, int], None]
"""Called with each trial that ends and the number that have ended."""


def search(
    study: Study,
    plan: TunePlan,
    train: Callable[[dict[str, Any]], None],
    result_of: Callable[[TuneResult], TrialResult],
    watch: Watch,
) -> Sweep:
    """Run every trial to its end, or resume an interrupted search. `train` is as `run_trials` calls it.

    Raises RunError when the first trials all fail with the same error.
    """
    ended: list[TrialResult] = []

    def on_end(trial: TuneResult) -> None:
        result = result_of(trial)
        write_result(study.result_file(trial.number), result)
        ended.append(result)
        _log_to_mlflow(study.trial_run(trial.number), result)
        watch(result, len(ended))
        check_failures(study.name, ended)

    for trial in run_trials(plan, train, study.folder, on_end):
        result, run = result_of(trial), study.trial_run(trial.number)
        write_result(study.result_file(trial.number), result)
        if result.state == "stopped" and (run.folder / "run.json").exists():
            _end_run(run, "stopped")  # Tune killed its process
    return Sweep.of(study)


def check_failures(name: str, ended: Sequence[TrialResult]) -> None:
    """Raises RunError when the first trials all ended by one error, as the others would too."""
    reasons = {trial.reason.replace(trial.name, "a trial") for trial in ended}
    if len(ended) == SAME_ERRORS and len(reasons) == 1 and all(trial.state == "failed" for trial in ended):
        raise RunError(
            f"{name}: {SAME_ERRORS} trials, one after the other, ended by the same error: {ended[0].reason}; fix it, "
            f"and resume with: ganseg tune --resume {name}"
        )


@contextmanager
def mark_interrupted_trials(named_run: Run) -> Iterator[None]:
    """Mark running trials as interrupted when the sweep ends early: their processes are killed before they can.

    Leaves them alone where another process runs this sweep: its trials are still being trained.
    """
    try:
        yield
    except BaseException:
        if named_run.study_kind == "sweep":
            with suppress(RunError), only_trainer(named_run):
                study = Study.load(named_run)
                for run in map(study.trial_run, study.trial_names):
                    about = run.find_record("run.json", RunRecord) or RunRecord()
                    if about.sweep == study.name and about.status in ("started", "training"):
                        _end_run(run, "interrupted")
        raise


def _log_to_mlflow(run: Run, trial: TrialResult) -> None:
    if (run.folder / "run.json").exists():
        # An error message may hold paths and patients, which must not reach a server.
        reason = trial.reason if trial.state in ("stopped", "diverged") else ""
        log_trial(tracked(run), trial.scores, {"ganseg.ending": trial.state, "ganseg.reason": reason})


def _end_run(run: Run, status: str) -> None:
    """Write a trial's final status to its folder and to MLflow, in place of the trial's process."""
    run.describe(status=status, error=None)
    tracked(run).end("KILLED")
