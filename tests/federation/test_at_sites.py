from ganseg_dist.config import override
from ganseg_dist.config.operational import changed_fields
from ganseg_dist.federation.strategy import config_at_sites, with_site_batch_size
from ganseg_dist.systems import recipe

SMALL = override(recipe("ganet_seg_small"), {"train.batch_size": 16})


def test_with_site_batch_size_divides_batch_among_sites():
    for sites, batch_size in {1: 16, 4: 4, 6: 3, 100: 1}.items():
        config = with_site_batch_size(SMALL, sites)
        assert changed_fields(SMALL, config) == ("federation.site_batch_size",)
        assert config_at_sites(config).train.batch_size == config.federation.site_batch_size == batch_size


def test_with_site_batch_size_keeps_configured_one():
    config = override(SMALL, {"federation.site_batch_size": 8})
    assert with_site_batch_size(config, 4) == config
    assert config_at_sites(config).train.batch_size == 8


def test_config_at_sites_has_whole_batch_until_run_fixes_it():
    assert config_at_sites(SMALL) == SMALL


def test_config_at_sites_sets_proximal_weight_for_fedprox_only():
    config = override(SMALL, {"federation.proximal_weight": 0.3})
    assert config_at_sites(config).train.proximal_weight == SMALL.train.proximal_weight == 0
    assert config_at_sites(override(config, {"federation.strategy": "fedprox"})).train.proximal_weight == 0.3
