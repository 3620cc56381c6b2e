import numpy as np
import pytest

from ganseg_dist.errors import DataError
from ganseg_dist.metrics.detection import ThresholdRow, auprc, auroc, roc, threshold_table, youden_optimal_threshold

SCORES = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
ABNORMAL = np.array([True, True, False, True, False, False])


def test_threshold_table_rows_match_hand_computation():
    low, high = threshold_table(SCORES, ABNORMAL, (0.2, 0.45))
    assert low == ThresholdRow(0.2, 4 / 6, 1 / 3, 1.0, pytest.approx(1 / 3), tp=1, fn=2, fp=0, tn=3)
    assert high == ThresholdRow(0.45, 5 / 6, 1.0, 2 / 3, pytest.approx(2 / 3), tp=3, fn=0, fp=1, tn=2)


def test_threshold_table_reproduces_published_rates():
    # GANet-Seg Table 1 at 0.2: TP 2106, FN 273, FP 869 of 36 x 155 slices; accuracy 79.53%, sensitivity 88.52%.
    tn = 36 * 155 - 2106 - 273 - 869
    scores = np.repeat([0.1, 0.3, 0.1, 0.3], (2106, 273, 869, tn))
    abnormal = np.repeat([True, True, False, False], (2106, 273, 869, tn))
    (row,) = threshold_table(scores, abnormal, (0.2,))
    assert row.accuracy == pytest.approx(0.7953, abs=5e-5)
    assert row.sensitivity == pytest.approx(0.8852, abs=5e-5)
    assert (row.tp, row.fn, row.fp, row.tn) == (2106, 273, 869, tn)


def test_auroc_and_auprc_match_hand_computation():
    # Of 9 pairs, the abnormal scores lower in 8.
    assert auroc(SCORES, ABNORMAL) == pytest.approx(8 / 9)
    # Precision when each abnormal slice is reached, lowest score first: 1/1, 2/2, 3/4.
    assert auprc(SCORES, ABNORMAL) == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_auroc_and_auprc_depend_on_order_only():
    logits = 1000 * SCORES + 5
    assert auroc(logits, ABNORMAL) == auroc(SCORES, ABNORMAL)
    assert auprc(logits, ABNORMAL) == auprc(SCORES, ABNORMAL)
    assert auroc(np.ones(6), ABNORMAL) == pytest.approx(0.5)


def test_roc_rises_where_low_scores_are_abnormal():
    # Lowest score first: abnormal, abnormal, normal, abnormal, normal, normal.
    assert roc(SCORES, ABNORMAL).tolist() == [
        pytest.approx(point) for point in ((0, 0), (0, 1 / 3), (0, 2 / 3), (1 / 3, 2 / 3), (1 / 3, 1), (1, 1))
    ]


@pytest.mark.parametrize("abnormal", [np.zeros(6, bool), np.ones(6, bool)])
def test_detection_metrics_of_single_class_are_none(abnormal):
    assert auroc(SCORES, abnormal) is None
    assert auprc(SCORES, abnormal) is None
    assert roc(SCORES, abnormal).shape == (0, 2)
    assert youden_optimal_threshold(SCORES, abnormal) is None
    (row,) = threshold_table(SCORES, abnormal, (0.35,))
    assert row.youden_j is None
    assert row.accuracy == 0.5
    assert (row.sensitivity, row.specificity) == ((0.5, None) if abnormal.any() else (None, 0.5))


def test_youden_optimal_threshold_is_best_of_table():
    # Below 0.25: 2/3 + 1 - 1; below 0.45: 1 + 2/3 - 1. The lower one of the two.
    assert youden_optimal_threshold(SCORES, ABNORMAL) == pytest.approx(0.25)
    rng = np.random.default_rng(0)
    abnormal = rng.random(200) < 0.4
    scores = rng.random(200).round(2) - 0.3 * abnormal
    chosen = youden_optimal_threshold(scores, abnormal)
    best, *others = threshold_table(scores, abnormal, (chosen, *np.linspace(-0.4, 1.1, 500)))
    assert best.youden_j > 0.1
    assert best.youden_j >= max(row.youden_j for row in others)


def test_youden_optimal_threshold_of_useless_scores_predicts_normal():
    backwards = threshold_table(SCORES, ~ABNORMAL, (youden_optimal_threshold(-SCORES, ABNORMAL),))
    assert backwards[0].tp == 0
    assert youden_optimal_threshold(np.full(6, 0.7), ABNORMAL) == 0.7


def test_youden_optimal_threshold_separates_neighbouring_floats():
    low = 0.5
    scores = np.array([low, np.nextafter(low, 1)])
    abnormal = np.array([True, False])
    (row,) = threshold_table(scores, abnormal, (youden_optimal_threshold(scores, abnormal),))
    assert row.accuracy == 1


@pytest.mark.parametrize(
    ("scores", "abnormal", "message"),
    [
        (np.array([]), np.array([], bool), "one score and one label a slice"),
        (SCORES, ABNORMAL[:3], "one score and one label a slice"),
        (SCORES, ABNORMAL.astype(int), "not boolean"),
        (np.array([np.nan, 1.0]), np.array([True, False]), "1 are not finite"),
    ],
)
def test_threshold_table_rejects_invalid_inputs(scores, abnormal, message):
    with pytest.raises(DataError, match=message):
        threshold_table(scores, abnormal, (0.5,))
