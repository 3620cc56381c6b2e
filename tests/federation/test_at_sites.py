from ganseg_dist.config import override
from ganseg_dist.federation.strategy import config_at_sites
from ganseg_dist.systems import recipe

SMALL = override(recipe("ganet_seg_small"), {"train.batch_size": 16})


def test_config_at_sites_is_unchanged_for_one_site():
    assert config_at_sites(SMALL, 1) == SMALL


def test_config_at_sites_divides_batch_size():
    assert config_at_sites(SMALL, 4).train.batch_size == 4
    assert config_at_sites(SMALL, 6).train.batch_size == 3
    assert config_at_sites(SMALL, 100).train.batch_size == 1


def test_config_at_sites_uses_configured_site_batch_size():
    assert config_at_sites(override(SMALL, {"federation.site_batch_size": 8}), 4).train.batch_size == 8


def test_config_at_sites_sets_proximal_weight_for_fedprox_only():
    config = override(SMALL, {"federation.proximal_weight": 0.3})
    assert config_at_sites(config, 2).train.proximal_weight == SMALL.train.proximal_weight == 0
    assert config_at_sites(override(config, {"federation.strategy": "fedprox"}), 2).train.proximal_weight == 0.3
