"""What is settled before training: who learns from what."""

import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ganseg_dist.config import override, parse_assignments
from ganseg_dist.data.cohort import Case, Cohort
from ganseg_dist.data.labels import BRATS, BRATS_2023
from ganseg_dist.data.store import PreparedCase, content_hash, prepare_case
from ganseg_dist.engine.state import Epoch
from ganseg_dist.errors import ConfigError, DataError, RunError
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.planning.plan import plan_training
from ganseg_dist.planning.preflight import Preflight
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.planning.resolve import negative_first, order_message, resolve
from ganseg_dist.planning.run_folder import data_record, open_run, planned_run
from ganseg_dist.run_record import Kept
from ganseg_dist.runs import Run
from ganseg_dist.systems import recipe
from ganseg_dist.systems.base import Monitor
from ganseg_dist.training.run_training import epochs_kept, only_trainer
from ganseg_dist.training.session import train_session
from tests.inference.untrained import model_folder


@pytest.fixture(autouse=True)
def _own_places(tmp_path, monkeypatch):
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GANSEG_STORE", str(tmp_path / "store"))


@pytest.fixture
def own(phantom, tmp_path):
    return shutil.copytree(phantom, tmp_path / "own")


def request(data, **more):
    return TrainingRequest(recipe("ganet_seg_debug"), data, local=True, **more)


def test_two_processes_do_not_train_one_run(phantom):
    plan = plan_training(request(phantom))
    run, _ = open_run("mine", plan.config, plan.data_record, plan.cohort)
    with only_trainer(run), pytest.raises(RunError, match="mine: is being trained by another process"):
        train_session(request(phantom, run_name="mine"))
    with only_trainer(run):
        pass


def test_no_run_is_begun_in_an_experiments_folder(phantom, tmp_path):
    plan = plan_training(request(phantom))
    folder = tmp_path / "runs" / "cv"
    Run(folder).write("study.json", {"kind": "folds", "trials": {}})
    with pytest.raises(RunError, match=r"runs/cv: is an experiment, not a run; choose another --run-name"):
        open_run("cv", plan.config, plan.data_record, plan.cohort)
    assert [file.name for file in folder.iterdir()] == ["study.json"]


def test_a_case_without_a_mask_teaches_nothing_and_is_recorded(own):
    (own / "BraTS20_Training_002/BraTS20_Training_002_seg.nii.gz").unlink()
    plan = plan_training(request(own))
    assert "BraTS20_Training_002" not in {case.id for case in plan.cohort.cases}
    (left_out,) = plan.data_record.excluded
    assert (left_out.case, left_out.check) == ("BraTS20_Training_002", "missing-mask")


def test_regions_are_nested_outermost_first_however_they_are_asked_for(cohort):
    asked = override(recipe("ganet_seg_debug"), {"data.regions": ["et", "wt", "tc"]})
    assert resolve(asked, cohort).data.regions == ("wt", "tc", "et")
    with pytest.raises(ConfigError, match="lacks wt"):
        resolve(override(asked, {"data.regions": ["tc", "et"]}), cohort)


def test_the_paper_implies_what_nobody_has_set(cohort):
    paper = override(recipe("ganet_seg_debug"), {"system.reading": "paper"})
    settled = resolve(paper, cohort).data
    assert (settled.enhance, settled.blank_rate) == ("paper", 0.0)
    chosen = resolve(override(paper, {"data.blank_rate": 0.5}), cohort).data
    assert (chosen.enhance, chosen.blank_rate) == ("paper", 0.5)


def test_a_healthy_cohort_holds_none_of_the_patients(phantom, own):
    with pytest.raises(DataError, match=r"8 of its subjects are patients of .*, such as BraTS20_Training_001"):
        plan_training(request(phantom, healthy=own))


def test_a_healthy_cohort_must_be_given_where_the_config_says_so(cohort):
    with pytest.raises(ConfigError, match="give ganseg train --healthy DATA"):
        resolve(override(recipe("ganet_seg_debug"), {"system.healthy_cohort": True}), cohort)


def test_run_that_began_on_other_labels_is_not_gone_on_with(phantom):
    plan = plan_training(request(phantom))
    run, _ = open_run("mine", plan.config, plan.data_record, plan.cohort)
    assert run.read("data.json")["labels"] == BRATS.to_json()
    with pytest.raises(RunError, match="mine: was started on masks with other labels; choose another --run-name"):
        planned_run("mine", plan.config, plan.data_record.model_copy(update={"labels": BRATS_2023}), plan.cohort)


def test_most_masks_decide_the_labels_of_a_mixed_cohort(cohort):
    new = [replace(case, scheme=BRATS_2023 if number > 2 else BRATS) for number, case in enumerate(cohort.cases)]
    mixed = replace(cohort, cases=tuple(new))
    learnt_from = data_record(mixed, Preflight(mixed, {case.id: "" for case in new}, ()))
    assert learnt_from.labels == BRATS_2023
    assert learnt_from.otherwise_labelled == 3


def test_another_healthy_cohort_is_other_data(phantom, tmp_path):
    from ganseg_dist.data.phantom import make_phantom

    plans = []
    for seed in (5, 6):
        subjects = tmp_path / f"subjects{seed}"
        make_phantom(subjects, patients=1, healthy=9, sites=1, seed=seed, spacing_mm=8.0)
        for file in sorted(subjects.rglob("BraTS20_Training_*"), reverse=True):  # the same names as the patients'
            file.rename(file.with_name(file.name.replace("Training_0", "Training_9")))
        plans.append(plan_training(request(phantom, healthy=subjects)))
    first, second = plans
    asked = request(phantom).to_record()
    open_run("mine", first.config, first.data_record, first.cohort, request=asked)
    planned_run("mine", first.config, first.data_record, first.cohort)
    with pytest.raises(RunError, match="other data"):
        planned_run("mine", first.config, second.data_record, first.cohort)


def test_a_case_is_prepared_for_training_as_for_prediction(cohort, tmp_path):
    """With some of its channels: a mask of another window would be a shifted one."""
    from ganseg_dist.data.preprocess import prepare_scan
    from ganseg_dist.data.scan import load_scan

    predictor = Predictor.load(model_folder(tmp_path / "model", ("flair",), ("wt",)))
    case = cohort.cases[0]
    folder = prepare_case(tmp_path, case, predictor.config.data, content_hash(case))
    opened = PreparedCase.open(folder)
    prepared = prepare_scan(load_scan(case, predictor.modalities), predictor.config.data, predictor.regions)
    assert opened.modalities == ("flair",)
    assert abs(opened.image - prepared.image).max() < 1e-3
    everything = override(predictor.config, {"data.modalities": None}).data
    assert prepare_case(tmp_path, case, everything, content_hash(case)) != folder


def of_classes(*names):
    return Cohort(Path("pictures"), "class_folder", tuple(Case(n, n, "x", {"grey": None}, class_name=n) for n in names))


@pytest.mark.parametrize(
    ("alphabetical", "settled"),
    [
        (("glioma", "notumor"), ("notumor", "glioma")),
        (("abnormal", "normal"), ("normal", "abnormal")),
        (("AD", "Healthy control"), ("Healthy control", "AD")),
        (("COVID-negative", "COVID-positive"), ("COVID-negative", "COVID-positive")),
        (("lesion", "no lesion"), ("no lesion", "lesion")),
        (("benign", "malignant"), ("benign", "malignant")),
        (("benign", "normal"), ("normal", "benign")),
        (("mass", "nodules"), ("mass", "nodules")),
        (("glioma", "meningioma", "notumor"), ("glioma", "meningioma", "notumor")),
    ],
)
def test_of_two_classes_the_one_that_reads_as_negative_comes_first(alphabetical, settled):
    assert negative_first(alphabetical) == settled


def test_classes_in_no_evident_order_are_told_with_how_to_swap_them():
    asked = recipe("gan_detector_debug")
    cohort = of_classes("meningioma", "glioma")
    settled = resolve(asked, cohort)
    assert settled.data.classes == ("glioma", "meningioma")
    told = order_message(asked, settled)
    assert told.startswith("meningioma counts as the class to be found and glioma as negative")
    *_, swap = shlex.split(told)
    swapped = override(asked, parse_assignments([swap]))
    assert resolve(swapped, cohort).data.classes == ("meningioma", "glioma")
    assert order_message(swapped, resolve(swapped, cohort)) is None
    assert order_message(settled, settled) is None, "a resumed run has been told"


def test_nothing_is_told_of_classes_that_say_their_order_themselves():
    asked = recipe("gan_detector_debug")
    settled = resolve(asked, of_classes("glioma", "no tumour"))
    assert settled.data.classes == ("no tumour", "glioma")
    assert order_message(asked, settled) is None
    assert order_message(asked, resolve(asked, of_classes("glioma", "meningioma", "no tumour"))) is None


def test_the_order_that_is_asked_for_stays():
    asked = override(recipe("gan_detector_debug"), {"data.classes": ["glioma", "no tumour"]})
    assert resolve(asked, of_classes("glioma", "no tumour")).data.classes == ("glioma", "no tumour")


def test_a_run_says_which_epochs_it_kept():
    monitors = {"joint": Monitor(()), "segment": Monitor(("dice_wt",))}
    dice = {"joint": (0.9, 0.1), "segment": (0.5, 0.7, 0.6)}
    history = [
        Epoch(stage, epoch, step=0, workers=1, losses={}, scores={"dice_wt": value})
        for stage, values in dice.items()
        for epoch, value in enumerate(values)
    ]
    config = recipe("gan_osmosis_debug")
    joint = Kept(epoch=1, best_of=())
    assert epochs_kept(history, monitors, config) == {"joint": joint, "segment": Kept(epoch=1, best_of=("dice_wt",))}
    last = override(config, {"train.keep": "last"})
    assert epochs_kept(history, monitors, last) == {"joint": joint, "segment": Kept(epoch=2, best_of=())}
