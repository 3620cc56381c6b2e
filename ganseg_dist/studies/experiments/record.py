"""A finished or unfinished experiment in its folder: its kind, its trials, and the models of its folds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ganseg_dist.errors import RunError
from ganseg_dist.inference.model_folder import is_model_folder
from ganseg_dist.names import SAFE
from ganseg_dist.runs import Run, candidate_folders, name_of_trial, named_run, runs_root


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
        """The table of the finished trials' scores."""
        return self.folder / "table.csv"

    @property
    def figure(self) -> Path:
        """The table's figure."""
        return self.folder / "figure.png"

    def outcome(self, trial: str) -> Path:
        """The file of a trial's scores, which exists once the trial is finished."""
        return self.folder / "trials" / f"{trial}.json"

    def run(self, trial: str) -> Run:
        """The run of a trial that trains one."""
        name = name_of_trial(self.name, trial)
        return named_run(name) if self.folder.parent == runs_root().resolve() else Run(self.folder.parent / name)

    @property
    def run_hint(self) -> str:
        """Advice for a command that needs one run, with a trained run of this experiment, if any, as an example."""
        trained = (run.name for run in map(self.run, self.trials) if is_model_folder(run.model))
        return "give a run" + "".join(f", such as {name}" for name in islice(trained, 1))


def find_experiment(reference: str) -> Experiment | None:
    """The experiment of this name or in this folder; None if there is none.

    Raises RunError when its record is damaged.
    """
    for folder in candidate_folders(reference):
        if Run(folder).is_experiment:
            return _read(folder.resolve())
    return None


def check_folds(experiment: Experiment) -> None:
    """Raises RunError when a fold is unfinished, or when the experiment is of another kind."""
    name = experiment.name
    if experiment.kind != "folds":
        raise RunError(
            f"{name}: is an experiment of {experiment.kind}, and only folds make an ensemble; {experiment.run_hint}"
        )
    missing = [trial for trial in experiment.trials if not experiment.outcome(trial).is_file()]
    if missing:
        raise RunError(
            f"{name}: lacks {', '.join(missing)} of {len(experiment.trials)} folds; start the same ganseg "
            "experiment folds command again, which goes on where it was"
        )


def fold_models(experiment: Experiment) -> dict[str, Path]:
    """The model folder of each fold, by the fold's name.

    Raises RunError when a fold is missing, or when the experiment is of another kind: its trials deliberately differ in
    their patients or their recipe.
    """
    check_folds(experiment)
    for trial in experiment.trials:
        run = experiment.run(trial)
        if not is_model_folder(run.model):
            raise RunError(
                f"{experiment.name}: {trial} has no model in {run.model}; restore it, or remove {run.folder} and "
                f"{experiment.outcome(trial)} and start the same ganseg experiment folds command again"
            )
    return {trial: experiment.run(trial).model for trial in experiment.trials}


def _read(folder: Path) -> Experiment:
    file, description = folder / "experiment.json", Run(folder).read("experiment.json")
    try:
        kind, trials = description["kind"], tuple(description["trials"])
    except (KeyError, TypeError):
        raise RunError(f"{file}: tells no kind and no trials; restore it") from None
    for trial in trials:
        if not SAFE.fullmatch(str(trial)):
            raise RunError(f"{file}: trial {trial!r} names no file; restore it")
    return Experiment(folder, kind, trials)
