import pytest
import torch

from ganseg_dist.data.batch import Batch
from ganseg_dist.engine.validate import mean_over_cases
from ganseg_dist.engine.world import World
from ganseg_dist.systems.base import Ratio


def slices(*cases_numerators_denominators):
    """A batch that carries its own ratios."""
    cases, numerators, denominators = zip(*cases_numerators_denominators, strict=True)
    draws = {"n": torch.tensor(numerators), "d": torch.tensor(denominators)}
    nothing = torch.zeros(len(cases), 1, 1, 1)
    return Batch(nothing, nothing, torch.tensor(cases), draws)


def score(batch):
    return {"dice": Ratio(batch.draws["n"], batch.draws["d"])}


def test_slices_add_up_before_the_division_and_cases_are_averaged():
    batches = [slices((0, 1.0, 2.0), (1, 3.0, 4.0)), slices((0, 0.0, 6.0))]
    scores = mean_over_cases(batches, score, {"dice": 1.0}, 2, World())
    assert scores == pytest.approx({"dice": (1 / 8 + 3 / 4) / 2})


def test_a_case_with_nothing_to_divide_by_scores_the_empty_value():
    batches = [slices((0, 0.0, 0.0), (1, 1.0, 2.0))]
    assert mean_over_cases(batches, score, {"dice": 1.0}, 2, World())["dice"] == pytest.approx((1 + 1 / 2) / 2)
    assert mean_over_cases(batches, score, {"dice": 0.0}, 2, World())["dice"] == pytest.approx((0 + 1 / 2) / 2)


def test_cases_without_slices_do_not_count():
    assert mean_over_cases([slices((2, 1.0, 4.0))], score, {"dice": 1.0}, 5, World())["dice"] == pytest.approx(1 / 4)


def test_no_slices_give_no_scores():
    assert mean_over_cases([], score, {"dice": 1.0}, 3, World()) == {}
    assert mean_over_cases([], score, {"dice": 1.0}, 0, World()) == {}
