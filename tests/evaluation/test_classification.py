import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ganseg_dist.data.slices import SliceSet
from ganseg_dist.errors import DataError, RunError
from ganseg_dist.evaluation.classification import classify, save_classification, summarise_classes
from ganseg_dist.evaluation.results import ImageRow
from tests.data.cohorts import read_rows

CLASSES = ("no lesion", "lesion")


def slice_set(brightness, labels, patients):
    """One case per patient and one flat slice per brightness."""
    names = sorted(set(patients))
    cases = []
    for name in names:
        own = [value for value, patient in zip(brightness, patients, strict=True) if patient == name]
        image = np.broadcast_to(np.array(own, np.float16)[:, None, None, None], (len(own), 1, 4, 4))
        cases.append(
            SimpleNamespace(
                id=f"{name}_t0", patient=name, site="s", modalities=("t1",), regions=(), image=image, size=4
            )
        )
    case_of = np.array([names.index(patient) for patient in patients])
    slice_of = np.array([patients[:index].count(patient) for index, patient in enumerate(patients)])
    return SliceSet(tuple(cases), ("t1",), (), case_of, slice_of, np.zeros(len(labels), bool), np.array(labels))


class BrightnessClassifier:
    """A classifier whose lesion probability grows with brightness."""

    def predict(self, batch):
        assert batch.regions.shape[1] == 0
        assert (batch.label == -1).all()
        lesion = (batch.image.mean(dim=(1, 2, 3)) + 1) / 2
        return SimpleNamespace(classes=torch.stack([1 - lesion, lesion], dim=1))


def test_classify_returns_row_with_truth_per_slice():
    rows = classify(BrightnessClassifier(), slice_set([-0.5, 0.5, 1.0], [0, 1, -1], ["a", "b", "a"]), CLASSES)
    assert rows == (
        ImageRow("a_t0", "a", "s", 0, "no lesion", "no lesion", (0.75, 0.25)),
        ImageRow("b_t0", "b", "s", 0, "lesion", "lesion", (0.25, 0.75)),
        ImageRow("a_t0", "a", "s", 1, None, "lesion", (0.0, 1.0)),
    )


def test_classify_keeps_order_over_several_batches():
    brightness = np.linspace(-1, 1, 41).tolist()
    calls = []
    rows = classify(
        BrightnessClassifier(),
        slice_set(brightness, [0] * 41, ["a"] * 41),
        CLASSES,
        advance=lambda done, total: calls.append((done, total)),
    )
    assert [row.slice for row in rows] == list(range(41))
    assert [row.probability[1] for row in rows] == pytest.approx([(value + 1) / 2 for value in brightness], abs=1e-3)
    assert calls[-1] == (41, 41)


def test_classify_names_slice_with_nan_probability():
    with pytest.raises(DataError, match=r"^b_t0, slice 1: the model's class probability is NaN or infinite in 2 of 2 "):
        classify(BrightnessClassifier(), slice_set([-0.5, np.nan, 1.0], [0, 1, -1], ["a", "b", "a"]), CLASSES)


def image_row(patient, truth, lesion):
    return ImageRow(patient, patient, "s", 0, truth, CLASSES[lesion > 0.5], (1 - lesion, lesion))


def test_summarise_classes_uses_threshold_of_validation():
    rows = [
        image_row("a", "no lesion", 0.1),
        image_row("b", "no lesion", 0.7),
        image_row("c", "lesion", 0.8),
        image_row("d", None, 0.9),
    ]
    validation = [image_row("v", "no lesion", 0.5), image_row("w", "lesion", 0.7), image_row("w", None, 0.0)]
    summary = summarise_classes(rows, CLASSES, validation)
    assert (summary.n_images, summary.n_known, summary.scores.n_patients) == (4, 3, 3)
    assert summary.scores.accuracy.mean == pytest.approx(2 / 3)
    assert summary.scores.auroc.mean == 1
    point = summary.operating_point
    assert (point.threshold, point.calibrated_on, point.validated_specificity) == (pytest.approx(0.6), 2, 0.9)
    assert (point.tp, point.fn, point.fp, point.tn) == (1, 0, 1, 1)
    assert summarise_classes(rows, CLASSES).operating_point is None
    with pytest.raises(DataError, match="no image of a known class among no lesion, lesion"):
        summarise_classes(rows[3:], CLASSES, validation)


def test_save_classification_replaces_folder(tmp_path):
    folder = tmp_path / "classes"
    folder.mkdir()
    (folder / "earlier").touch()
    rows = [image_row("a", "no lesion", 0.25), image_row("b", None, 0.75)]
    summary = save_classification(folder, rows, CLASSES)
    assert {file.name for file in folder.iterdir()} == {"images.csv", "summary.json"}
    assert json.loads((folder / "summary.json").read_text())["scores"]["accuracy"]["mean"] == 1
    assert summary.scores.auroc is None
    first, second = read_rows(folder / "images.csv")
    assert (first["patient"], first["truth"], first["p(no lesion)"], first["p(lesion)"]) == (
        "a",
        "no lesion",
        "0.75",
        "0.25",
    )
    assert (second["truth"], second["predicted"]) == ("", "lesion")


def test_classify_rejects_other_classes_and_empty_slices():
    some = slice_set([0.0], [0], ["a"])
    with pytest.raises(RunError, match="no probabilities of glioma, meningioma, none"):
        classify(BrightnessClassifier(), some, ("glioma", "meningioma", "none"))
    with pytest.raises(RunError, match="no probabilities"):
        classify(SimpleNamespace(predict=lambda batch: SimpleNamespace(classes=None)), some, CLASSES)
    with pytest.raises(RunError, match="no slice"):
        classify(BrightnessClassifier(), slice_set([], [], []), CLASSES)
