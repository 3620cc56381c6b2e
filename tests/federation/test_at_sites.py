from ganseg_dist.config import override
from ganseg_dist.federation.at_sites import config_at_sites
from ganseg_dist.systems import recipe

SMALL = override(recipe("ganet_seg_small"), {"train.batch_size": 16})


def test_one_site_trains_by_the_runs_own_config():
    assert config_at_sites(SMALL, 1) == SMALL


def test_sites_share_the_batch_out():
    assert config_at_sites(SMALL, 4).train.batch_size == 4
    assert config_at_sites(SMALL, 6).train.batch_size == 3
    assert config_at_sites(SMALL, 100).train.batch_size == 1


def test_a_batch_that_was_asked_for_is_taken():
    assert config_at_sites(override(SMALL, {"federation.site_batch_size": 8}), 4).train.batch_size == 8


def test_the_proximal_term_is_of_fedprox_alone():
    asked = override(SMALL, {"federation.proximal_weight": 0.3})
    assert config_at_sites(asked, 2).train.proximal_weight == SMALL.train.proximal_weight == 0
    assert config_at_sites(override(asked, {"federation.strategy": "fedprox"}), 2).train.proximal_weight == 0.3
