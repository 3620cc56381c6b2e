"""Write a sweep's results to its folder: best.json, table.csv, figures and the HTML report."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ganseg_dist.atomic import write_csv, write_file, write_text
from ganseg_dist.errors import RunError
from ganseg_dist.inference.model_folder import weights_digest
from ganseg_dist.plots import Figure
from ganseg_dist.plots.save import save_png
from ganseg_dist.plots.trials import Trial, curve_figure, front_figure, parallel_figure, share_figure, value_figure
from ganseg_dist.plural import counted
from ganseg_dist.report.page import page_environment
from ganseg_dist.runs import Run, runs_root
from ganseg_dist.studies.study import Study, find_study
from ganseg_dist.studies.sweeps.metric import Metric
from ganseg_dist.studies.sweeps.sweep import ENOUGH_FOR_IMPORTANCE, Sweep, importances, pareto_front, setting_text
from ganseg_dist.studies.trial import TrialResult

TITLES = {
    "curves": "Scores of the trials by epoch",
    "slices": "The score over each threshold: the first trial and the best in colour",
    "parallel": "Values and scores: an axis for each varied field, a line for each trial, the best in colour",
    "importance": "Importance of the fields",
    "pareto": "Pareto front of the metrics",
}


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
    """The rule by which the best trial is chosen, as text."""
    first = sweep.metrics[0]
    extreme = "largest" if first.mode == "max" else "smallest"
    chosen = f"{extreme} {first.name} of the trials that were finished"
    front = front_of(sweep)
    if front:
        chosen += f"; others of the front are taken by their names, such as --from-sweep {front[-1].name}"
    if sweep.request.get("scheduler") == "pbt":
        chosen += "; the values are those at its end, after changes in training"
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
        raise RunError(f"{name}: is no sweep in {runs_root()}; give the --run-name of a ganseg tune command")
    for trial in Sweep.of(study).scored:
        if trial.number == number:
            return study, dict(trial.values)
    raise RunError(f"{name}: is no scored trial of {study.name}; see: ganseg report {study.name}")


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


def write_page(sweep: Sweep) -> Path:
    """Write report.html, self-contained, into the sweep's folder, with the figures that exist there.

    Raises RunError when no trial was scored.
    """
    folder = sweep.folder
    pictures = [
        (title, base64.b64encode((folder / f"{name}.png").read_bytes()).decode())
        for name, title in TITLES.items()
        if (folder / f"{name}.png").exists()
    ]
    header, rows = table_of(sweep)
    page = (
        page_environment("studies/sweeps", "report")
        .get_template("sweep.html.j2")
        .render(
            sweep=sweep,
            patients=counted(sweep.patients, "validation patient"),
            chosen=chosen_by(sweep),
            states=Counter(trial.state for trial in sweep.trials),
            pictures=pictures,
            importance=(folder / "importance.png").exists(),
            enough=ENOUGH_FOR_IMPORTANCE,
            header=header,
            rows=rows,
        )
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def figures(sweep: Sweep) -> dict[str, Figure]:
    """Figures by file name: curves where trials trained, importance with enough trials, a front of several metrics."""
    title = _title(sweep)
    plots = {}
    if any(trial.curve for trial in sweep.trials):
        plots["curves"] = _curves(sweep, title)
    if not any(trial.epochs for trial in sweep.trials):  # a search of thresholds, which every trial sets
        plots["slices"] = value_figure(title, sweep.metrics[0].name, [_trial(sweep, trial) for trial in sweep.scored])
    plots["parallel"] = _parallel(sweep, title)
    shares = importances(sweep)
    if shares:
        label = f"share of the variance of {sweep.metrics[0].name} over {len(sweep.scored)} trials"
        plots["importance"] = share_figure("Importance (fANOVA) of the fields that every trial has", label, shares)
    if len(sweep.metrics) > 1:
        plots["pareto"] = _pareto(sweep, title)
    return plots


def _trial(sweep: Sweep, trial: TrialResult) -> Trial:
    """A trial for the figures, with the first metric as its score."""
    role = "best" if trial == sweep.best else "first" if trial == sweep.trials[0] else ""
    score = trial.scores.get(sweep.metrics[0].name, math.nan)
    return Trial(role, score, trial.values, trial.curve, trial.kept, finished=trial.state == "finished")


def _curves(sweep: Sweep, title: str) -> Figure:
    first, best = sweep.trials[0], sweep.best
    label = f"first trial, {first.number}: published values or the recipe's"
    legend = {"first": label, "best": f"best trial, {best.number}"}
    if best == first:
        legend = {"best": f"{label}; also the best"}
    return curve_figure(title, sweep.metrics[0].name, [_trial(sweep, trial) for trial in sweep.trials], legend)


def _parallel(sweep: Sweep, title: str) -> Figure:
    """An axis per field that varies and per metric."""
    metrics = [metric.name for metric in sweep.metrics]
    rows = [{**trial.values, **{name: trial.scores[name] for name in metrics}} for trial in sweep.scored]
    fields = dict.fromkeys(name for trial in sweep.scored for name in trial.values)
    varying = [name for name in fields if len({str(row[name]) for row in rows if name in row}) > 1]
    sign = 1 if sweep.metrics[0].mode == "max" else -1
    goodness = [sign * row[metrics[0]] for row in rows]
    return parallel_figure(title, varying + metrics, rows, goodness, sweep.scored.index(sweep.best))


def _pareto(sweep: Sweep, title: str) -> Figure:
    x, y = sweep.metrics[:2]
    points = {trial.number: (trial.scores[x.name], trial.scores[y.name]) for trial in sweep.scored}
    front = {trial.number: points[trial.number] for trial in pareto_front(sweep)}
    return front_figure(title, (_axis_label(x), _axis_label(y)), list(points.values()), front)


def _axis_label(metric: Metric) -> str:
    return f"{metric.name} ({'higher' if metric.mode == 'max' else 'lower'} is better)"


def _title(sweep: Sweep) -> str:
    patients = counted(sweep.patients, "validation patient")
    return f"{sweep.run.name}: {len(sweep.trials)} trials of space {sweep.space}; {patients}"
