import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score
from torchmetrics.functional.classification import multiclass_calibration_error

from ganseg_dist.errors import DataError
from ganseg_dist.metrics.classification import (
    classification_scores,
    operating_point,
    threshold_at_specificity,
)
from ganseg_dist.metrics.statistics import mean_interval

THREE = ("glioma", "meningioma", "none")


def one_hot(predicted, classes):
    return np.eye(classes)[predicted]


def patient_names(count):
    return [f"p{index}" for index in range(count)]


def random_predictions(seed, count, classes):
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=count)
    logits = rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[truth]
    return truth, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_classification_scores_match_hand_computation():
    truth = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 0, 1])
    scores = classification_scores(truth, one_hot(predicted, 3), patient_names(6), THREE)
    assert scores.confusion == ((2, 1, 0), (1, 1, 0), (0, 1, 0))
    assert scores.accuracy.mean == pytest.approx(3 / 6)
    glioma, meningioma, nothing = (scores.classes[name] for name in THREE)
    assert (glioma.precision.mean, glioma.recall.mean, glioma.f1.mean) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (meningioma.precision.mean, meningioma.recall.mean, meningioma.f1.mean) == pytest.approx(
        (1 / 3, 1 / 2, 2 / 5)
    )
    assert (glioma.n_images, glioma.n_predicted, nothing.n_images, nothing.n_predicted) == (3, 3, 1, 0)
    assert scores.balanced_accuracy.mean == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert scores.precision.mean == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert scores.f1.mean == pytest.approx((2 / 3 + 2 / 5 + 0) / 3)
    assert (scores.auroc, scores.auprc) == (None, None)
    assert (scores.n_images, scores.n_patients) == (6, 6)


def test_classification_scores_of_unpredicted_and_absent_classes():
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 0, 0])
    scores = classification_scores(truth, one_hot(predicted, 3), patient_names(4), THREE)
    meningioma, nothing = scores.classes["meningioma"], scores.classes["none"]
    assert (meningioma.precision.mean, meningioma.recall.mean, meningioma.f1.mean) == (0, 0, 0)
    assert (nothing.precision, nothing.recall, nothing.f1, nothing.n_predicted) == (None, None, None, 1)
    # The means are over the two classes that have images.
    assert scores.balanced_accuracy.mean == pytest.approx((1 / 2 + 0) / 2)
    assert scores.precision.mean == pytest.approx((1 / 3 + 0) / 2)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_classification_scores_equal_scikit_learn_and_torchmetrics(classes):
    truth, probability = random_predictions(0, 400, classes)
    names = [f"c{index}" for index in range(classes)]
    scores = classification_scores(truth, probability, patient_names(400), names)
    precision, recall, f1, support = precision_recall_fscore_support(truth, probability.argmax(axis=1))
    for index, name in enumerate(names):
        one = scores.classes[name]
        assert one.precision.mean == pytest.approx(precision[index])
        assert one.recall.mean == pytest.approx(recall[index])
        assert one.f1.mean == pytest.approx(f1[index])
        assert one.n_images == support[index]
    assert scores.f1.mean == pytest.approx(f1.mean())
    expected = multiclass_calibration_error(torch.from_numpy(probability), torch.from_numpy(truth), classes, n_bins=10)
    assert scores.expected_calibration_error.mean == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("decimals", [1, 8])  # one decimal makes many equal scores
def test_classification_areas_equal_scikit_learn(decimals):
    truth, probability = random_predictions(1, 300, 2)
    second = probability[:, 1].round(decimals)
    scores = classification_scores(truth, np.stack([1 - second, second], axis=1), patient_names(300), ("no", "yes"))
    assert scores.auroc.mean == pytest.approx(roc_auc_score(truth, second))
    assert scores.auprc.mean == pytest.approx(average_precision_score(truth, second))
    assert scores.auroc.low < scores.auroc.mean < scores.auroc.high < 1
    assert scores.auprc.low < scores.auprc.mean < scores.auprc.high < 1


def test_classification_intervals_resample_patients_as_a_whole():
    truth, probability = random_predictions(2, 40, 2)
    alone = classification_scores(truth, probability, patient_names(40), ("no", "yes"))
    repeated = np.repeat(np.arange(40), 8)
    grouped = classification_scores(
        truth[repeated], probability[repeated], np.repeat(patient_names(40), 8), ("no", "yes")
    )
    # Eight copies of each patient's image add no information.
    for name in ("accuracy", "balanced_accuracy", "f1", "expected_calibration_error", "auroc", "auprc"):
        one, eight = getattr(alone, name), getattr(grouped, name)
        assert (eight.mean, eight.low, eight.high, eight.n) == pytest.approx((one.mean, one.low, one.high, 40)), name
    assert alone.accuracy.high - alone.accuracy.low > 0.1


def test_accuracy_interval_equals_mean_interval():
    # Where every image is of the class, its recall is the mean of being right.
    right = np.random.default_rng(3).random(200) < 0.7
    scores = classification_scores(
        np.zeros(200, int), one_hot(np.where(right, 0, 1), 2), patient_names(200), ("a", "b")
    )
    expected = mean_interval(right.astype(float).tolist(), patient_names(200), bounds=(0, 1))
    recall = scores.classes["a"].recall
    assert recall.mean == scores.accuracy.mean == expected.mean
    assert (recall.low, recall.high) == pytest.approx((expected.low, expected.high))


def test_expected_calibration_error_matches_hand_computation():
    probability = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [1.0, 0.0]])
    scores = classification_scores(np.array([0, 1, 1, 0]), probability, patient_names(4), ("a", "b"))
    # |1/2 - 0.9| of two images, |1 - 0.7| of one and 0 of the last.
    assert scores.expected_calibration_error.mean == pytest.approx((2 * 0.4 + 0.3) / 4)
    filled = {(part.low, part.high): part for part in scores.calibration if part.n_images}
    assert set(filled) == {(0.6, 0.7), (0.8, 0.9), (0.9, 1.0)}
    assert filled[0.8, 0.9].confidence == pytest.approx(0.9)
    assert (filled[0.8, 0.9].accuracy, filled[0.8, 0.9].n_images) == (0.5, 2)
    assert len(scores.calibration) == 10
    assert scores.calibration[0].accuracy is None


@pytest.mark.parametrize("count", [1, 2, 3])
def test_classification_scores_are_never_nan(count):
    for truth in (np.zeros(count, int), np.arange(count) % 2):
        scores = classification_scores(truth, np.full((count, 2), 0.5), patient_names(count), ("a", "b"))
        json.dumps(asdict(scores), allow_nan=False)
        assert (scores.auroc is None) == (len(set(truth)) == 1)
    one = classification_scores(np.array([0, 1]), one_hot([0, 0], 2), ["p", "p"], ("a", "b"))
    assert (one.accuracy.low, one.accuracy.high, one.accuracy.n) == (0.5, 0.5, 1)


def test_threshold_at_specificity_matches_hand_computation():
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.35, 0.6])
    positive = np.array([False] * 5 + [True] * 2)
    # Three of five negatives below it, then four, then all.
    assert threshold_at_specificity(scores, positive, 0.6) == pytest.approx(0.325)
    assert threshold_at_specificity(scores, positive, 0.8) == pytest.approx(0.45)
    assert threshold_at_specificity(scores, positive, 0.9) == pytest.approx(0.55)
    assert threshold_at_specificity(scores, ~np.zeros(7, bool), 0.9) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("specificity", [0.07, 0.5, 0.9, 0.99])
def test_threshold_at_specificity_is_lowest_that_keeps_specificity(dtype, specificity):
    rng = np.random.default_rng(4)
    positive = rng.random(200) < 0.4
    scores = np.clip(rng.normal(0.3 + 0.3 * positive, 0.15), 0, 1).round(2).astype(dtype)
    threshold = threshold_at_specificity(scores, positive, specificity)
    point = operating_point(scores, positive, patient_names(200), threshold)
    assert point.specificity.mean >= specificity
    lower = scores[scores < threshold].max()
    assert np.mean(scores[~positive] < lower) < specificity


def test_threshold_at_specificity_may_leave_zero_sensitivity():
    scores, positive = np.array([0.9, 0.9, 0.2]), np.array([False, True, True])
    threshold = threshold_at_specificity(scores, positive, 0.9)
    point = operating_point(scores, positive, patient_names(3), threshold)
    assert (point.specificity.mean, point.sensitivity.mean) == (1, 0)


def test_operating_point_matches_hand_computation():
    scores = np.array([0.2, 0.5, 0.7, 0.4, 0.9])
    positive = np.array([False, False, True, True, True])
    point = operating_point(scores, positive, ["a", "b", "c", "c", "d"], 0.5)
    assert (point.tp, point.fn, point.fp, point.tn) == (2, 1, 1, 1)
    assert (point.sensitivity.mean, point.sensitivity.n) == (pytest.approx(2 / 3), 2)
    assert (point.specificity.mean, point.specificity.n) == (0.5, 2)
    assert operating_point(scores[2:], positive[2:], patient_names(3), 0.5).specificity is None


def test_classification_metrics_reject_invalid_inputs():
    half = np.full((2, 2), 0.5)
    with pytest.raises(DataError, match=r"give \(N,\) and \(N, K\)"):
        classification_scores(np.array([0, 1]), half, patient_names(2), THREE)
    with pytest.raises(DataError, match="leave out images of unknown class"):
        classification_scores(np.array([0, -1]), half, patient_names(2), ("a", "b"))
    with pytest.raises(DataError, match="apply the softmax"):
        classification_scores(np.array([0, 1]), 2 * half * np.nan, patient_names(2), ("a", "b"))
    with pytest.raises(DataError, match="apply the softmax"):
        classification_scores(np.array([0, 1]), half / 2, patient_names(2), ("a", "b"))
    with pytest.raises(DataError, match="1 names for 2 images"):
        classification_scores(np.array([0, 1]), half, patient_names(1), ("a", "b"))
    with pytest.raises(DataError, match="share between 0 and 1"):
        threshold_at_specificity(np.array([0.5]), np.array([False]), 1.0)
    with pytest.raises(DataError, match="1 are not finite"):
        operating_point(np.array([np.inf]), np.array([False]), patient_names(1), 0.5)
