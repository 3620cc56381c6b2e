"""One model out of the sites' models, and which of them a robust strategy leaves out."""

import numpy as np
import pytest

from ganseg_dist.config import override
from ganseg_dist.recipes import recipe
from ganseg_dist.runners.grids import InProcessGrid
from server.strategies import Aggregator

SENT = {"w": np.zeros(4, np.float32)}
HONEST = {f"site{number}": {"w": np.full(4, 0.1 * number, np.float32)} for number in range(1, 5)}
LIAR = {"liar": {"w": np.array([9, -9, 9, -9], np.float32)}}


def merged(strategy: str) -> np.ndarray:
    config = override(recipe("ganet_seg_debug"), {"federation.strategy": strategy})
    updates = HONEST | LIAR
    InProcessGrid(lambda message, context: message, {})  # Flower's messages must come from a run
    return Aggregator(config.federation).merge(SENT, updates, dict.fromkeys(updates, 1 / len(updates)))["w"]


def test_multi_krum_averages_all_but_the_suspected():
    np.testing.assert_allclose(merged("krum"), 0.25, atol=1e-6)


@pytest.mark.parametrize("strategy", ["fedmedian", "trimmed"])
def test_a_liar_among_five_moves_them_no_further_than_the_honest_differ(strategy):
    assert np.all((merged(strategy) >= 0.1) & (merged(strategy) <= 0.4))


def test_plain_averaging_is_moved_by_one_liar():
    assert np.abs(merged("fedavg")).max() > 1
