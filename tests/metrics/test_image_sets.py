"""Rates and areas of sets of images, weighted by how often each patient is resampled."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from ganseg_dist.metrics.image_sets import confusion_counts, confusion_rates, curve_areas, intervals, patients_values
from ganseg_dist.metrics.statistics import mean_interval

TRUTH = np.array([0, 0, 1, 1])
CALLED = np.array([0, 1, 1, 1])
OWNER = np.array([0, 1, 1, 2])


def test_confusion_rates_match_hand_computation():
    counts = confusion_counts(TRUTH, CALLED, OWNER, 3, 2)
    assert counts.tolist() == [[[1, 0], [0, 0]], [[0, 1], [0, 1]], [[0, 0], [0, 1]]]
    # Each once; the second thrice; the last alone, who has no image of class 0.
    found = confusion_rates(counts)(np.array([[1.0, 1, 1], [0, 3, 0], [0, 0, 1]]))
    assert found["recall/0"].tolist() == pytest.approx([1 / 2, 0, np.nan], nan_ok=True)
    assert found["recall/1"].tolist() == [1, 1, 1]
    assert found["precision/1"].tolist() == pytest.approx([2 / 3, 1 / 2, 1])
    assert found["f1"].tolist() == pytest.approx([(2 / 3 + 4 / 5) / 2, (0 + 2 / 3) / 2, 1])


def test_curve_areas_equal_scikit_learn_with_weights():
    rng = np.random.default_rng(0)
    positive, score, owner = rng.random(60) < 0.4, rng.random(60).round(1), np.arange(60) // 5
    patient_weights = np.vstack([rng.integers(3, size=(4, 12)), rng.random((4, 12))])
    found = curve_areas(positive, score, owner)(patient_weights)
    for weights, auroc, auprc in zip(patient_weights[:, owner], found["auroc"], found["auprc"], strict=True):
        assert auroc == pytest.approx(roc_auc_score(positive, score, sample_weight=weights))
        assert auprc == pytest.approx(average_precision_score(positive, score, sample_weight=weights))


def test_curve_areas_of_single_class_are_none():
    areas = curve_areas(np.array([True, False]), np.array([0.9, 0.1]), np.array([0, 1]))
    assert np.isnan(areas(np.array([[1.0, 0], [0, 1]]))["auprc"]).all()
    perfect = intervals(areas, 2)["auroc"]
    assert (perfect.mean, perfect.low, perfect.high, perfect.n) == (1, 1, 1, 2)
    alone = intervals(curve_areas(np.ones(2, bool), np.array([0.9, 0.1]), np.array([0, 1])), 2)
    assert alone == {"auroc": None, "auprc": None}


def test_intervals_of_a_mean_equal_mean_interval():
    """Half of a patient left out gives back what it adds, to the last digits."""
    right, owner = np.random.default_rng(1).random(90) < 0.7, np.arange(90) // 3
    rates = confusion_rates(confusion_counts(np.ones(90, int), right.astype(int), owner, 30, 2))
    found, expected = intervals(rates, 30)["recall/1"], mean_interval(right.astype(float).tolist(), owner.tolist())
    assert (found.mean, found.low, found.high, found.n) == pytest.approx(
        (expected.mean, expected.low, expected.high, 30)
    )
    values = patients_values(rates, 30)["recall/1"]
    assert values == pytest.approx(right.reshape(30, 3).mean(axis=1))


@pytest.mark.parametrize("patients", [8, 20])
def test_intervals_of_auroc_have_nominal_coverage(patients):
    """Slices of a patient are alike; the true area is that of very many patients."""
    rng = np.random.default_rng(0)

    def sample_scores(n):
        positive = rng.random((n, 6)) < 0.4
        score = rng.normal(size=(n, 1)) * 0.7 + rng.normal(size=(n, 6)) + positive
        return positive.ravel(), score.ravel(), np.repeat(np.arange(n), 6)

    positive, score, _ = sample_scores(20_000)
    truth = roc_auc_score(positive, score)
    holds = []
    for _ in range(400):
        positive, score, owner = sample_scores(patients)
        found = intervals(curve_areas(positive, score, owner), patients)["auroc"]
        holds.append(found.low <= truth <= found.high)
    assert 0.92 <= np.mean(holds) <= 0.99
