"""The config by which each site trains: the run's, adapted to a site being one of several."""

from __future__ import annotations

from ganseg_dist.config import RunConfig, override
from ganseg_dist.federation.strategy import strategy_of


def config_at_sites(config: RunConfig, sites: int) -> RunConfig:
    """The config that a server of this many sites sends.

    A step of the federation is a step at every site, so that its batch is spread over all of them: like workers of one
    run, n sites take an n-th of `train.batch_size` each. With whole batches they would take an n-th of the steps that
    the same data give in one place, and average models that have hardly changed.

    For one site it is the run's config, apart from what the strategy changes.
    """
    federation = config.federation
    changes: dict[str, object] = {
        "train.batch_size": federation.site_batch_size or max(1, round(config.train.batch_size / sites))
    }
    return override(config, {**changes, **strategy_of(federation).site_fields()})
