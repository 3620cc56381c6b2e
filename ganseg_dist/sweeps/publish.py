"""What a sweep leaves in its folder: best.json, table.csv and figures."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ganseg_dist.atomic import write_csv, write_file, write_json
from ganseg_dist.errors import RunError
from ganseg_dist.runs import find_sweep, runs_root
from ganseg_dist.sweeps.figures import figures
from ganseg_dist.sweeps.record import Sweep, TrialRecord


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
            for trial in ranked(sweep)
        ],
    )  # fmt: skip
    pictures = []
    for name, figure in figures(sweep).items():
        picture = folder / f"{name}.png"
        write_file(picture, partial(figure.savefig, format="png"))
        pictures.append(picture)
    return (folder / "best.json", folder / "table.csv", *pictures)


def best_values(name: str) -> dict[str, Any]:
    """Of a sweep that has ended. Raises RunError when there is none of this name, or none that came to a score."""
    found = find_sweep(name)
    if found is None:
        raise RunError(f"{name}: is no sweep in {runs_root()}; give the name of one, as ganseg tune --run-name has it")
    if not (found.folder / "best.json").exists():
        raise RunError(f"{name}: has not ended; go on with: ganseg tune --resume {name}")
    values: dict[str, Any] = found.read("best.json")["values"]
    return values


def ranked(sweep: Sweep) -> list[TrialRecord]:
    """Scored trials from the best, then the others as they came."""
    first = sweep.metrics[0]
    scored = sorted(sweep.scored, key=lambda trial: trial.scores[first.name], reverse=first.mode == "max")
    return [*scored, *(trial for trial in sweep.trials if trial not in scored)]


def table_of(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    """Header and cells for a terminal, best first."""
    names = _fields(sweep)
    metrics = [metric.name for metric in sweep.metrics]
    short = [name.partition(".")[2] or name for name in names]
    rows = [
        [
            trial.name,
            *(f"{trial.scores[name]:.4f}" if name in trial.scores else "–" for name in metrics),
            *(_cell(trial.values.get(name, "")) for name in names),
            str(trial.epochs),
            trial.ending,
        ]
        for trial in ranked(sweep)
    ]
    return ["trial", *metrics, *short, "epochs", "ending"], rows


def _fields(sweep: Sweep) -> list[str]:
    return list(dict.fromkeys(name for trial in sweep.trials for name in trial.values))


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
