"""Aggregation of the sites' models, and which of them a robust strategy excludes."""

import numpy as np
import pytest

from ganseg_dist.config import override
from ganseg_dist.errors import ConfigError
from ganseg_dist.federation.strategy import strategy_of
from ganseg_dist.systems import recipe
from server.aggregation import Aggregator, validate_setup
from server.grids import InProcessGrid

SENT = {"w": np.zeros(4, np.float32)}
HONEST = {f"site{number}": {"w": np.full(4, 0.1 * number, np.float32)} for number in range(1, 5)}
LIAR = {"liar": {"w": np.array([9, -9, 9, -9], np.float32)}}


def merged(strategy: str) -> np.ndarray:
    config = override(recipe("ganet_seg_debug"), {"federation.strategy": strategy})
    updates = HONEST | LIAR
    InProcessGrid(lambda message, context: message, {})  # Flower's messages must come from a run
    return Aggregator(config.federation).merge(SENT, updates, dict.fromkeys(updates, 1 / len(updates)))["w"]


def test_krum_averages_all_but_suspected_site():
    np.testing.assert_allclose(merged("krum"), 0.25, atol=1e-6)


@pytest.mark.parametrize("strategy", ["fedmedian", "trimmed"])
def test_median_and_trimmed_mean_stay_within_honest_updates(strategy):
    assert np.all((merged(strategy) >= 0.1) & (merged(strategy) <= 0.4))


def test_fedavg_follows_single_outlier():
    assert np.abs(merged("fedavg")).max() > 1


def test_krum_excludes_reversed_update_of_large_float32_weights():
    """Squared distances between weights of norm 73 and updates of norm 0.1 are below float32's noise."""
    rng = np.random.default_rng(0)
    size = 100_000
    sent = rng.normal(size=size).astype(np.float32)
    sent *= np.float32(73 / np.linalg.norm(sent))
    update = rng.normal(size=size)
    update *= 0.1 / np.linalg.norm(update)

    def moved(by, seed):
        noise = np.random.default_rng(seed).normal(size=size)
        return {"w": (sent + by * update + 0.05 * noise / np.linalg.norm(noise)).astype(np.float32)}

    updates = {f"site{seed}": moved(1.0, seed) for seed in range(1, 7)} | {"a liar": moved(-1.0, 7)}
    config = override(recipe("ganet_seg_debug"), {"federation.strategy": "krum"})
    InProcessGrid(lambda message, context: message, {})
    merged = Aggregator(config.federation).merge({"w": sent}, updates, dict.fromkeys(updates, 1 / 7))["w"]
    honest = np.mean([updates[f"site{seed}"]["w"].astype(np.float64) for seed in range(1, 7)], axis=0)
    np.testing.assert_allclose(merged, honest, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "least"),
    [
        ({"strategy": "fedavg"}, 1),
        ({"strategy": "fedadam"}, 1),
        ({"strategy": "fedmedian"}, 3),
        ({"strategy": "krum", "suspected_sites": 1}, 5),
        ({"strategy": "krum", "suspected_sites": 2}, 7),
        ({"strategy": "trimmed", "trimmed_share": 0.2}, 5),
        ({"strategy": "trimmed", "trimmed_share": 0.3}, 4),
        ({"strategy": "trimmed", "trimmed_share": 0.45}, 3),
        ({"strategy": "trimmed", "trimmed_share": 0.01}, 100),
    ],
)
def test_validate_setup_requires_least_answers_of_strategy(fields, least):
    config = override(recipe("ganet_seg_debug"), {f"federation.{name}": value for name, value in fields.items()})
    assert strategy_of(config.federation).least_answers() == least
    validate_setup(config, least)
    if least > 1:
        with pytest.raises(ConfigError, match=rf"{fields['strategy']} needs {least} sites.* and there are {least - 1}"):
            validate_setup(config, least - 1)


@pytest.mark.parametrize("share", [0.05, 0.07, 0.1, 0.15, 0.2, 0.29, 0.3, 0.33, 0.34, 0.49])
def test_trimmed_mean_of_least_answers_excludes_one_outlier(share):
    fields = {"federation.strategy": "trimmed", "federation.trimmed_share": share}
    config = override(recipe("ganet_seg_debug"), fields)
    least = strategy_of(config.federation).least_answers()
    InProcessGrid(lambda message, context: message, {})
    updates = {f"site{number}": {"w": np.full(2, 0.1, np.float32)} for number in range(least - 1)}
    updates["liar"] = {"w": np.array([1e6, -1e6], np.float32)}
    sent = {"w": np.zeros(2, np.float32)}
    merged = Aggregator(config.federation).merge(sent, updates, dict.fromkeys(updates, 1 / least))["w"]
    np.testing.assert_allclose(merged, 0.1, atol=1e-6)


def test_validate_setup_rejects_trimmed_share_of_0():
    fields = {"federation.strategy": "trimmed", "federation.trimmed_share": 0}
    with pytest.raises(ConfigError, match=r"federation\.trimmed_share: 0 trims nothing"):
        validate_setup(override(recipe("ganet_seg_debug"), fields), 50)
