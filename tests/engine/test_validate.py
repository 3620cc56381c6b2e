import pytest
import torch

from ganseg_dist.data.batch import Batch
from ganseg_dist.engine.validate import mean_over_cases
from ganseg_dist.engine.world import World
from ganseg_dist.systems.base import Ratio

PATIENTS = list("abcde")
"""One of each case."""


def batch_of(*ratios):
    """A batch that carries its own ratios: case, numerator, denominator, and relevance where it is not 1."""
    cases, numerators, denominators, relevant = zip(*((*ratio, 1.0)[:4] for ratio in ratios), strict=True)
    samples = {"n": torch.tensor(numerators), "d": torch.tensor(denominators), "r": torch.tensor(relevant)}
    nothing = torch.zeros(len(cases), 1, 1, 1)
    return Batch(nothing, nothing, torch.tensor(cases), torch.zeros(len(cases)), samples)


def dice_ratio(batch):
    return {"dice": Ratio(batch.samples["n"], batch.samples["d"], batch.samples["r"])}


def test_mean_over_cases_sums_slices_before_division():
    batches = [batch_of((0, 1.0, 2.0), (1, 3.0, 4.0)), batch_of((0, 0.0, 6.0))]
    scores = mean_over_cases(batches, dice_ratio, ["dice"], PATIENTS[:2], World())
    assert scores == pytest.approx({"dice": (1 / 8 + 3 / 4) / 2})


def test_mean_over_cases_counts_cases_with_a_relevant_slice():
    healthy = [(0, 0.0, 3.0, 0.0), (0, 0.0, 0.0, 0.0)]
    with_lesion = [(1, 1.0, 2.0, 4.0), (1, 0.0, 2.0, 0.0)]
    assert mean_over_cases([batch_of(*healthy, *with_lesion)], dice_ratio, ["dice"], PATIENTS[:2], World()) == {
        "dice": pytest.approx(1 / 4)
    }
    assert mean_over_cases([batch_of(*healthy)], dice_ratio, ["dice"], PATIENTS[:2], World()) == {}


def test_mean_over_cases_skips_zero_denominator():
    assert (
        mean_over_cases([batch_of((0, 0.0, 0.0), (1, 1.0, 2.0))], dice_ratio, ["dice"], PATIENTS[:2], World())["dice"]
        == 1 / 2
    )


def test_mean_over_cases_skips_cases_without_slices():
    assert mean_over_cases([batch_of((2, 1.0, 4.0))], dice_ratio, ["dice"], PATIENTS[:5], World())[
        "dice"
    ] == pytest.approx(1 / 4)


def test_mean_over_cases_is_empty_without_slices():
    assert mean_over_cases([], dice_ratio, ["dice"], PATIENTS[:3], World()) == {}
    assert mean_over_cases([], dice_ratio, ["dice"], PATIENTS[:0], World()) == {}


def test_mean_over_cases_leaves_out_score_of_fewer_patients():
    """Two cases of one patient are one."""
    batches = [batch_of((0, 1.0, 2.0), (1, 3.0, 4.0), (2, 1.0, 4.0))]
    for patients, fewest, known in (
        (["a", "b", "c"], 3, True),
        (["a", "a", "c"], 3, False),
        (["a", "a", "c"], 2, True),
    ):
        scores = mean_over_cases(batches, dice_ratio, ["dice"], patients, World(), fewest_patients=fewest)
        assert ("dice" in scores) == known
