"""Stored results of trials."""

from dataclasses import dataclass

import pytest

from ganseg_dist.atomic import write_json
from ganseg_dist.config import override
from ganseg_dist.digests import sealed
from ganseg_dist.errors import RunError
from ganseg_dist.evaluation.results import CaseRow
from ganseg_dist.runs import Run, named_run
from ganseg_dist.studies.experiments.run import run_experiment
from ganseg_dist.studies.study import Study, write_result
from ganseg_dist.studies.trial import TrialResult
from ganseg_dist.systems import recipe
from ganseg_dist.tracking.tracked_run import TrackedRun
from ganseg_dist.training.run_training import only_trainer

STUDY = {"kind": "folds", "labels": "brats", "trials": {"first": {}}}


@pytest.mark.parametrize("known", [True, False])
def test_trial_result_round_trips(known, tmp_path):
    kept = TrialResult("e.first", {"arm": "cnn", "seed": 0}, 2.0, (CaseRow("c", "p", "x", {"correct": 1.0}),), known)
    study = Study(Run(tmp_path), STUDY)
    write_result(study.result_file("first"), kept)
    assert study.result("first") == kept


def test_trial_result_patients_known_defaults_to_true(tmp_path):
    study = Study(Run(tmp_path), STUDY)
    write_json(study.result_file("first"), sealed({"name": "e.first", "values": {}, "seconds": 1.0, "rows": []}))
    assert study.result("first").patients_known


def test_study_rejects_other_label_scheme(own_runs):
    found = named_run("e")
    Study.of_request(found, STUDY).begin()
    write_json(found.folder / "trials" / "first.json", {})
    Study.of_request(found, STUDY).begin()
    with pytest.raises(RunError, match="labels was brats, is brats2023"):
        Study.of_request(found, STUDY | {"labels": "brats2023"})


@pytest.mark.parametrize("kind", ["fractions", "sweep"])
def test_study_resumes_with_operational_fields_alone_changed(own_runs, kind):
    def request(**changes):
        config = {"config": override(recipe("ganet_seg_debug"), changes).model_dump(mode="json")}
        return {"kind": kind, **({"trials": 2, **config} if kind == "sweep" else {"trials": {"first": config}})}

    found = named_run("e")
    Study.of_request(found, request()).begin()
    (found.folder / "trials").mkdir()
    write_json(found.folder / "trials" / "001.json", {})
    resumed = Study.of_request(found, request(**{"train.threads": 2}))
    resumed.begin()
    assert Study.load(found).request == resumed.request
    with pytest.raises(
        RunError, match=r"train.epochs was 3, is 9, which changes the result; train.threads was 2, is 1"
    ):
        Study.of_request(found, request(**{"train.epochs": 9}))


def _scored(job):
    done.append(job.run_name)
    return TrialResult(job.run_name, {"arm": job.trial.name}, 1.0, (CaseRow("c", "p", "x", {"wt/dice": 0.61}),))


done: list[str] = []


@dataclass(frozen=True)
class Part:
    name: str

    def describe(self):
        return {"run": "r"}


@pytest.mark.parametrize("damage", ["0.91", "", None])
def test_run_experiment_repeats_trial_with_damaged_result(damage, tmp_path, own_runs, monkeypatch, caplog):
    monkeypatch.setattr("ganseg_dist.studies.experiments.run.open_parent", lambda *about: TrackedRun("nowhere"))
    parts = (Part("one"), Part("two"))
    done.clear()
    _, first, _ = run_experiment("e", "robustness", parts, tmp_path, work=_scored)
    file = named_run("e").folder / "trials" / "one.json"
    if damage is None:
        file.unlink()
        file.symlink_to(file)
    else:
        file.write_text(file.read_text().replace("0.61", damage) if damage else "")
    _, again, _ = run_experiment("e", "robustness", parts, tmp_path, work=_scored)
    assert again == first, "0.61, as it was scored"
    assert done == ["e.one", "e.two", "e.one"], "and the other one is kept"
    assert damage is None or f"{file}: is damaged" in caplog.text


def test_run_experiment_rejects_study_that_another_process_runs(tmp_path, own_runs):
    done.clear()
    study = named_run("e")
    study.folder.mkdir(parents=True)
    study.write(
        "study.json", {"kind": "robustness", "data": str(tmp_path), "labels": None, "trials": {"one": {"run": "r"}}}
    )
    with only_trainer(study), pytest.raises(RunError, match="e: is being trained by another process"):
        run_experiment("e", "robustness", (Part("one"),), tmp_path, work=_scored)
    assert done == []
