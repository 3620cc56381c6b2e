"""An experiment as other commands find it: its kind, its trials, and the models of its folds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ganseg_dist.errors import RunError
from ganseg_dist.inference.model_folder import is_model_folder
from ganseg_dist.names import SAFE
from ganseg_dist.runs import Run, name_of_trial, named_run, places_of, runs_root


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment's folder."""

    folder: Path
    kind: str
    """The command that ran it, such as folds."""
    trials: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def table(self) -> Path:
        """What its finished trials scored."""
        return self.folder / "table.csv"

    @property
    def figure(self) -> Path:
        """The same, drawn."""
        return self.folder / "figure.png"

    def outcome(self, trial: str) -> Path:
        """What a trial scored, there once it is finished."""
        return self.folder / "trials" / f"{trial}.json"

    def run(self, trial: str) -> Run:
        """The trial's own run, of those that train one."""
        name = name_of_trial(self.name, trial)
        return named_run(name) if self.folder.parent == runs_root().resolve() else Run(self.folder.parent / name)

    @property
    def give_a_run(self) -> str:
        """What to do where one run is needed, with an example if it has trained one."""
        trained = (run.name for run in map(self.run, self.trials) if is_model_folder(run.model))
        return "give a run" + "".join(f", such as {name}" for name in islice(trained, 1))


def find_experiment(reference: str) -> Experiment | None:
    """An experiment by its name or its folder; none where that is not one's.

    Raises RunError when its record is damaged.
    """
    for folder in places_of(reference):
        if Run(folder).is_experiment:
            return _read(folder.resolve())
    return None


def fold_models(experiment: Experiment) -> dict[str, Path]:
    """The model folder of each fold, by the fold's name.

    Raises RunError when a fold is missing, or when the trials are no folds: those of other experiments learn from
    too few patients, or by another recipe, on purpose.
    """
    name = experiment.name
    if experiment.kind != "folds":
        raise RunError(
            f"{name}: is an experiment of {experiment.kind}, and only folds make an ensemble; {experiment.give_a_run}"
        )
    missing = [trial for trial in experiment.trials if not experiment.outcome(trial).is_file()]
    if missing:
        raise RunError(
            f"{name}: lacks {', '.join(missing)} of {len(experiment.trials)} folds; start the same ganseg "
            "experiment folds command again, which goes on where it was"
        )
    for trial in experiment.trials:
        run = experiment.run(trial)
        if not is_model_folder(run.model):
            raise RunError(
                f"{name}: {trial} has no model in {run.model}; restore it, or remove {run.folder} and "
                f"{experiment.outcome(trial)} and start the same ganseg experiment folds command again"
            )
    return {trial: experiment.run(trial).model for trial in experiment.trials}


def _read(folder: Path) -> Experiment:
    file, asked = folder / "experiment.json", Run(folder).read("experiment.json")
    try:
        kind, trials = asked["kind"], tuple(asked["trials"])
    except (KeyError, TypeError):
        raise RunError(f"{file}: tells no kind and no trials; restore it") from None
    for trial in trials:
        if not SAFE.fullmatch(str(trial)):
            raise RunError(f"{file}: trial {trial!r} names no file; restore it")
    return Experiment(folder, kind, trials)
