"""Merges the updates that the firewall accepts: their shares, and the strategy (`ganseg_dist.federation.strategy`)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ganseg_dist.config import RunConfig
from ganseg_dist.config.federation import FederationConfig
from ganseg_dist.errors import ConfigError, FederationError
from ganseg_dist.federation.shared_parameters import Arrays
from ganseg_dist.federation.strategy import StageState, strategy_of


def validate_setup(config: RunConfig, sites: int) -> None:
    """Raises ConfigError for a strategy that does not work with this many sites or with this recipe."""
    name, strategy = config.federation.strategy, strategy_of(config.federation)
    needed = strategy.least_answers()
    if sites < needed:
        settings = ", ".join(f"federation.{field}={value}" for field, value in strategy)
        raise ConfigError(
            f"federation.strategy: {name} needs {needed} sites{settings and f' for {settings}'} and there are {sites}; "
            "take fedavg, whose firewall needs no majority"
        )
    if config.train.ema is not None and not strategy.updates_ema:
        raise ConfigError(
            f"federation.strategy: {name} moves the weights and not their running averages, which {config.recipe} "
            "keeps; add train.ema=none, or take another strategy"
        )


def site_weights(examples: Mapping[str, float], largest_share: float) -> dict[str, float]:
    """Shares in proportion to the examples, none above the largest; they sum to 1, and one site's is 1.0.

    A site without examples has the share 0. With n sites of e_i > 0 examples and the cap c = max(largest_share, 1/n),
    as below 1/n no shares sum to 1:

        w_i = min(c, lambda e_i),   lambda such that sum_i w_i = 1

    so what is cut from one site goes to those below the cap in proportion to their examples (water-filling). In the
    order of falling e_i, each site takes its proportion of what remains for it and the smaller ones, or c if that is
    less: the first site that is not cut determines lambda.

    The order in which sites answered changes no bit of the result.

    Raises FederationError where no site has an example.
    """
    with_examples = [site for site in examples if examples[site] > 0]
    if not with_examples:
        raise FederationError("federation: no site has anything to train on; see what each stated when it joined")
    cap = max(largest_share, 1 / len(with_examples))
    ordered = sorted(with_examples, key=lambda site: (-examples[site], site))
    shares = dict.fromkeys(examples, 0.0)
    remaining = 1.0
    for place, site in enumerate(ordered):
        proportion = examples[site] / math.fsum(examples[other] for other in ordered[place:])
        shares[site] = min(cap, remaining * proportion)
        remaining -= shares[site]
    return {site: shares[site] for site in examples}


def mean_scores(
    scores: Mapping[str, Mapping[str, float]], cases: Mapping[str, float], largest_share: float, *, alone: bool
) -> dict[str, float]:
    """By name, the mean of the sites' scores; a site weighs by its cases and, as in training, no more than the cap.

    What a single site sends of several is no mean: the site would choose alone which round is the best. `alone`: the
    federation has one site.
    """
    means: dict[str, float] = {}
    for name in dict.fromkeys(name for of_site in scores.values() for name in of_site):
        of_name = {site: cases[site] for site in scores if name in scores[site] and cases[site] > 0}
        if len(of_name) > 1 or (alone and of_name):
            weights = site_weights(of_name, largest_share)
            means[name] = math.fsum(weights[site] * scores[site][name] for site in sorted(of_name))
    return means


class Aggregator:
    """One strategy over the rounds of a stage."""

    def __init__(self, config: FederationConfig) -> None:
        self.strategy = strategy_of(config)
        self.begin()

    def begin(self) -> None:
        """Start a new stage, with other tensors and without moments."""
        self.state = StageState()

    def merge(
        self, sent: Arrays, updates: Mapping[str, Arrays], weights: Mapping[str, float]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """The strategy's aggregate as float32; see `Strategy.aggregate`."""
        merged = self.strategy.aggregate(sent, updates, weights, self.state)
        self.state.rounds += 1
        return {name: merged[name].astype(np.float32, copy=False) for name in sent}
