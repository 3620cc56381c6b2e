"""Write a sweep's results to its folder: best.json, table.csv and figures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ganseg_dist.atomic import write_csv, write_file
from ganseg_dist.errors import RunError
from ganseg_dist.inference.model_folder import weights_digest
from ganseg_dist.plots.save import save_png
from ganseg_dist.runs import Run, runs_root
from ganseg_dist.studies.study import Study, find_study
from ganseg_dist.studies.sweeps.figures import figures
from ganseg_dist.studies.sweeps.importance import pareto_front
from ganseg_dist.studies.sweeps.metric import Metric
from ganseg_dist.studies.sweeps.sweep import Sweep, setting_text
from ganseg_dist.studies.trial import TrialResult


def save_sweep(sweep: Sweep) -> tuple[Path, ...]:
    """Write best.json, table.csv and the figures; returns their paths. Raises RunError when no trial was scored."""
    folder, best, front = sweep.folder, sweep.best, front_of(sweep)
    record = {"chosen": chosen_by(sweep), **_trial_summary(best), "front": [_trial_summary(trial) for trial in front]}
    sweep.run.write("best.json", record)
    names = _fields(sweep)
    write_csv(folder / "table.csv", [_row(trial, front, names) for trial in sweep.ranked])
    pictures = []
    for name, figure in figures(sweep).items():
        picture = folder / f"{name}.png"
        write_file(picture, partial(save_png, figure))
        pictures.append(picture)
    return (folder / "best.json", folder / "table.csv", *pictures)


def _row(trial: TrialResult, front: Sequence[TrialResult], names: Sequence[str]) -> dict[str, Any]:
    """A row of table.csv."""
    return {
        "trial": trial.name,
        **trial.scores,
        **({"front": trial in front} if front else {}),
        **{name: trial.values.get(name, "") for name in names},
        "epochs": trial.epochs,
        "ending": trial.state,
        "reason": trial.reason,
        "seconds": round(trial.seconds, 1),
    }


def front_of(sweep: Sweep) -> tuple[TrialResult, ...]:
    """Trials of the Pareto front, best in the first metric first; empty with a single metric."""
    front = pareto_front(sweep) if len(sweep.metrics) > 1 else ()
    return tuple(trial for trial in sweep.ranked if trial in front)


def chosen_by(sweep: Sweep) -> str:
    """The rule by which the best trial is chosen, in words."""
    first = sweep.metrics[0]
    extreme = "largest" if first.mode == "max" else "smallest"
    chosen = f"{extreme} {first.name} of the trials that were finished"
    front = front_of(sweep)
    if front:
        chosen += f"; others of the front are taken by their names, such as --from-sweep {front[-1].name}"
    if sweep.request.get("scheduler") == "pbt":
        chosen += "; the values are those of its end, and it had others before"
    return chosen


def best_values(name: str) -> dict[str, Any]:
    """The best values of a sweep by field of the config, or the values of one trial that is named: `sweep.003`.

    Raises RunError when there is no sweep of this name, it has not ended, or it is of thresholds.
    """
    study, best = _sweep_and_best(name)
    if "run" in study.request:
        raise RunError(
            f"{name}: is a sweep of thresholds, which a trained model takes: "
            f"ganseg calibrate {study.request['run']} --from-sweep {name}"
        )
    return best


def best_thresholds(name: str, run: Run) -> tuple[dict[str, float], int]:
    """The best thresholds of a run's model, and the number of validation patients they were chosen on.

    Raises RunError when there is no sweep of this name, it has not ended, or it is not of this model's thresholds.
    """
    study, best = _sweep_and_best(name)
    swept = study.request.get("run")
    if swept != run.name:
        other = "fields of a recipe" if swept is None else f"the thresholds of {swept}"
        raise RunError(f"{name}: is a sweep of {other}; search: ganseg tune {run.name} --space thresholds")
    if study.request["weights"] != weights_digest(run.model):
        raise RunError(f"{name}: is of an earlier model of {run.name}; search again under another --run-name")
    return best, study.request["patients"]


def _sweep_and_best(name: str) -> tuple[Study, dict[str, Any]]:
    """A sweep and its best values, or those of one trial that is named, such as `sweep.003`.

    Raises RunError when there is no such sweep or scored trial.
    """
    study = find_study(name, "sweep")
    if study is not None:
        stored = (study.folder / "best.json").exists()
        return study, study.run.read("best.json")["values"] if stored else dict(Sweep.of(study).best.values)
    sweep, _, number = name.rpartition(".")
    study = find_study(sweep, "sweep")
    if study is None:
        raise RunError(f"{name}: is no sweep in {runs_root()}; give the name of one, as ganseg tune --run-name has it")
    for trial in Sweep.of(study).scored:
        if trial.number == number:
            return study, dict(trial.values)
    raise RunError(f"{name}: is no trial of {study.name} that came to a score; see: ganseg report {study.name}")


def _trial_summary(trial: TrialResult) -> dict[str, Any]:
    return {"trial": trial.name, "values": dict(trial.values), "scores": dict(trial.scores), "epochs": trial.epochs}


def table_of(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    """Header and cells for a terminal, best first."""
    names, front = _fields(sweep), front_of(sweep)
    trained = any(trial.epochs for trial in sweep.trials)  # thresholds are not
    short = [name.partition(".")[2] or name for name in names]
    rows = [
        [
            trial.name,
            trial.state,
            *([str(trial.epochs)] if trained else []),
            *(_score_cell(trial, metric) for metric in sweep.metrics),
            *(["front" if trial in front else ""] if front else []),
            *(_value_cell(trial.values.get(name, "")) for name in names),
        ]
        for trial in sweep.ranked
    ]
    metrics = [metric.name for metric in sweep.metrics]
    header = ["trial", "ending", *(["epochs"] if trained else []), *metrics, *(["Pareto"] if front else []), *short]
    return header, rows


def _score_cell(trial: TrialResult, metric: Metric) -> str:
    return metric.format_value(trial.scores[metric.name]) if metric.name in trial.scores else "–"


def _fields(sweep: Sweep) -> list[str]:
    return list(dict.fromkeys(name for trial in sweep.trials for name in trial.values))


def _value_cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else setting_text(value)
