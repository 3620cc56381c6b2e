"""Models that predict together: means that a person can compute, and members that do not belong."""

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
from tests.evaluation.test_classification import CLASSES, slices
from tests.inference.untrained import model_folder

PLANE = torch.ones(1, 1, 2, 2)


class Says:
    """A system that always says the same."""

    def __init__(self, **parts):
        self.networks, self.prediction = {}, Prediction(**parts)

    def predict(self, batch):
        return self.prediction


def said_together(*members):
    batch = Batch(PLANE, PLANE[:, :0], torch.zeros(1), torch.zeros(1))
    return Ensemble({f"fold{index}": member for index, member in enumerate(members)}).predict(batch)


def test_probabilities_anomalies_and_scores_are_means():
    said = said_together(
        Says(probability=0.2 * PLANE, anomaly=0.1 * PLANE, score=torch.tensor([0.9])),
        Says(probability=0.6 * PLANE, anomaly=0.5 * PLANE, score=torch.tensor([0.5])),
        Says(probability=0.7 * PLANE, anomaly=0.9 * PLANE, score=torch.tensor([0.1])),
    )
    torch.testing.assert_close(said.probability, 0.5 * PLANE)
    torch.testing.assert_close(said.anomaly, 0.5 * PLANE)
    torch.testing.assert_close(said.score, torch.tensor([0.5]))
    assert said.classes is None


def test_classes_are_means_that_still_sum_to_one():
    said = said_together(Says(classes=torch.tensor([[0.7, 0.2, 0.1]])), Says(classes=torch.tensor([[0.1, 0.2, 0.7]])))
    torch.testing.assert_close(said.classes, torch.tensor([[0.4, 0.2, 0.4]]))
    assert said.probability is None


def test_a_reconstruction_is_nobodys_and_what_one_member_lacks_the_ensemble_lacks():
    said = said_together(
        Says(probability=0.2 * PLANE, anomaly=PLANE, reconstruction=PLANE, synthetic=PLANE),
        Says(probability=0.4 * PLANE, reconstruction=-PLANE, synthetic=PLANE),
    )
    assert said.probability is not None
    assert said.anomaly is said.reconstruction is said.synthetic is None


def test_thresholds_are_means_and_realism_needs_every_member():
    chosen = Thresholds({"wt": 0.3, "tc": 0.9}, 0.2, 4), Thresholds({"wt": 0.4}, 0.6, 5)
    mean = mean_thresholds(chosen, ("wt", "tc"))
    assert mean.regions == pytest.approx({"wt": 0.35, "tc": 0.7}), "what was not chosen is at 0.5"
    assert mean.realism == pytest.approx(0.4)
    assert mean.calibrated_on == 9
    assert mean_thresholds((*chosen, Thresholds()), ("wt",)).realism is None


def test_an_ensemble_does_not_learn():
    ensemble = Ensemble({"fold1": Says()})
    assert ensemble.stages == ()
    for ask in (ensemble.losses, ensemble.validate, ensemble.sample):
        with pytest.raises(ValueError, match="an ensemble has no"):
            ask("segment", None)


def test_a_classifier_of_slices_takes_an_ensemble_as_it_is():
    """Members that say lesion with 0.1 and 0.7: together 0.4."""
    flat = slices([0.0], [0], ["a"])
    members = {name: Says(classes=torch.tensor([[1 - p, p]])) for name, p in (("fold1", 0.1), ("fold2", 0.7))}
    (row,) = classify(Ensemble(members), flat, CLASSES)
    assert row.predicted == "no lesion"
    assert row.probability == pytest.approx((0.6, 0.4))


def fold(folder, factor=1.0, *, modalities=("t1", "flair"), regions=("wt",), threshold=0.5, **more):
    """A loaded model, its weights multiplied so that members differ."""
    model = load_model(
        model_folder(folder, modalities, regions, thresholds=Thresholds({"wt": threshold}, None, 1), **more)
    )
    for parameter in model.system.networks["segmenter"].parameters():
        parameter.mul_(factor)
    return model


def test_a_predictor_takes_an_ensemble_as_it_is(tmp_path):
    members = {"fold1": fold(tmp_path / "1", threshold=0.2), "fold2": fold(tmp_path / "2", -1.0, threshold=0.6)}
    whole = Predictor(average_members(members))
    image = np.random.default_rng(0).uniform(-1, 1, (3, 2, 32, 32)).astype(np.float32)
    first, second = (Predictor(member).predict_prepared(image) for member in members.values())
    said = whole.predict_prepared(image)
    assert np.abs(first.probability - second.probability).max() > 0.05
    for part in ("probability", "anomaly", "score"):
        expected = (getattr(first, part) + getattr(second, part)) / 2
        assert np.allclose(getattr(said, part), expected, atol=1e-6)
    assert first.reconstruction is not None
    assert said.reconstruction is None
    assert whole.thresholds.of("wt") == pytest.approx(0.4)
    assert (whole.modalities, whole.regions) == (("t1", "flair"), ("wt",))
    assert {name.partition(".")[0] for name in whole.system.networks} == {"fold1", "fold2"}


def test_a_single_member_is_itself(tmp_path):
    alone = fold(tmp_path / "1")
    assert average_members({"fold1": alone}) is alone


@pytest.mark.parametrize(
    ("differs", "said"),
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
def test_a_member_that_does_not_belong_is_named(tmp_path, differs, said):
    members = {"fold1": fold(tmp_path / "1"), "fold2": fold(tmp_path / "2"), "fold3": fold(tmp_path / "3", **differs)}
    with pytest.raises(RunError) as refused:
        average_members(members)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_a_classifier_of_other_classes_is_named():
    def model(*classes):
        config = SimpleNamespace(recipe="r", seed=0, data=[("classes", classes)], system=[], train=[])
        return SimpleNamespace(config=config, channels=(), scheme=UNSTATED)

    with pytest.raises(RunError, match=r"^fold2: has data.classes glioma, none, and fold1 glioma, pituitary;"):
        average_members({"fold1": model("glioma", "pituitary"), "fold2": model("glioma", "none")})


def test_an_exported_folder_lists_its_members(tmp_path):
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
def test_a_damaged_index_is_one_line(tmp_path, text):
    (tmp_path / "ensemble.json").write_text(text)
    with pytest.raises(RunError, match=r"ensemble\.json: is damaged .*; export the experiment again"):
        member_folders(tmp_path)


def test_an_index_that_lost_a_member_is_damaged(tmp_path):
    """Two folds of three would predict other masks."""
    write_index(tmp_path, ["fold1", "fold2", "fold3"])
    file = tmp_path / "ensemble.json"
    file.write_text(file.read_text().replace('"fold2",', ""))
    with pytest.raises(RunError, match=r"ensemble\.json: is damaged \(its digest differs\)"):
        member_folders(tmp_path)


@pytest.mark.parametrize("index", [{"format": 1, "members": ["a"]}, {"format": 2, "members": []}, {"format": 2}])
def test_an_index_without_members_that_this_version_reads_is_one_line(tmp_path, index):
    write_json(tmp_path / "ensemble.json", sealed(index))
    with pytest.raises(RunError, match=r"ensemble\.json: lists no members"):
        member_folders(tmp_path)


@pytest.mark.parametrize("members", [["fold1", "fold1"], ["fold1", "./fold1"]])
def test_a_member_that_is_listed_twice_does_not_count_twice(tmp_path, members):
    write_index(tmp_path, members)
    with pytest.raises(RunError, match=r"ensemble\.json: lists a member twice"):
        member_folders(tmp_path)


@pytest.mark.parametrize(
    ("member", "problem"),
    [("../fold1", "leads out of its folder"), ("/models/fold1", "is not relative"), (1, "is no text")],
)
def test_a_member_that_lies_elsewhere_is_not_loaded(tmp_path, member, problem):
    write_index(tmp_path, ["fold1", member])
    with pytest.raises(RunError, match=rf"ensemble\.json: path {member!r} {problem}; export the experiment again"):
        member_folders(tmp_path)


def test_a_member_that_is_a_link_to_elsewhere_is_not_loaded(tmp_path):
    model_folder(tmp_path / "elsewhere", ("t1",), ("wt",))
    (tmp_path / "carried").mkdir()
    (tmp_path / "carried" / "fold1").symlink_to(tmp_path / "elsewhere")
    write_index(tmp_path / "carried", ["fold1"])
    with pytest.raises(RunError, match=r"ensemble\.json: fold1 is a link that leads outside"):
        member_folders(tmp_path / "carried")


@pytest.mark.parametrize("name", ["networks.safetensors", "model.json", "card.md"])
def test_a_model_folder_with_a_link_to_elsewhere_is_not_loaded(tmp_path, name):
    folder = model_folder(tmp_path / "carried", ("t1",), ("wt",))
    (folder / name).rename(tmp_path / "secret")
    (folder / name).symlink_to("../secret")
    with pytest.raises(RunError, match=rf"carried: {name} is a link that leads outside; put the file itself there"):
        Predictor.load(folder)


def test_an_index_names_no_patient_and_no_path(tmp_path):
    write_index(tmp_path, ["fold1"])
    assert json.loads((tmp_path / "ensemble.json").read_text()).keys() == {"format", "ganseg", "members", "digest"}
