import pytest
import torch

from ganseg_dist.data.batch import Batch
from ganseg_dist.engine.validate import mean_over_cases
from ganseg_dist.engine.world import World
from ganseg_dist.systems.base import Ratio


def slices(*ratios):
    """A batch that carries its own ratios: case, numerator, denominator, and relevance where it is not 1."""
    cases, numerators, denominators, relevant = zip(*((*ratio, 1.0)[:4] for ratio in ratios), strict=True)
    draws = {"n": torch.tensor(numerators), "d": torch.tensor(denominators), "r": torch.tensor(relevant)}
    nothing = torch.zeros(len(cases), 1, 1, 1)
    return Batch(nothing, nothing, torch.tensor(cases), torch.zeros(len(cases)), draws)


def score(batch):
    return {"dice": Ratio(batch.samples["n"], batch.samples["d"], batch.samples["r"])}


def test_slices_add_up_before_the_division_and_cases_are_averaged():
    batches = [slices((0, 1.0, 2.0), (1, 3.0, 4.0)), slices((0, 0.0, 6.0))]
    scores = mean_over_cases(batches, score, ["dice"], 2, World())
    assert scores == pytest.approx({"dice": (1 / 8 + 3 / 4) / 2})


def test_a_case_counts_when_one_of_its_slices_is_relevant():
    healthy = [(0, 0.0, 3.0, 0.0), (0, 0.0, 0.0, 0.0)]
    ill = [(1, 1.0, 2.0, 4.0), (1, 0.0, 2.0, 0.0)]
    assert mean_over_cases([slices(*healthy, *ill)], score, ["dice"], 2, World()) == {"dice": pytest.approx(1 / 4)}
    assert mean_over_cases([slices(*healthy)], score, ["dice"], 2, World()) == {}


def test_a_case_with_nothing_to_divide_by_does_not_count():
    assert mean_over_cases([slices((0, 0.0, 0.0), (1, 1.0, 2.0))], score, ["dice"], 2, World())["dice"] == 1 / 2


def test_cases_without_slices_do_not_count():
    assert mean_over_cases([slices((2, 1.0, 4.0))], score, ["dice"], 5, World())["dice"] == pytest.approx(1 / 4)


def test_no_slices_give_no_scores():
    assert mean_over_cases([], score, ["dice"], 3, World()) == {}
    assert mean_over_cases([], score, ["dice"], 0, World()) == {}
