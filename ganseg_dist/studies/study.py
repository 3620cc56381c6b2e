"""A study: trials of one request, in one folder from which an interrupted study resumes.

runs/NAME/study.json           the request: the study's kind (folds, federation, sweep, ...) and its trials
runs/NAME/trials/TRIAL.json    the result of a trial that has ended
runs/NAME.TRIAL/               a trial's own run, like any other, where it trains one
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from ganseg_dist.atomic import write_json
from ganseg_dist.config import RunConfig
from ganseg_dist.config.operational import fixed_change, result_config
from ganseg_dist.digests import Damaged, read_sealed, sealed
from ganseg_dist.errors import RunError
from ganseg_dist.inference.model_folder import is_model_folder
from ganseg_dist.names import SAFE
from ganseg_dist.runs import SWEEP, Run, candidate_folders, name_of_trial, named_run, runs_root
from ganseg_dist.studies.trial import TrialResult

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Study:
    """One study's folder and its request."""

    run: Run
    """The folder."""
    request: Mapping[str, Any]
    """study.json: `kind`, `trials` (how many, or what each is by name), and what else decides the results."""

    @classmethod
    def load(cls, run: Run) -> Study:
        """Raises RunError when the folder has no record, or a damaged one."""
        request, file = run.read("study.json"), run.folder / "study.json"
        if not isinstance(request.get("kind"), str) or not isinstance(request.get("trials"), int | dict):
            raise RunError(f"{file}: states no kind and no trials; restore it")
        study = Study(run, request)
        for trial in study.trial_names:
            if not SAFE.fullmatch(trial):
                raise RunError(f"{file}: trial {trial!r} names no file; restore it")
        return study

    @classmethod
    def of_request(cls, run: Run, request: Mapping[str, Any]) -> Study:
        """The study of this request in a new folder, or the existing one, which resumes; nothing is written.

        Raises RunError when the folder is a run's, or a study's of another request some of whose trials have started;
        operational fields of configs may differ.
        """
        study = Study(run, json.loads(json.dumps(request)))
        if (run.folder / "study.json").exists():
            earlier = Study.load(run)
            change = _fixed_change(earlier, study)
            if change is not None and earlier.has_trials:
                raise RunError(f"{run.name}: was started with {change}; choose another --run-name")
        elif run.folder.exists() and any(run.folder.iterdir()):
            kind = "a sweep" if study.is_sweep else "an experiment"
            raise RunError(f"{run.folder}: is a run, not {kind}; choose another --run-name")
        return study

    def begin(self) -> None:
        """Write study.json, so that the study can be resumed and its name is taken once a trial has started."""
        if not (self.folder / "study.json").exists() or self.run.read("study.json") != self.request:
            self.run.write("study.json", self.request)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.run.name

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.run.folder

    @property
    def is_sweep(self) -> bool:
        """Whether a search proposes the trials; those of an experiment are given."""
        return self.kind == SWEEP

    @property
    def kind(self) -> str:
        """`sweep`, or what an experiment compares, as in its command: folds, fractions, federation, ..."""
        return str(self.request["kind"])

    @property
    def trial_names(self) -> tuple[str, ...]:
        """Names of an experiment's trials; of a sweep's their numbers, from 001."""
        trials = self.request["trials"]
        return tuple(trials) if isinstance(trials, Mapping) else tuple(f"{n:03d}" for n in range(1, trials + 1))

    @property
    def run_hint(self) -> str:
        """Advice for a command that needs one run, with a trained run of this study, if any, as an example."""
        trained = (run.name for run in map(self.trial_run, self.trial_names) if is_model_folder(run.model))
        return "give a run" + "".join(f", such as {name}" for name in islice(trained, 1))

    def trial_run(self, trial: str) -> Run:
        """The run of a trial that trains one."""
        name, folder = name_of_trial(self.name, trial), self.folder.parent.resolve()
        return named_run(name) if folder == runs_root().resolve() else Run(folder / name)

    def result_file(self, trial: str) -> Path:
        """The file of a trial's result, which exists once the trial has ended."""
        return self.folder / "trials" / f"{trial}.json"

    def result(self, trial: str) -> TrialResult | None:
        """A trial's result; None where it has not ended, and with a warning where its file is damaged."""
        file = self.result_file(trial)
        if not (file.exists() or file.is_symlink()):
            return None
        try:
            return TrialResult.from_dict(read_sealed(file))
        except Damaged as damage:
            logger.warning("%s; the trial is scored again", damage)
            return None

    def results(self) -> dict[str, TrialResult]:
        """The results of the trials that have ended, by the trial's name, in the order of the trials."""
        results = {trial: self.result(trial) for trial in self.trial_names}
        return {trial: result for trial, result in results.items() if result is not None}

    def remaining(self) -> list[str]:
        """Trials without a result, and those that failed: what runs when the study is resumed."""
        results = self.results()
        return [trial for trial in self.trial_names if trial not in results or results[trial].state == "failed"]

    @property
    def has_trials(self) -> bool:
        """Whether a trial has begun: until then a study does not reserve its name."""
        folder = self.folder
        started = any((self.trial_run(trial).folder / "run.json").exists() for trial in self.trial_names)
        return started or any((folder / "trials").glob("*.json")) or (folder / "tune").exists()


def find_study(reference: str, kind: Literal["sweep", "experiment"]) -> Study | None:
    """The sweep, or the experiment, of this name or in this folder; None if there is none.

    Raises RunError as `Study.load` does.
    """
    folders = (folder for folder in candidate_folders(reference) if Run(folder).study_kind == kind)
    return next((Study.load(Run(folder.resolve())) for folder in folders), None)


def write_result(file: Path, result: TrialResult) -> None:
    """Write a trial's result to `Study.result_file`, whose presence marks the end of the trial."""
    write_json(file, sealed(asdict(result)))


def _fixed_change(earlier: Study, now: Study) -> str | None:
    """The first difference between two requests that changes the results, as text; None where there is none."""
    if earlier.request == now.request:
        return None
    before, after = _with_operational_defaults(earlier.request), _with_operational_defaults(now.request)
    field = next((name for name in after if before.get(name) != after[name]), None)
    if field is None:
        return None
    if not now.is_sweep:
        return f"other trials or data ({_describe_change(earlier, now, field)})"
    detail = f" ({_config_change(earlier.request, now.request)})" if field == "config" else ""
    return f"another {field}{detail}"


def _describe_change(earlier: Study, now: Study, field: str) -> str:
    """The first difference between two experiments that differ in this field, as text."""
    before, after = earlier.request.get(field), now.request[field]
    if field != "trials" or before is None:
        return f"{field} was {before}, is {after}"
    for name in (*before, *after):
        if name not in after or name not in before:
            return f"trial {name} is {'no longer' if name in before else 'new'} among them"
        if "config" in after[name] and (change := _config_change(before[name], after[name])) is not None:
            return change
    return "other patients"


def _config_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    return fixed_change(*(RunConfig.from_json(json.dumps(entry["config"])) for entry in (before, after)))


def _with_operational_defaults(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A request, or a trial of it, with the operational fields of every config at their defaults."""
    values = dict(entry)
    if "config" in values:
        config = RunConfig.from_json(json.dumps(values["config"]), "study.json: config")
        values["config"] = result_config(config).model_dump(mode="json")
    if isinstance(trials := values.get("trials"), Mapping):
        values["trials"] = {name: _with_operational_defaults(trial) for name, trial in trials.items()}
    return values
