"""What a sweep leaves in its folder: best.json, table.csv and figures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ganseg_dist.atomic import write_csv, write_file
from ganseg_dist.drawing import save_png
from ganseg_dist.errors import RunError
from ganseg_dist.inference.model_folder import weights_digest
from ganseg_dist.runs import Run, find_sweep, runs_root
from ganseg_dist.studies.sweeps.figures import figures
from ganseg_dist.studies.sweeps.metric import Metric
from ganseg_dist.studies.sweeps.record import Sweep, TrialRecord, as_set
from ganseg_dist.studies.sweeps.study import pareto_front


def save_sweep(sweep: Sweep) -> tuple[Path, ...]:
    """Write them; returns their paths. Raises RunError when no trial was scored."""
    folder, best, front = sweep.run.folder, sweep.best, front_of(sweep)
    told = {"chosen": chosen_by(sweep), **_told(best), "front": [_told(trial) for trial in front]}
    sweep.run.write("best.json", told)
    names = _fields(sweep)
    write_csv(folder / "table.csv", [_row(trial, front, names) for trial in sweep.ranked])
    pictures = []
    for name, figure in figures(sweep).items():
        picture = folder / f"{name}.png"
        write_file(picture, partial(save_png, figure))
        pictures.append(picture)
    return (folder / "best.json", folder / "table.csv", *pictures)


def _row(trial: TrialRecord, front: Sequence[TrialRecord], names: Sequence[str]) -> dict[str, Any]:
    """Of table.csv."""
    return {
        "trial": trial.name,
        **trial.scores,
        **({"front": trial in front} if front else {}),
        **{name: trial.values.get(name, "") for name in names},
        "epochs": trial.epochs,
        "ending": trial.ending,
        "reason": trial.reason,
        "seconds": round(trial.seconds, 1),
    }


def front_of(sweep: Sweep) -> tuple[TrialRecord, ...]:
    """Trials of the Pareto front, the best in the first metric first; of one metric there is none."""
    front = pareto_front(sweep) if len(sweep.metrics) > 1 else ()
    return tuple(trial for trial in sweep.ranked if trial in front)


def chosen_by(sweep: Sweep) -> str:
    """How the best trial is told from the others, in words."""
    first = sweep.metrics[0]
    extreme = "largest" if first.mode == "max" else "smallest"
    chosen = f"{extreme} {first.name} of the trials that were finished"
    front = front_of(sweep)
    if front:
        chosen += f"; others of the front are taken by their names, such as --from-sweep {front[-1].name}"
    if sweep.run.read("sweep.json").get("scheduler") == "pbt":
        chosen += "; the values are those of its end, and it had others before"
    return chosen


def best_values(name: str) -> dict[str, Any]:
    """Fields of the config by their best values in a sweep, or by those of one trial that is named: `sweep.003`.

    Raises RunError when there is no sweep of this name, it has not ended, or it is of thresholds.
    """
    said, best = _ended(name)
    if "run" in said:
        raise RunError(
            f"{name}: is a sweep of thresholds, which a trained model takes: "
            f"ganseg calibrate {said['run']} --from-sweep {name}"
        )
    return best


def best_thresholds(name: str, run: Run) -> tuple[dict[str, float], int]:
    """The best thresholds of a run's model, and of how many validation patients they are.

    Raises RunError when there is no sweep of this name, it has not ended, or it is not of this model's thresholds.
    """
    said, best = _ended(name)
    if said.get("run") != run.name:
        other = f"the thresholds of {said['run']}" if "run" in said else "fields of a recipe"
        raise RunError(f"{name}: is a sweep of {other}; search: ganseg tune {run.name} --space thresholds")
    if said["weights"] != weights_digest(run.model):
        raise RunError(f"{name}: is of an earlier model of {run.name}; search again under another --run-name")
    return best, said["patients"]


def _ended(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was asked of a sweep, and its best values."""
    found = find_sweep(name)
    if found is None:
        found, trial = _trial_of(name)
        return found.read("sweep.json"), dict(trial.values)
    known = (found.folder / "best.json").exists()
    return found.read("sweep.json"), found.read("best.json")["values"] if known else dict(Sweep.of(found).best.values)


def _trial_of(name: str) -> tuple[Run, TrialRecord]:
    """The sweep of a trial, and the trial."""
    found = find_sweep(name.rpartition(".")[0])
    if found is None:
        raise RunError(f"{name}: is no sweep in {runs_root()}; give the name of one, as ganseg tune --run-name has it")
    of_name = [trial for trial in Sweep.of(found).scored if trial.number == name.rpartition(".")[2]]
    if not of_name:
        raise RunError(f"{name}: is no trial of {found.name} that came to a score; see: ganseg report {found.name}")
    return found, of_name[0]


def _told(trial: TrialRecord) -> dict[str, Any]:
    return {"trial": trial.name, "values": dict(trial.values), "scores": dict(trial.scores), "epochs": trial.epochs}


def table_of(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    """Header and cells for a terminal, best first."""
    names, front = _fields(sweep), front_of(sweep)
    trained = any(trial.epochs for trial in sweep.trials)  # thresholds are not
    short = [name.partition(".")[2] or name for name in names]
    rows = [
        [
            trial.name,
            trial.ending,
            *([str(trial.epochs)] if trained else []),
            *(_score(trial, metric) for metric in sweep.metrics),
            *(["front" if trial in front else ""] if front else []),
            *(_cell(trial.values.get(name, "")) for name in names),
        ]
        for trial in sweep.ranked
    ]
    metrics = [metric.name for metric in sweep.metrics]
    header = ["trial", "ending", *(["epochs"] if trained else []), *metrics, *(["Pareto"] if front else []), *short]
    return header, rows


def _score(trial: TrialRecord, metric: Metric) -> str:
    return metric.shown(trial.scores[metric.name]) if metric.name in trial.scores else "–"


def _fields(sweep: Sweep) -> list[str]:
    return list(dict.fromkeys(name for trial in sweep.trials for name in trial.values))


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else as_set(value)
