"""Registry of strategies, whose hyperparameters are fields of every config."""

import pickle
from importlib.metadata import EntryPoint

import pytest

from ganseg_dist import registry
from ganseg_dist.config import override
from ganseg_dist.config.federation import federation_class
from ganseg_dist.errors import ConfigError
from ganseg_dist.federation.privacy import validate_privacy
from ganseg_dist.federation.strategy import Strategy, strategies, strategy_of
from ganseg_dist.inference.card import describe_settings
from ganseg_dist.systems import recipe
from server.aggregation import validate_setup

PUBLISHED = ["fedavg", "krum", "fedmedian", "trimmed", "fedprox", "fedadam", "fedyogi"]


class Damped(Strategy):
    """Needs three answers."""

    damping: float = 0.25
    """Share of the weights sent."""

    def least_answers(self):
        return 3

    def aggregate(self, sent, updates, weights, state):
        return sent


class Clashing(Damped):
    """Takes the name of the federation's own field."""

    rounds: int = 3


@pytest.fixture
def points(monkeypatch):
    """Installs entry points in place of what is installed."""

    def install(**values):
        found = [EntryPoint(name, value, registry.STRATEGIES_GROUP) for name, value in values.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: found if group == registry.STRATEGIES_GROUP else [])
        registry.strategies.cache_clear()

    yield install
    registry.strategies.cache_clear()


def test_strategies_are_listed_by_year():
    assert [name for name in strategies() if name in PUBLISHED] == PUBLISHED
    assert sorted(PUBLISHED) == registry.published_strategies()


def test_strategy_of_reads_hyperparameters_from_config():
    config = override(recipe("ganet_seg_debug"), {"federation.strategy": "krum", "federation.suspected_sites": 2})
    assert dict(strategy_of(config.federation)) == {"suspected_sites": 2}
    assert pickle.loads(pickle.dumps(config)) == config


def test_federation_class_accepts_third_party_strategy(points):
    points(damped="tests.federation.test_strategy:Damped")
    made = federation_class.__wrapped__()  # the cached class is that of every other config
    default, chosen = made(), made(strategy="damped", damping=0.5)
    assert (default.of_other_packages(), chosen.of_other_packages()) == ({"damping"}, set())
    config = recipe("ganet_seg_debug").model_copy(update={"federation": chosen})
    assert describe_settings(config)["Strategy"] == "damped (damping 0.5)"
    with pytest.raises(ConfigError, match=r"damped needs 3 sites for federation\.damping=0\.5 and there are 2"):
        validate_setup(config, 2)
    private = made(strategy="damped", privacy={"epsilon": 8.0})
    with pytest.raises(ConfigError, match="damped chooses among single updates"):
        validate_privacy(config.model_copy(update={"federation": private}), 3)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("damped", "no_such_module:Damped", r"the entry point damped of ganseg\.strategies cannot be loaded"),
        ("damped", "tests.federation.test_strategy:PUBLISHED", "is no subclass of .*Strategy; fix or uninstall"),
        ("krum", "tests.federation.test_strategy:Damped", "takes a name that another strategy has; rename it"),
        ("clashing", "tests.federation.test_strategy:Clashing", r"clashing: federation\.rounds is another field"),
    ],
)
def test_federation_class_rejects_invalid_entry_point(points, name, value, message):
    points(**{name: value})
    with pytest.raises(ConfigError, match=message):
        federation_class.__wrapped__()
