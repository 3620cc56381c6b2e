"""Ensembles: means that can be computed by hand, and incompatible members."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ganseg_dist.atomic import write_json
from ganseg_dist.data.batch import Batch
from ganseg_dist.data.labels import UNSTATED, LabelScheme
from ganseg_dist.digests import sealed
from ganseg_dist.errors import RunError
from ganseg_dist.evaluation.classification import classify
from ganseg_dist.inference.ensemble import (
    Ensemble,
    average_members,
    is_ensemble_folder,
    load_together,
    mean_thresholds,
    member_folders,
    write_index,
)
from ganseg_dist.inference.model_folder import Thresholds, load_model
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.systems.base import Prediction
from tests.evaluation.test_classification import CLASSES, slice_set
from tests.inference.untrained import model_folder

PLANE = torch.ones(1, 1, 2, 2)


class FixedPrediction:
    """A system with a constant prediction."""

    def __init__(self, **parts):
        self.networks, self.prediction = {}, Prediction(**parts)

    def predict(self, batch):
        return self.prediction


def ensemble_prediction(*members):
    batch = Batch(PLANE, PLANE[:, :0], torch.zeros(1), torch.zeros(1))
    return Ensemble({f"fold{index}": member for index, member in enumerate(members)}).predict(batch)


def test_ensemble_averages_probability_anomaly_and_score():
    prediction = ensemble_prediction(
        FixedPrediction(probability=0.2 * PLANE, anomaly=0.1 * PLANE, score=torch.tensor([0.9])),
        FixedPrediction(probability=0.6 * PLANE, anomaly=0.5 * PLANE, score=torch.tensor([0.5])),
        FixedPrediction(probability=0.7 * PLANE, anomaly=0.9 * PLANE, score=torch.tensor([0.1])),
    )
    torch.testing.assert_close(prediction.probability, 0.5 * PLANE)
    torch.testing.assert_close(prediction.anomaly, 0.5 * PLANE)
    torch.testing.assert_close(prediction.score, torch.tensor([0.5]))
    assert prediction.classes is None


def test_ensemble_class_probabilities_are_means_summing_to_one():
    prediction = ensemble_prediction(
        FixedPrediction(classes=torch.tensor([[0.7, 0.2, 0.1]])),
        FixedPrediction(classes=torch.tensor([[0.1, 0.2, 0.7]])),
    )
    torch.testing.assert_close(prediction.classes, torch.tensor([[0.4, 0.2, 0.4]]))
    assert prediction.probability is None


def test_ensemble_omits_images_and_outputs_that_a_member_lacks():
    prediction = ensemble_prediction(
        FixedPrediction(probability=0.2 * PLANE, anomaly=PLANE, reconstruction=PLANE, synthetic=PLANE),
        FixedPrediction(probability=0.4 * PLANE, reconstruction=-PLANE, synthetic=PLANE),
    )
    assert prediction.probability is not None
    assert prediction.anomaly is prediction.reconstruction is prediction.synthetic is None


def test_mean_thresholds_need_realism_of_each_member():
    chosen = Thresholds({"wt": 0.3, "tc": 0.9}, 0.2, 4), Thresholds({"wt": 0.4}, 0.6, 5)
    mean = mean_thresholds(chosen, ("wt", "tc"))
    assert mean.regions == pytest.approx({"wt": 0.35, "tc": 0.7}), "what was not chosen is at 0.5"
    assert mean.realism == pytest.approx(0.4)
    assert mean.calibrated_on == 9
    assert mean_thresholds((*chosen, Thresholds()), ("wt",)).realism is None


def test_ensemble_rejects_training():
    ensemble = Ensemble({"fold1": FixedPrediction()})
    assert ensemble.stages == ()
    for method in (ensemble.losses, ensemble.validate, ensemble.sample):
        with pytest.raises(ValueError, match="an ensemble has no"):
            method("segment", None)


def test_classify_accepts_ensemble():
    """Members with lesion probabilities 0.1 and 0.7 average to 0.4."""
    flat = slice_set([0.0], [0], ["a"])
    members = {
        name: FixedPrediction(classes=torch.tensor([[1 - p, p]])) for name, p in (("fold1", 0.1), ("fold2", 0.7))
    }
    (row,) = classify(Ensemble(members), flat, CLASSES)
    assert row.predicted == "no lesion"
    assert row.probability == pytest.approx((0.6, 0.4))


def load_fold(folder, factor=1.0, *, modalities=("t1", "flair"), regions=("wt",), threshold=0.5, **more):
    """A loaded model, its weights multiplied so that members differ."""
    model = load_model(
        model_folder(folder, modalities, regions, thresholds=Thresholds({"wt": threshold}, None, 1), **more)
    )
    for parameter in model.system.networks["segmenter"].parameters():
        parameter.mul_(factor)
    return model


def test_predictor_averages_members_of_ensemble(tmp_path):
    members = {
        "fold1": load_fold(tmp_path / "1", threshold=0.2),
        "fold2": load_fold(tmp_path / "2", -1.0, threshold=0.6),
    }
    whole = Predictor(average_members(members))
    image = np.random.default_rng(0).uniform(-1, 1, (3, 2, 32, 32)).astype(np.float32)
    first, second = (Predictor(member).predict_prepared(image) for member in members.values())
    prediction = whole.predict_prepared(image)
    assert np.abs(first.probability - second.probability).max() > 0.05
    for part in ("probability", "anomaly", "score"):
        expected = (getattr(first, part) + getattr(second, part)) / 2
        assert np.allclose(getattr(prediction, part), expected, atol=1e-6)
    assert first.reconstruction is not None
    assert prediction.reconstruction is None
    assert whole.thresholds.of("wt") == pytest.approx(0.4)
    assert (whole.modalities, whole.regions) == (("t1", "flair"), ("wt",))
    assert {name.partition(".")[0] for name in whole.system.networks} == {"fold1", "fold2"}


def test_average_members_returns_single_member(tmp_path):
    alone = load_fold(tmp_path / "1")
    assert average_members({"fold1": alone}) is alone


@pytest.mark.parametrize(
    ("differs", "problem"),
    [
        ({"modalities": ("t1", "t2")}, "fold3: has data.modalities t1, t2, and fold1 t1, flair;"),
        ({"regions": ("wt", "tc")}, "fold3: has data.regions wt, tc, and fold1 wt;"),
        ({"facts": {"channels": ["flair", "t1"]}}, "fold3: has channels flair, t1, and fold1 none;"),
        ({"changes": {"data.spacing_mm": 2.0}}, "fold3: has data.spacing_mm 2.0, and fold1"),
        ({"changes": {"system.gan": False}}, "fold3: has system.gan False, and fold1 True;"),
        ({"changes": {"seed": 7}}, "fold3: has seed 7, and fold1 0;"),
        (
            {"scheme": LabelScheme.of_lesion("stroke", (2,))},
            "fold3: has labels 0 background, 2 stroke, and fold1 0 background, 1 whole tumour;",
        ),
    ],
)
def test_average_members_names_incompatible_member(tmp_path, differs, problem):
    members = {
        "fold1": load_fold(tmp_path / "1"),
        "fold2": load_fold(tmp_path / "2"),
        "fold3": load_fold(tmp_path / "3", **differs),
    }
    with pytest.raises(RunError) as caught:
        average_members(members)
    assert str(caught.value).startswith(problem)
    assert "\n" not in str(caught.value)


def test_average_members_names_classifier_of_other_classes():
    def model(*classes):
        config = SimpleNamespace(recipe="r", seed=0, data=[("classes", classes)], system=[], train=[])
        return SimpleNamespace(config=config, channels=(), scheme=UNSTATED)

    with pytest.raises(RunError, match=r"^fold2: has data.classes glioma, none, and fold1 glioma, pituitary;"):
        average_members({"fold1": model("glioma", "pituitary"), "fold2": model("glioma", "none")})


def test_write_index_lists_members_of_exported_folder(tmp_path):
    folder = tmp_path / "carried"
    for name in ("fold1", "fold2"):
        model_folder(folder / name, ("t1",), ("wt",))
    assert not is_ensemble_folder(folder)
    write_index(folder, ["fold1", "fold2"])
    assert is_ensemble_folder(folder)
    assert member_folders(folder) == {"fold1": folder / "fold1", "fold2": folder / "fold2"}
    predictor = Predictor.load(folder)
    assert set(predictor.system.members) == {"fold1", "fold2"}
    (folder / "fold2" / "model.json").unlink()
    with pytest.raises(RunError, match=r"fold2/model\.json: is missing"):
        load_together(member_folders(folder))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2, "members": ["a"]}'])
def test_member_folders_reports_damaged_index(tmp_path, text):
    (tmp_path / "ensemble.json").write_text(text)
    with pytest.raises(RunError, match=r"ensemble\.json: is damaged .*; export the experiment again"):
        member_folders(tmp_path)


def test_member_folders_detects_removed_member(tmp_path):
    """Two folds of three would predict other masks."""
    write_index(tmp_path, ["fold1", "fold2", "fold3"])
    file = tmp_path / "ensemble.json"
    file.write_text(file.read_text().replace('"fold2",', ""))
    with pytest.raises(RunError, match=r"ensemble\.json: is damaged \(its digest differs\)"):
        member_folders(tmp_path)


@pytest.mark.parametrize("index", [{"format": 1, "members": ["a"]}, {"format": 2, "members": []}, {"format": 2}])
def test_member_folders_rejects_index_without_members_or_of_other_format(tmp_path, index):
    write_json(tmp_path / "ensemble.json", sealed(index))
    with pytest.raises(RunError, match=r"ensemble\.json: lists no members"):
        member_folders(tmp_path)


@pytest.mark.parametrize("members", [["fold1", "fold1"], ["fold1", "./fold1"]])
def test_member_folders_rejects_member_listed_twice(tmp_path, members):
    write_index(tmp_path, members)
    with pytest.raises(RunError, match=r"ensemble\.json: lists a member twice"):
        member_folders(tmp_path)


@pytest.mark.parametrize(
    ("member", "problem"),
    [("../fold1", "leads out of its folder"), ("/models/fold1", "is not relative"), (1, "is no text")],
)
def test_member_folders_rejects_path_outside_folder(tmp_path, member, problem):
    write_index(tmp_path, ["fold1", member])
    with pytest.raises(RunError, match=rf"ensemble\.json: path {member!r} {problem}; export the experiment again"):
        member_folders(tmp_path)


def test_member_folders_rejects_link_outside_folder(tmp_path):
    model_folder(tmp_path / "elsewhere", ("t1",), ("wt",))
    (tmp_path / "carried").mkdir()
    (tmp_path / "carried" / "fold1").symlink_to(tmp_path / "elsewhere")
    write_index(tmp_path / "carried", ["fold1"])
    with pytest.raises(RunError, match=r"ensemble\.json: fold1 is a link that leads outside"):
        member_folders(tmp_path / "carried")


@pytest.mark.parametrize("name", ["networks.safetensors", "model.json", "card.md"])
def test_predictor_load_rejects_link_outside_model_folder(tmp_path, name):
    folder = model_folder(tmp_path / "carried", ("t1",), ("wt",))
    (folder / name).rename(tmp_path / "secret")
    (folder / name).symlink_to("../secret")
    with pytest.raises(RunError, match=rf"carried: {name} is a link that leads outside; put the file itself there"):
        Predictor.load(folder)


def test_write_index_stores_no_patient_or_path(tmp_path):
    write_index(tmp_path, ["fold1"])
    assert json.loads((tmp_path / "ensemble.json").read_text()).keys() == {"format", "ganseg", "members", "digest"}
