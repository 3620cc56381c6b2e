"""What a sweep leaves in its folder: best.json, table.csv and figures."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ganseg_dist.atomic import write_csv, write_file, write_json
from ganseg_dist.errors import RunError
from ganseg_dist.inference.model_folder import weights_digest
from ganseg_dist.runs import Run, find_sweep, runs_root
from ganseg_dist.sweeps.figures import figures
from ganseg_dist.sweeps.record import Sweep, as_set


def save_sweep(sweep: Sweep) -> tuple[Path, ...]:
    """Write them; returns their paths. Raises RunError when no trial was scored."""
    folder, best = sweep.run.folder, sweep.best
    write_json(
        folder / "best.json",
        {"trial": best.name, "values": dict(best.values), "scores": dict(best.scores), "epochs": best.epochs},
    )
    names = _fields(sweep)
    write_csv(
        folder / "table.csv",
        [
            {"trial": trial.name, **dict(trial.scores), **{name: trial.values.get(name, "") for name in names},
             "epochs": trial.epochs, "ending": trial.ending, "reason": trial.reason, "seconds": round(trial.seconds, 1)}
            for trial in sweep.ranked
        ],
    )  # fmt: skip
    pictures = []
    for name, figure in figures(sweep).items():
        picture = folder / f"{name}.png"
        write_file(picture, partial(figure.savefig, format="png"))
        pictures.append(picture)
    return (folder / "best.json", folder / "table.csv", *pictures)


def best_values(name: str) -> dict[str, Any]:
    """Fields of the config by their best values.

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
        raise RunError(f"{name}: is no sweep in {runs_root()}; give the name of one, as ganseg tune --run-name has it")
    if not (found.folder / "best.json").exists():
        raise RunError(f"{name}: has not ended; go on with: ganseg tune --resume {name}")
    return found.read("sweep.json"), found.read("best.json")["values"]


def table_of(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    """Header and cells for a terminal, best first."""
    names = _fields(sweep)
    metrics = [metric.name for metric in sweep.metrics]
    trained = any(trial.epochs for trial in sweep.trials)  # thresholds are not
    short = [name.partition(".")[2] or name for name in names]
    rows = [
        [
            trial.name,
            *(f"{trial.scores[name]:.4f}" if name in trial.scores else "–" for name in metrics),
            *(_cell(trial.values.get(name, "")) for name in names),
            *([str(trial.epochs)] if trained else []),
            trial.ending,
        ]
        for trial in sweep.ranked
    ]
    return ["trial", *metrics, *short, *(["epochs"] if trained else []), "ending"], rows


def _fields(sweep: Sweep) -> list[str]:
    return list(dict.fromkeys(name for trial in sweep.trials for name in trial.values))


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else as_set(value)
