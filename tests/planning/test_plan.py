"""Planning of a training: data, config and run folder."""

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
from ganseg_dist.runs import Kept, Run
from ganseg_dist.systems import recipe
from ganseg_dist.systems.base import Monitor
from ganseg_dist.training.run_training import epochs_kept, only_trainer
from ganseg_dist.training.session import train_session
from tests.inference.untrained import model_folder

pytestmark = pytest.mark.usefixtures("own_places")


def request(data, **more):
    return TrainingRequest(recipe("ganet_seg_debug"), data, local=True, **more)


def test_train_session_rejects_run_trained_by_other_process(phantom):
    plan = plan_training(request(phantom))
    run, _ = open_run("mine", plan.config, plan.data_record, plan.cohort)
    with only_trainer(run), pytest.raises(RunError, match="mine: is being trained by another process"):
        train_session(request(phantom, run_name="mine"))
    with only_trainer(run):
        pass


def test_open_run_rejects_folder_of_experiment(phantom, tmp_path):
    plan = plan_training(request(phantom))
    folder = tmp_path / "runs" / "cv"
    Run(folder).write("study.json", {"kind": "folds", "trials": {}})
    with pytest.raises(RunError, match=r"runs/cv: is an experiment, not a run; choose another --run-name"):
        open_run("cv", plan.config, plan.data_record, plan.cohort)
    assert [file.name for file in folder.iterdir()] == ["study.json"]


def test_plan_training_excludes_and_records_case_without_mask(cohort_copy):
    (cohort_copy / "BraTS20_Training_002/BraTS20_Training_002_seg.nii.gz").unlink()
    plan = plan_training(request(cohort_copy))
    assert "BraTS20_Training_002" not in {case.id for case in plan.cohort.cases}
    (left_out,) = plan.data_record.excluded
    assert (left_out.case, left_out.check) == ("BraTS20_Training_002", "missing-mask")


def test_resolve_orders_regions_outermost_first(cohort):
    config = override(recipe("ganet_seg_debug"), {"data.regions": ["et", "wt", "tc"]})
    assert resolve(config, cohort).data.regions == ("wt", "tc", "et")
    with pytest.raises(ConfigError, match="lacks wt"):
        resolve(override(config, {"data.regions": ["tc", "et"]}), cohort)


def test_resolve_applies_defaults_of_paper_reading(cohort):
    paper = override(recipe("ganet_seg_debug"), {"system.reading": "paper"})
    settled = resolve(paper, cohort).data
    assert (settled.enhance, settled.blank_rate) == ("paper", 0.0)
    chosen = resolve(override(paper, {"data.blank_rate": 0.5}), cohort).data
    assert (chosen.enhance, chosen.blank_rate) == ("paper", 0.5)


def test_plan_training_rejects_healthy_cohort_of_same_patients(phantom, cohort_copy):
    with pytest.raises(DataError, match=r"8 of its subjects are patients of .*, such as BraTS20_Training_001"):
        plan_training(request(phantom, healthy=cohort_copy))


def test_resolve_requires_healthy_cohort_of_config(cohort):
    with pytest.raises(ConfigError, match="give ganseg train --healthy DATA"):
        resolve(override(recipe("ganet_seg_debug"), {"system.healthy_cohort": True}), cohort)


def test_planned_run_rejects_other_labels(phantom):
    plan = plan_training(request(phantom))
    run, _ = open_run("mine", plan.config, plan.data_record, plan.cohort)
    assert run.read("data.json")["labels"] == BRATS.to_json()
    with pytest.raises(RunError, match="mine: was started on masks with other labels; choose another --run-name"):
        planned_run("mine", plan.config, plan.data_record.model_copy(update={"labels": BRATS_2023}), plan.cohort)


def test_data_record_labels_follow_majority_of_masks(cohort):
    new = [replace(case, scheme=BRATS_2023 if number > 2 else BRATS) for number, case in enumerate(cohort.cases)]
    mixed = replace(cohort, cases=tuple(new))
    learnt_from = data_record(mixed, Preflight(mixed, {case.id: "" for case in new}, ()))
    assert learnt_from.labels == BRATS_2023
    assert learnt_from.otherwise_labelled == 3


@pytest.mark.slow
def test_planned_run_rejects_other_healthy_cohort(phantom, tmp_path):
    from ganseg_dist.data.phantom.folder import make_phantom

    subjects, fewer = tmp_path / "subjects", tmp_path / "fewer"
    make_phantom(subjects, patients=1, healthy=9, sites=1, seed=5, spacing_mm=8.0)
    for file in sorted(subjects.rglob("BraTS20_Training_*"), reverse=True):  # the same names as the patients'
        file.rename(file.with_name(file.name.replace("Training_0", "Training_9")))
    shutil.copytree(subjects, fewer)
    shutil.rmtree(sorted(fewer.glob("BraTS20_Training_*"))[-1])
    first, second = (plan_training(request(phantom, healthy=healthy)) for healthy in (subjects, fewer))
    record = request(phantom).to_record()
    open_run("mine", first.config, first.data_record, first.cohort, request=record)
    planned_run("mine", first.config, first.data_record, first.cohort)
    with pytest.raises(RunError, match="other data"):
        planned_run("mine", first.config, second.data_record, first.cohort)


def test_prepare_case_matches_prepare_scan(cohort, tmp_path):
    """With some channels only: another window would shift the mask."""
    from ganseg_dist.data.preprocess import prepare_scan
    from ganseg_dist.data.scan import load_scan

    predictor = Predictor.load(model_folder(tmp_path / "model", ("flair",), ("wt",)))
    case = cohort.cases[0]
    folder = prepare_case(tmp_path, case, predictor.config.data, content_hash(case))
    stored = PreparedCase.open(folder)
    prepared = prepare_scan(load_scan(case, predictor.modalities), predictor.config.data, predictor.regions)
    assert stored.modalities == ("flair",)
    assert abs(stored.image - prepared.image).max() < 1e-3
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
def test_negative_first_orders_negative_class_first(alphabetical, settled):
    assert negative_first(alphabetical) == settled


def test_order_message_explains_how_to_swap_ambiguous_classes():
    config = recipe("gan_detector_debug")
    cohort = of_classes("meningioma", "glioma")
    settled = resolve(config, cohort)
    assert settled.data.classes == ("glioma", "meningioma")
    result = order_message(config, settled)
    assert result.startswith("meningioma counts as the class to be found and glioma as negative")
    *_, swap = shlex.split(result)
    swapped = override(config, parse_assignments([swap]))
    assert resolve(swapped, cohort).data.classes == ("meningioma", "glioma")
    assert order_message(swapped, resolve(swapped, cohort)) is None
    assert order_message(settled, settled) is None, "a resumed run does not repeat the note"


def test_order_message_is_none_for_evident_order():
    config = recipe("gan_detector_debug")
    settled = resolve(config, of_classes("glioma", "no tumour"))
    assert settled.data.classes == ("no tumour", "glioma")
    assert order_message(config, settled) is None
    assert order_message(config, resolve(config, of_classes("glioma", "meningioma", "no tumour"))) is None


def test_resolve_keeps_configured_class_order():
    config = override(recipe("gan_detector_debug"), {"data.classes": ["glioma", "no tumour"]})
    assert resolve(config, of_classes("glioma", "no tumour")).data.classes == ("glioma", "no tumour")


def test_epochs_kept_follow_keep_setting():
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
